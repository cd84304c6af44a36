"""Settings of experts, one YAML file an expert in ``configs/experts/``: what to use for which task."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

from omegaconf import OmegaConf

Settings = TypeVar("Settings")


@functools.cache
def settings_file(name: str) -> dict[str, Any]:
    """Contents of ``configs/experts/<name>.yaml``: plain data only."""
    found = importlib.util.find_spec("configs")
    roots = [Path(place) for place in (found.submodule_search_locations or ())] if found else []
    for root in roots:
        path = root / "experts" / f"{name}.yaml"
        if path.is_file():
            return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(path)))
    raise FileNotFoundError(f"configs/experts/{name}.yaml is not installed; reinstall Clowder (`make setup`)")


def task_settings(expert: str, file: str, task: str, kind: type[Settings]) -> Settings:
    """``kind`` made of the file's entry for ``task``.

    Raises:
        ValueError: the file has no entry for the task (with the nearest ones), or the entry has an unknown key.
    """
    entries = settings_file(file)
    if task not in entries:
        nearest = difflib.get_close_matches(task, entries, n=3, cutoff=0.6)
        hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ValueError(
            f"the expert {expert!r} has no settings for {task!r}; {hint}It plays: {', '.join(sorted(entries))}. "
            f"Settings of another task go to configs/experts/{file}.yaml"
        )
    return from_entry(kind, entries[task], f"configs/experts/{file}.yaml: {task}")


def from_entry(kind: type[Settings], entry: Mapping[str, Any], where: str) -> Settings:
    """A settings dataclass of an entry's keys; ValueError names an unknown key and the known ones."""
    known = [field.name for field in dataclasses.fields(cast(Any, kind))]
    unknown = sorted(set(entry) - set(known))
    if unknown:
        raise ValueError(f"{where}: no setting is called {unknown[0]!r}; there are: {', '.join(known)}")
    return kind(**{key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()})
