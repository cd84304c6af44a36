"""``clowder reference``: measure what random play reaches, and note what the experts of sets reach."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument(
        "--suite", action="append", default=[], help="a suite of the catalogue, or all (the default); may be repeated"
    )
    parser.add_argument("--task", action="append", default=[], help="a task name; may be repeated")
    parser.add_argument("--episodes", type=int, default=5, help="of random play, each task (default: %(default)s)")
    parser.add_argument(
        "--seconds",
        type=float,
        default=20.0,
        help="CPU time of a task after which no further episode begins (default: %(default)s); one is always played",
    )
    parser.add_argument("--set", metavar="SET", action="append", default=[], help="note the expert return of this set")
    parser.add_argument("--again", action="store_true", help="measure also what the table has already")
    parser.add_argument("--out", type=Path, metavar="FILE", help="the table to make or continue (default: the shipped)")


def run(arguments: argparse.Namespace) -> int:
    """Continue the table; a kill loses at most the task in hand. Exit code 1 where a task could not be measured."""
    import dataclasses

    from actors.reference import (
        Reference,
        expert_score,
        measure,
        read_table,
        recorded,
        shipped_table,
        versions_of,
        write_table,
    )
    from distributed.commands.tasks import tasks_of
    from distributed.errors import ClowderError, refusing

    if arguments.episodes < 1 or arguments.seconds < 0:
        raise ClowderError("--episodes must be at least 1 and --seconds at least 0")
    path: Path = arguments.out or shipped_table()
    with refusing(""):
        table = read_table(path)
        names = [] if arguments.set and not (arguments.suite or arguments.task) else tasks_of(arguments)
    failed = 0

    def save(name: str, entry: Reference) -> None:
        # Read again, so that two commands on one file lose nothing but a tie.
        table.update({**read_table(path), name: entry})
        write_table(path, table)

    for name in names:
        entry = table.get(name)
        fresh = entry is not None and entry.random is not None and entry.versions == versions_of(name)
        if fresh and not arguments.again and entry.random.episodes >= arguments.episodes:  # type: ignore[union-attr]
            continue
        try:
            measured = measure(name, arguments.episodes, arguments.seconds, table)
        except (ValueError, RuntimeError, ImportError) as error:
            failed += 1
            print(f"{name}: NOT MEASURED: {' '.join(str(error).split())}", flush=True)
            continue
        save(name, dataclasses.replace(measured, expert=entry.expert if entry else None))
        random = measured.random
        assert random is not None
        error_text = "" if random.standard_error is None else f" +- {random.standard_error:.3g}"
        print(f"{name}: {random.mean:.4g}{error_text} ({random.episodes} episodes, {random.steps:,} steps)", flush=True)
    for folder in arguments.set:
        with refusing(""):
            found = recorded(folder)
            try:
                score = expert_score(found)
            finally:
                found.close()
        task = found.settings.task.name
        if task not in table:
            raise ClowderError(f"{folder} is a set of {task}, which is not in {path}; measure it with --task {task}")
        save(task, dataclasses.replace(table[task], expert=score))
        print(f"{task}: {score.expert} {score.value:.4g} (Gato's windowed maximum of {score.episodes} episodes)")
    print(f"{path}: {len(table)} tasks" + (f", {failed} could not be measured" if failed else ""))
    return 1 if failed else 0
