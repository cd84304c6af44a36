"""``clowder train``: train one agent on the tasks of an experiment, or go on with a run."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed.config import TrainConfig
    from distributed.plan import RunPlan
    from distributed.run_folder import RunFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.epilog = (
        "Examples: clowder train experiment=quickstart; clowder train actors=[boxing] model=small learner.steps=5000; "
        "clowder train --resume runs/NAME stop.learner_steps=20000"
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="configuration, such as experiment=quickstart"
    )
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="go on with a run; only stop.*, cluster.*, checkpoint.*, logging.*, actor counts and where replay "
        "listens may change",
    )
    parser.add_argument("--seed", type=int, help="of initial weights, batches and environments (same as seed=N)")
    parser.add_argument("--name", help="of the run folder (default: experiment and time)")
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="a folder of your own with actors/, experiment/, ...; may be repeated",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print the fleet, memory, disk and time, and start nothing"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train to the stop condition; exit code 0 at its end, 130 where it was interrupted."""
    from distributed.compose import compose
    from distributed.config import to_dict
    from distributed.console import printer
    from distributed.errors import ConfigError, refusing
    from distributed.estimate import estimate, show
    from distributed.plan import make_plan
    from distributed.preflight import check_run, check_start
    from distributed.run_folder import RunFolder, check_name, default_name
    from distributed.versions import check_packages
    from learner.checkpoint import checkpoint_of

    check_packages()
    if arguments.resume:
        return _resume(arguments)
    seed = [] if arguments.seed is None else [f"seed={arguments.seed}"]
    config = compose([*arguments.overrides, *seed], arguments.config_dir)
    name = arguments.name or config.name
    if name:
        check_name(name)
    folder = Path(config.logging.folder)
    if name and (folder / name).exists() and not arguments.dry_run:
        raise ConfigError(
            f"the run folder {folder / name} exists; go on with it (clowder train --resume {folder / name}) "
            "or choose another --name"
        )
    if config.start_from is not None:
        with refusing("start_from"):  # this very checkpoint, also where a resume or another process reads it
            start = checkpoint_of(Path(config.start_from)).folder.resolve()
        config = dataclasses.replace(config, start_from=str(start))
    plan = make_plan(config)
    check_run(plan)
    check_start(plan)
    found = estimate(plan)
    if arguments.dry_run:
        show(plan, found, printer())
        return 0
    experiment = next((word.partition("=")[2] for word in arguments.overrides if word.startswith("experiment=")), None)
    config = dataclasses.replace(config, name=name or default_name(experiment, folder))
    made = RunFolder.create(folder / config.name, to_dict(config), sys.argv)
    with made.claim():
        return _train(plan, config, made, resume=False)


def _resume(arguments: argparse.Namespace) -> int:
    from distributed.amend import RESUMABLE, amend, check_entry_points, check_network
    from distributed.compose import typed
    from distributed.config import to_dict
    from distributed.console import printer
    from distributed.errors import ConfigError
    from distributed.estimate import estimate, show
    from distributed.plan import make_plan
    from distributed.preflight import check_run, check_start
    from distributed.run_folder import RunFolder
    from learner.checkpoint import whole_checkpoints

    for flag in ("seed", "name"):
        if getattr(arguments, flag) is not None:
            raise ConfigError(f"--{flag} cannot be changed when a run is resumed; start a new run for it")
    made = RunFolder.open(arguments.resume)
    made.check_links()
    why = "when a run is resumed (start a new run for it)"
    config, changed = amend(typed(made.read_config()), arguments.overrides, RESUMABLE, why)
    check_entry_points(config, made.path, arguments.config_dir)
    check_network(config, made.path, arguments.overrides)
    plan = make_plan(config)
    check_run(plan)
    if not whole_checkpoints(made.checkpoints):
        check_start(plan)  # it begins anew
    found = estimate(plan)
    if arguments.dry_run:
        show(plan, found, printer())
        return 0
    with made.claim():  # before the folder is written to: another coordinator may have it
        made.write_resumed(to_dict(config), sys.argv, changed)
        return _train(plan, config, made, resume=True)


def _train(plan: RunPlan, config: TrainConfig, made: RunFolder, resume: bool) -> int:
    """Train in a folder that the caller has claimed."""
    from distributed.console import printer
    from distributed.coordinator import train
    from distributed.errors import Failure
    from distributed.learning_curves import draw
    from distributed.result import print_result

    print(f"run folder: {made.path}   (tensorboard --logdir {made.tensorboard})", flush=True)
    try:
        result = train(config, made, resume, plan)
    except KeyboardInterrupt:
        made.write_end("interrupted")
        print(f"clowder train: interrupted; go on with: clowder train --resume {made.path}", file=sys.stderr)
        return 130
    except BaseException:
        made.write_end("failed")
        raise
    try:
        result.write(made.result)
    except OSError as error:
        made.write_end("failed")
        print_result(result, printer())
        raise Failure(
            f"the result above could not be written to {made.path}: {error}; make room, then evaluate again: "
            f"clowder train --resume {made.path}"
        ) from error
    try:
        draw(made.metrics, made.curves, result)
    except Exception as error:
        print(f"clowder train: the learning curves were not drawn: {error}", file=sys.stderr)
    made.write_end("finished")
    print_result(result, printer())
    print(f"result: {made.result}   curves: {made.curves}")
    for task, why in result.failed.items():
        print(f"the evaluation of {task} failed: {why}; clowder evaluate {made.path} tries it again", file=sys.stderr)
    return 1 if result.failed else 0
