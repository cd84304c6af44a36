"""``clowder tasks``: what is configured, what is installed, and its spaces."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.environments.make import TaskListing
    from agent.task import ArraySpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )
    parser.add_argument("--names", action="store_true", help="names only: no environment is made")


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each actor config."""
    from actors.demonstrations.open_set import shipped_sets
    from actors.environments.make import list_tasks
    from actors.experts.make import EXPERTS
    from distributed.compose import actor_configs

    configs = actor_configs(arguments.config_dir)
    listings = list_tasks(configs, spaces=not arguments.names)
    widths = [max(len(text) for text in column) for column in zip(*((each.name, each.task) for each in listings))]
    for each in listings:
        line = f"{each.name:<{widths[0]}}  {each.task:<{widths[1]}}  {describe(each)}"
        demonstrations = configs[each.name].demonstrations
        print(line.rstrip() + (f"; demonstrations: {demonstrations}" if demonstrations else ""))
    print(f"\nshipped demonstration sets: {', '.join(shipped_sets()) or 'none'}")
    print(f"experts: {', '.join(EXPERTS)}")
    print("actors=[name,...] chooses actor configs for clowder train; one of your own is one YAML file (--config-dir)")
    return 0


def describe(listing: TaskListing) -> str:
    """Whether a task is installed, and its spaces: observation -> action."""
    if listing.problem is not None:
        return ("" if listing.installed else "NOT INSTALLED: ") + " ".join(listing.problem.split())
    if listing.spec is None:
        return "installed" if listing.installed else "NOT INSTALLED"
    observation = ", ".join(f"{key} {describe_array(spec)}" for key, spec in listing.spec.observation.items())
    return f"{observation or 'nothing'} -> {describe_array(listing.spec.action)}"


def describe_array(spec: ArraySpec) -> str:
    """An array in a few words."""
    shape = "x".join(map(str, spec.shape))
    if spec.kind == "discrete":
        return f"{shape + ' ' if shape else ''}of {spec.num_values}"
    if spec.kind == "text":
        return "text"
    return shape if spec.kind == "image" else f"{spec.kind} {shape}".strip()
