"""``clowder record``: record demonstrations of a task by an expert."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.demonstrations.record import RecordReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("task", metavar="TASK", help="short name of an actor config, or a task name")
    parser.add_argument("--expert", help="name of the expert (default: that of the actor config)")
    parser.add_argument(
        "--episodes", type=int, required=True, help="in the set when it is done; a set that is there is continued"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="SET", help="folder of the set")
    parser.add_argument(
        "--form",
        choices=("minari", "actions"),
        default="minari",
        help="whole episodes, or only seeds and actions (tiny) (default: %(default)s)",
    )
    parser.add_argument(
        "--noise",
        type=float,
        nargs="+",
        default=[],
        metavar="LEVEL",
        help="disturb the executed actions of a share of the episodes, levels in turn; labels stay the expert's",
    )
    parser.add_argument("--noise-share", type=float, default=0.5, help="share of such episodes (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the first episode (default: %(default)s)")
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Record and say what the set holds."""
    from actors.demonstrations.open_set import open_set
    from actors.demonstrations.record import record
    from distributed.compose import actor_configs
    from distributed.errors import ClowderError, nearest, refusing
    from distributed.versions import check_packages

    check_packages()
    configs = actor_configs(arguments.config_dir)
    names = {config.task: name for name, config in configs.items()}
    name = names.get(arguments.task, arguments.task)
    if name not in configs:
        raise ClowderError(
            f"there is no actor config for {arguments.task}; {nearest(name, [*configs, *names], 'tasks')}"
        )
    config = configs[name]
    expert = arguments.expert or config.expert
    if expert is None:
        raise ClowderError(f"the actor config {name} names no expert; choose one with --expert")
    with refusing(""):
        report = record(
            config,
            expert,
            arguments.episodes,
            arguments.out,
            form=arguments.form,
            noise_levels=arguments.noise,
            noise_share=arguments.noise_share,
            start_seed=arguments.seed,
            progress=_print_progress,
        )
        found = open_set(arguments.out, config)
    print(
        f"{arguments.out}: {report.episodes} episodes of {expert}, {int(found.lengths.sum()):,} steps, mean return "
        f"{found.demonstrator_return:.2f} without noise (random play: {report.random_return:.2f}), "
        f"{report.failed} failed and left out; {report.seconds:.0f} s"
    )
    found.close()
    return 0


def _print_progress(report: RecordReport) -> None:
    print(f"{report.episodes}/{report.wanted}: return {report.last_return:.2f}, {report.seconds:.0f} s", flush=True)
