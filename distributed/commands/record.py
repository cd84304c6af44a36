"""``clowder record``: record demonstrations of a task by an expert."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("task", metavar="TASK", help="short name of an actor config, or a task name")
    parser.add_argument(
        "--expert",
        help="name of the expert (default: that of the actor config); run:FOLDER is the newest checkpoint of a run, "
        "weak:LEVEL:EXPERT errs as under --noise LEVEL (weak:LEVEL@SHARE:EXPERT in a share of the episodes), and its "
        "errors are what is imitated; "
        "track:SET follows the best episode of a set without sticky actions, and track:SET+run:FOLDER shows a run what "
        "that would do where the run steers (--noise is then the share of steps that it steers)",
    )
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
        "--processes",
        type=int,
        default=1,
        metavar="N",
        help="that play; the set does not depend on it. 1 records here, more are processes of Ray "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--episode-deadline",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for one episode; a seed that takes longer is left out (default: %(default)s)",
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Record and say what the set holds."""
    from actors.demonstrations.open_set import open_set
    from actors.demonstrations.record import record_order
    from actors.demonstrations.recording import RecordingFailed, RecordOrder
    from distributed.commands.record_progress import Progress
    from distributed.compose import find_actor
    from distributed.errors import ClowderError, Failure, refusing
    from distributed.run_expert import expert_of
    from distributed.versions import check_packages

    check_packages()
    if arguments.processes < 1:
        raise ClowderError(f"--processes must be at least 1, not {arguments.processes}")
    config = find_actor(arguments.task, arguments.config_dir)[1]
    name = arguments.expert or config.expert
    if name is None:
        raise ClowderError(f"the actor config of {config.task} names no expert; choose one with --expert")
    with refusing(""):
        order = RecordOrder(
            config,
            arguments.episodes,
            arguments.out,
            arguments.form,
            tuple(arguments.noise),
            arguments.noise_share,
            arguments.seed,
            arguments.episode_deadline,
            command=command_line(arguments, name),
        )
        try:
            with Progress(arguments.episodes) as progress:
                if arguments.processes == 1:
                    player = expert_of(name, config, arguments.config_dir)
                    report = record_order(order, player, progress=progress.show, said=progress.say)
                else:
                    from distributed.recording import record_in_processes

                    report = record_in_processes(
                        order,
                        name,
                        arguments.processes,
                        config_dirs=arguments.config_dir,
                        progress=progress.show,
                        said=progress.say,
                    )
        except RecordingFailed as error:
            raise Failure(str(error)) from error
        found = open_set(arguments.out, config)
    print(
        f"{arguments.out}: {report.episodes} episodes of {found.settings.expert}, {int(found.lengths.sum()):,} steps, "
        f"mean return {found.demonstrator_return:.2f} without noise (random play: {report.random_return:.2f}), "
        f"{report.failed} failed and left out; {report.seconds:.0f} s"
    )
    found.close()
    return 0


def command_line(arguments: argparse.Namespace, expert: str) -> str:
    """The command that records this set anew, without what does not change it."""
    import shlex

    words = ["clowder", "record", arguments.task, "--expert", expert, "--episodes", str(arguments.episodes)]
    words += ["--out", str(arguments.out), "--form", arguments.form, "--seed", str(arguments.seed)]
    if arguments.noise:
        words += [
            "--noise",
            *(f"{level:g}" for level in arguments.noise),
            "--noise-share",
            f"{arguments.noise_share:g}",
        ]
    for folder in arguments.config_dir:
        words += ["--config-dir", str(folder)]
    return shlex.join(words)
