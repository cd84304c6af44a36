"""``clowder play``: record a video of a run's agent on one task."""

from __future__ import annotations

import argparse
from pathlib import Path

from distributed.commands.run_arguments import add_overrides, add_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    add_run(parser)
    add_overrides(parser)
    parser.add_argument("--task", required=True, help="task name or short name")
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="the MP4 to write")
    parser.add_argument("--seed", type=int, help="of the episode (default: the first reporting seed)")
    parser.add_argument("--steps", type=int, default=2000, help="longest video in steps (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Write the video and say how long it is."""
    import torch

    from actors.seeds import REPORTING_SEEDS
    from distributed.errors import ClowderError, refusing
    from distributed.evaluation import record
    from distributed.trained_run import TrainedRun
    from distributed.versions import check_packages

    check_packages()
    if arguments.video.suffix.lower() != ".mp4":
        raise ClowderError(f"--video {arguments.video}: the file's name ends in .mp4")
    if arguments.steps < 1:
        raise ClowderError(f"--steps must be at least 1, not {arguments.steps}")
    torch.set_num_threads(1)
    trained = TrainedRun.load(arguments.run, arguments.overrides, arguments.config_dir, arguments.checkpoint)
    actor = trained.config.actors[trained.short_name(arguments.task)]
    with refusing(actor.task):
        frames = record(
            trained.agent,
            actor,
            trained.config.evaluation.decoding,
            seed=REPORTING_SEEDS if arguments.seed is None else arguments.seed,
            path=arguments.video,
            steps=arguments.steps,
        )
    print(f"{arguments.video}: {frames} pictures of {actor.task}")
    return 0
