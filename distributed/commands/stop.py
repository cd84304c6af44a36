"""``clowder stop``: end a run as Ctrl-C does."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument("--folder", default="runs", help="where run folders are (default: %(default)s)")
    parser.add_argument(
        "--deadline", type=float, default=30.0, help="seconds to wait for its end (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Ask the coordinator to end and wait for it; exit code 1 where it lives on."""
    from distributed.run_folder import RunFolder

    folder = RunFolder.open(arguments.run, arguments.folder)
    process = folder.process()
    if not folder.stop(arguments.deadline):
        pid = process.pid if process else "?"
        print(
            f"{folder.name} has not ended within {arguments.deadline:g} s; see {folder.log}. To end it: kill -9 {pid}"
        )
        return 1
    print(f"{folder.name} has stopped; go on with it: clowder train --resume {folder.path}")
    return 0
