"""``clowder import-minari``: make a demonstration set of a Minari dataset."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "dataset", metavar="DATASET", help="a folder of a Minari dataset, or the name of one that Minari has here"
    )
    parser.add_argument("--task", required=True, help="short name of an actor config, or a task name")
    parser.add_argument("--out", type=Path, required=True, metavar="SET", help="folder of the set")
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Import and say what the set holds."""
    import shlex

    from actors.demonstrations.card import make_card
    from actors.demonstrations.minari_import import import_minari
    from actors.demonstrations.open_set import load_set
    from distributed.compose import find_actor
    from distributed.errors import refusing

    config = find_actor(arguments.task, arguments.config_dir)[1]
    words = ["clowder", "import-minari", arguments.dataset, "--task", arguments.task, "--out", str(arguments.out)]
    with refusing(""):
        import_minari(arguments.dataset, config, arguments.out, command=shlex.join(words))
    print(f"{arguments.out}: {make_card(load_set(arguments.out)).line()}")
    return 0
