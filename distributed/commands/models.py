"""``clowder models``: model presets and their parameter counts, beside the paper's."""

from __future__ import annotations

import argparse

PAPER_MILLIONS = {"gato-79m": 79.0, "gato-364m": 364.0, "gato-1.2b": 1180.0}
"""Sizes of Reed et al. 2022, table 5."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each preset; no weights are made."""
    import dataclasses

    from rich.console import Console
    from rich.table import Table

    from agent.agent import count_parameters
    from distributed.compose import compose, options

    table = Table(title="Parameters in millions")
    for heading in ("model", "blocks", "vocabulary", "encoders", "all", "with xl", "paper"):
        table.add_column(heading, justify="left" if heading == "model" else "right")
    found = []
    for name in options("model", arguments.config_dir):
        config = compose([f"model={name}", "actors=[cartpole_swingup]"], arguments.config_dir).agent
        found.append((name, config, count_parameters(config)))
    for name, config, counts in sorted(found, key=lambda each: sum(each[2].values())):
        xl = count_parameters(dataclasses.replace(config, positions="xl"))
        paper = f"{PAPER_MILLIONS[name]:,.0f}" if name in PAPER_MILLIONS else "-"
        columns = (*counts.values(), sum(counts.values()), sum(xl.values()))
        table.add_row(name, *(f"{count / 1e6:,.1f}" for count in columns), paper)
    Console().print(table)
    print(
        "The paper names no position projections, but its counts only come out with Transformer-XL's (a d x d\n"
        "matrix in every layer); rotary positions, the default, have no parameters. What is left of the gap is the\n"
        "image encoder, whose widths the paper does not give, and the ids kept for returns and rewards."
    )
    return 0
