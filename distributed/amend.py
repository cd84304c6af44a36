"""Changes to the configuration of a run that exists: which keys may change, and whose word names code to import."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from distributed.compose import SHIPPED, actor_file, known_keys, near_key, options, parse, typed
from distributed.config import TrainConfig
from distributed.errors import ConfigError, nearest
from distributed.yaml_file import read_yaml

RESUMABLE = (
    "stop.*", "learner.steps", "learner.minutes", "cluster.*", "logging.*", "actors.*.num_actors",
    "actors.*.envs_per_actor",
)  # fmt: skip
"""What may differ when a run goes on: stop conditions, cluster, actor counts and logging."""


def amend(
    config: TrainConfig, overrides: Sequence[str], allowed: Sequence[str], why: str
) -> tuple[TrainConfig, list[str]]:
    """The configuration with ``key=value`` words applied, and the keys they changed.

    ``cluster=NAME`` chooses a file of that group where ``cluster.*`` is allowed.

    Raises:
        ConfigError: a key that is not among the patterns ``allowed`` (with ``why``), is unknown, or has a wrong value.
    """
    tree = OmegaConf.structured(config)
    keys = known_keys(config)
    changed = []
    for word in parse(overrides):
        key = word.key_or_group
        group = key == "cluster" and "cluster.*" in allowed and not word.is_delete()
        if not group and not any(fnmatch.fnmatch(key, pattern) for pattern in allowed):
            raise ConfigError(f"{key} cannot be changed {why}; only {', '.join(allowed)} can")
        if word.is_delete() or not (group or key in keys):
            raise ConfigError(f"{word.input_line}: no such key; {near_key(key, keys)}")
        values = {key: word.value()}
        if group:
            name, files = str(word.value()), options(key)
            if name not in files:
                raise ConfigError(f"{key}={name}: there is no {key}/{name}.yaml; {nearest(name, files, key)}")
            values = {f"{key}.{each}": value for each, value in read_yaml(files[name]).items()}
        for each, value in values.items():
            before = OmegaConf.select(tree, each)
            # As plain data, so that a value of a wrong type is refused with its key by `typed`.
            tree = OmegaConf.create(OmegaConf.to_container(tree))
            OmegaConf.update(tree, each, value)
            if before != value:
                changed.append(f"{each}={value}")
    return typed(tree), changed


def check_entry_points(config: TrainConfig, where: Path, config_dirs: Sequence[str | Path]) -> None:
    """Refuse code that only a run folder names: a folder may come from anybody, and an entry point is called.

    An ``entry_point``, or a Gymnasium id of the form ``module:id`` (whose module is imported), is accepted where an
    actor config that ships with Clowder or that lies in the user's own ``--config-dir`` says the same.
    """
    named = {name: actor for name, actor in config.actors.items() if actor.entry_point or ":" in actor.task}
    if not named:
        return
    files = options("actors", config_dirs)
    for name, actor in named.items():
        own = actor_file(name, files[name])[name] if name in files else {}
        if (own.get("entry_point"), own.get("task")) != (actor.entry_point, actor.task):
            said = f"{files[name]} says otherwise" if name in files else f"looked in {SHIPPED} and --config-dir"
            raise ConfigError(
                f"{where} asks to load {actor.entry_point or actor.task} for actors.{name}; code is taken from your "
                f"own configuration only: add --config-dir DIR with actors/{name}.yaml ({said})"
            )
