"""``clowder report``: one HTML page of a run, with plots and tables."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument("--folder", default="runs", help="where run folders are (default: %(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the page (default: report.html in the run folder)")


def run(arguments: argparse.Namespace) -> int:
    """Write the page, also of a run that goes on."""
    from distributed.run_folder import RunFolder
    from distributed.run_report import write_run_report

    folder = RunFolder.open(arguments.run, arguments.folder)
    out = arguments.out or folder.path / "report.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    write_run_report(folder, out)
    print(out)
    return 0
