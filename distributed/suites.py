"""Suites and single tasks of the catalogue, as options of Hydra's group ``actors``.

``actors=suite/atari51``, ``actors=[suite/babyai,boxing]``, ``actors=[atari/alien]`` and ``actors=[atari_alien]``: what
is named is put into Hydra's store before it composes, so that everything else (``actors.atari_alien.weight=2``,
experiments, ``--config-dir``) works as with files. A hand-written config wins for the task that it describes.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from hydra.core.config_store import ConfigStore

from actors.catalogue import SUITES, actor_config, generated_names, short_name, suite_tasks
from actors.config import ActorConfig
from actors.environments.failures import UnknownTask
from actors.reference import references
from distributed.errors import ConfigError, nearest

PREFIX = "suite/"


def hand_written(files: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Short names by the task that they describe with the adapter's own arguments, the first in the alphabet.

    ``files`` are actor configs by short name, as their YAML has them.
    """
    plain = {name: data for name, data in files.items() if not data.get("entry_point") and not data.get("arguments")}
    return {str(data.get("task")): name for name, data in sorted(plain.items(), reverse=True)}


def expand(name: str, by_task: Mapping[str, str]) -> dict[str, str] | None:
    """Task names by the short name of their actor config for one word of a user, None where it is no word of ours.

    Raises:
        ConfigError: a suite that there is not, with the nearest.
    """
    if name.startswith(PREFIX):
        try:
            tasks = suite_tasks(name.removeprefix(PREFIX))
        except UnknownTask:
            known = [f"{PREFIX}{each}" for each in [*SUITES, "all"]]
            raise ConfigError(f"actors={name}: there is no such suite; {nearest(name, known, 'suites')}") from None
    elif name in references():
        tasks = [name]
    elif name in generated_names():
        tasks = [generated_names()[name]]
    else:
        return None
    return {by_task.get(task) or short_name(task): task for task in tasks}


def near(name: str) -> list[str]:
    """Generated names and task names like this one."""
    known = {each.lower(): each for each in [*generated_names(), *references()]}
    return [known[each] for each in difflib.get_close_matches(name.lower(), known, n=3, cutoff=0.6)]


def offer(names: Iterable[str], files: Mapping[str, Mapping[str, Any]]) -> None:
    """Make options of those ``names`` that have no file: suites, task names and generated names."""
    by_task = hand_written(files)
    for name in names:
        if name in files or (tasks := expand(name, by_task)) is None:
            continue
        node = {short: files.get(short) or as_written(actor_config(task)) for short, task in tasks.items()}
        folder, _, last = f"actors/{name}".rpartition("/")
        ConfigStore.instance().store(group=folder, name=last, node=node, package="actors", provider="catalogue")


def as_written(config: ActorConfig) -> dict[str, Any]:
    """What an actor config says beyond the defaults."""
    default = ActorConfig(task=config.task)
    data = dataclasses.asdict(config)
    return {key: value for key, value in data.items() if key == "task" or value != getattr(default, key)}
