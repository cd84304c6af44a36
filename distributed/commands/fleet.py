"""``clowder fleet``: change how many actors of a task a run has, while it goes on."""

from __future__ import annotations

import argparse

ALLOWED = ("actors.*.num_actors",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.epilog = "Example: clowder fleet runs/NAME actors.boxing.num_actors=8"
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument("overrides", nargs="+", metavar="key=value", help="actors.TASK.num_actors=N")
    parser.add_argument("--folder", default="runs", help="where run folders are (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Ask the coordinator for other numbers of actors; exit code 0 once it was asked."""
    from distributed.amend import amend
    from distributed.compose import typed
    from distributed.errors import ConfigError
    from distributed.run_folder import RunFolder

    folder = RunFolder.open(arguments.run, arguments.folder)
    config = typed(folder.read_config())
    changed, _ = amend(config, arguments.overrides, ALLOWED, "while a run goes on")
    if folder.process() is None:
        words = " ".join(arguments.overrides)
        raise ConfigError(
            f"{folder.name} is not running; change it at a resume: clowder train --resume {folder.path} {words}"
        )
    if config.cluster.mode == "serial":
        raise ConfigError("a serial run has one process, with all its actors; only runs in Ray can change them")
    asked = {word.partition("=")[0].split(".")[1] for word in arguments.overrides}
    wanted = {name: changed.actors[name].num_actors for name in sorted(asked)}
    for name, count in wanted.items():
        if count and config.actors[name].num_actors == 0:
            raise ConfigError(
                f"actors.{name} began without actors, so its learner does not look for their windows; resume the run "
                f"with it: clowder train --resume {folder.path} actors.{name}.num_actors={count}"
            )
    sizes = folder.read_fleet() | wanted
    folder.write_fleet(sizes)
    print(f"{folder.name} is asked for {', '.join(f'{count} actors of {name}' for name, count in sizes.items())}")
    return 0
