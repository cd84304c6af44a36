"""The ``clowder`` command: verbs and flags. Only the standard library is imported here, so that ``--help`` is quick."""

from __future__ import annotations

import argparse
import errno
import importlib
import importlib.metadata
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import NoReturn

COMMANDS = {
    "train": "train one agent on the tasks of an experiment, or go on with a run",
    "evaluate": "play evaluation episodes with a run's weights and score them",
    "ask": "have a run's agent answer a question on a picture",
    "play": "record a video of a run's agent on one task",
    "record": "record demonstrations of a task by an expert",
    "explore": "find demonstrations of an Atari game whose rewards are rare, with Go-Explore",
    "import-minari": "make a set of a Minari dataset",
    "sets": "list demonstration sets, or show the card of one",
    "tasks": "list the tasks: what is configured, what is installed, its spaces; the catalogue by --suite",
    "reference": "measure what random play reaches at the tasks of the catalogue, and note what experts reach",
    "models": "list the model presets and count their parameters, beside the paper's",
    "status": "say what a run is doing",
    "report": "write one HTML page of a run: what it reached, how, and from what data",
    "fleet": "change how many actors of a task a run has, while it goes on",
    "stop": "end a run as Ctrl-C does: it leaves a checkpoint and no process",
    "doctor": "check this installation and say what to do",
}
"""Commands of this floor, each a module of `distributed.commands` with ``add_arguments(parser)`` and ``run(args)``."""

ENTRY_POINTS = "clowder.commands"
"""Commands of higher floors: an entry point ``name = "package.module"`` of this group, a module of the same form."""


class Parser(argparse.ArgumentParser):
    """Refuses in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit 2; the usage is one --help away."""
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code: 0 done, 1 not well, 2 refused (one line on stderr), 130 interrupted."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    further = {point.name: point for point in importlib.metadata.entry_points(group=ENTRY_POINTS)}
    if not words or words[0] in ("-h", "--help"):
        print(_overview(further))
        return 0
    if words[0] in ("-V", "--version"):
        print(f"clowder {importlib.metadata.version('clowder')}")
        return 0
    verb, rest = words[0], words[1:]
    if verb not in COMMANDS and verb not in further:
        return _unknown(verb, [*COMMANDS, *further])
    from actors.redaction import redact
    from distributed.errors import ClowderError

    module: ModuleType = importlib.import_module(
        f"distributed.commands.{verb.replace('-', '_')}" if verb in COMMANDS else further[verb].value
    )
    description = COMMANDS.get(verb) or (module.__doc__ or "").split("\n")[0]
    parser = Parser(prog=f"clowder {verb}", description=description[:1].upper() + description[1:])
    module.add_arguments(parser)
    try:
        return int(module.run(parser.parse_intermixed_args(rest)))
    except ClowderError as error:
        print(f"clowder {verb}: {redact(' '.join(str(error).split()))}", file=sys.stderr)
        return error.exit_code
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"clowder {verb}: {error}; what was saved before is whole, go on when there is room", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"clowder {verb}: interrupted", file=sys.stderr)
        return 130


def _overview(further: dict[str, importlib.metadata.EntryPoint]) -> str:
    lines = [
        "usage: clowder COMMAND [options] [key=value ...]",
        "",
        "Train one Gato-style sequence model on many tasks at once, from data that is still being made.",
        "",
        "commands:",
        *(f"  {name:<14}{text}" for name, text in COMMANDS.items()),
        *(f"  {name:<14}(from {point.value})" for name, point in sorted(further.items())),
        "",
        "clowder COMMAND --help explains one. To begin: clowder doctor; clowder train experiment=quickstart",
    ]
    return "\n".join(lines)


def _unknown(verb: str, known: list[str]) -> int:
    from distributed.errors import nearest

    print(f"clowder: there is no command {verb!r}; {nearest(verb, known, 'commands')}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
