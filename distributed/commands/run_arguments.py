"""Arguments of the commands that open a trained run."""

from __future__ import annotations

import argparse


def add_run(parser: argparse.ArgumentParser) -> None:
    """The run, which of its checkpoints, and where its own environments are configured."""
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument(
        "--checkpoint",
        metavar="newest|best|STEP",
        default="newest",
        help="best: the highest score of those that are kept; STEP: name of a folder in checkpoints/ "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="your own folder with actors/, for tasks with an entry_point",
    )


def add_overrides(parser: argparse.ArgumentParser) -> None:
    """Settings of evaluation that may differ from the run's."""
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="evaluation.* only, such as evaluation.decoding.discrete=greedy",
    )
