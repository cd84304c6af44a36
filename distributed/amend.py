"""Changes to the configuration of a run that exists: which keys may change, and what its folder cannot decide.

A run folder may come from anybody. Code to import, another machine to connect to and a port for other machines are
taken from the user's own command line and configuration folders alone.
"""

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
    "stop.*", "learner.steps", "learner.minutes", "cluster.*", "logging.*", "checkpoint.*", "actors.*.num_actors",
    "actors.*.envs_per_actor", "replay.host", "replay.port", "replay.allow_public",
)  # fmt: skip
"""What may differ when a run goes on: stop conditions, cluster, actor counts, checkpoints, logging and where replay
listens."""


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


def check_network(config: TrainConfig, where: Path, overrides: Sequence[str]) -> None:
    """Refuse what lets other machines in where only a run folder asks for it, and not the words of this command too.

    A Ray cluster can run code in what joins it; ``auto`` finds only one that the user's own machine or environment
    names. Where replay may be public, everybody who reaches it decides what is learned.
    """
    said = {word.key_or_group for word in parse(overrides)}
    asked = {}
    if config.cluster.address not in ("local", "auto") and not said & {"cluster", "cluster.address"}:
        asked[f"cluster.address={config.cluster.address}"] = "to join that Ray cluster"
    if config.replay.allow_public and "replay.allow_public" not in said:
        asked["replay.allow_public=true"] = f"to open the replay server at {config.replay.host} to other machines"
    for word, what in asked.items():
        raise ConfigError(f"{where} asks {what}; if you mean it, say so in this command: {word}")
