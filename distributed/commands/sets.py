"""``clowder sets``: list demonstration sets, or show the card of one."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from actors.config import ActorConfig
    from actors.demonstrations.demonstration_set import SetSettings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help="folders, or names of shipped sets (default: a list of the shipped)"
    )
    parser.add_argument("--json", action="store_true", help="print a list of cards for programs")
    parser.add_argument(
        "--check", action="store_true", help="also read, or simulate, every episode and compare it with its checksum"
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print cards."""
    import json

    from actors.demonstrations.card import make_card, readme
    from actors.demonstrations.demonstration_set import other_versions
    from actors.demonstrations.open_set import load_set, open_set, shipped_sets
    from distributed.errors import refusing

    chosen = arguments.sets or list(shipped_sets())
    cards = []
    for name in chosen:
        with refusing(""):
            opened = load_set(name)
            card = make_card(opened)
        cards.append(card)
        others = other_versions(opened.settings)
        if not arguments.json:
            print(readme(card) if arguments.sets else f"{name:<25} {card.line()}")
            if arguments.sets and others:
                print(f"recorded with other versions than are installed: {others}\n")
        if arguments.check:
            with refusing(""):
                whole = open_set(name, config_of(opened.settings, arguments.config_dir))
                count = sum(item is not None for item in whole.episodes(range(whole.num_episodes)))
                whole.close()
            if not arguments.json:
                print(f"{name}: all {count} episodes are as they were recorded", flush=True)
    if arguments.json:
        print(json.dumps([card.to_json() for card in cards], indent=1))
    return 0


def config_of(settings: SetSettings, config_dirs: list[str]) -> ActorConfig:
    """The actor config of a set's task with the set's own arguments; an entry point is only the user's to give."""
    import dataclasses

    from actors.config import ActorConfig
    from distributed.compose import actor_configs

    known = {config.task: config for config in actor_configs(config_dirs).values()}
    return dataclasses.replace(
        known.get(settings.task.name, ActorConfig(task=settings.task.name)), arguments=dict(settings.arguments)
    )
