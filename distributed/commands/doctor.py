"""``clowder doctor``: check this installation and say what to do."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("--folder", type=Path, default=Path("runs"), help="where runs will be (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print each finding; exit code 1 where something essential is broken."""
    from distributed.doctor import examine

    marks = {"ok": "ok    ", "note": "note  ", "broken": "BROKEN"}
    broken = 0
    for finding in examine(arguments.folder):
        print(f"{marks[finding.state]}  {finding.check:<18}{finding.found}", flush=True)
        if finding.fix:
            print(f"{'':<26}-> {finding.fix}", flush=True)
        broken += finding.state == "broken"
    print("all is well" if not broken else f"{broken} essential {'thing is' if broken == 1 else 'things are'} broken")
    return 1 if broken else 0
