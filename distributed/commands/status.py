"""``clowder status``: what a run is doing."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument("--folder", default="runs", help="where run folders are (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print phase, progress, rates and returns; exit code 0 also where the run has ended."""
    import datetime

    from distributed.console import printer, rows
    from distributed.result import Result, print_result
    from distributed.run_folder import RunFolder

    folder = RunFolder.open(arguments.run, arguments.folder)
    status = folder.read_status()
    out = printer()
    process = folder.process()
    out.print(f"{folder.path}: {status['phase']}" + (f", process {process.pid}" if process else ""), markup=False)
    if status["updated_at"]:
        when = datetime.datetime.fromtimestamp(status["updated_at"])
        out.print(f"as of {when:%Y-%m-%d %H:%M:%S}")
    for label, text in rows(status["metrics"]):
        out.print(f"  {label:<22}{text}", markup=False)
    if status["phase"] == "finished" and folder.result.exists():
        print_result(Result.read(folder.result), out)
    if status["phase"] in ("died", "failed", "interrupted"):
        out.print(f"go on with it: clowder train --resume {folder.path}   (its log: {folder.log})", markup=False)
    return 0
