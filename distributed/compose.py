"""Composes a `TrainConfig` from ``configs/``, the user's folders and ``key=value`` words, by Hydra's compose API.

Never `hydra.main`: it takes the working directory and makes ``--help`` slow. Everything that a user can get wrong
leaves here as a `ConfigError` of one line that names the key and the nearest valid one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

import configs
from actors.catalogue import actor_config
from actors.config import ActorConfig, check_actor_config
from distributed import suites
from distributed.config import TrainConfig, validate
from distributed.errors import ConfigError, nearest, refusing
from distributed.yaml_file import NOT_YAML, read_yaml

SHIPPED = Path(next(iter(configs.__path__))).resolve()
"""The folder of configurations that come with Clowder."""
GROUPS = ("experiment", "model", "learner", "replay", "cluster", "actors")


@dataclasses.dataclass
class _Actors:
    """The part of a `TrainConfig` that an actor config is of."""

    actors: dict[str, ActorConfig] = dataclasses.field(default_factory=dict)


def compose(overrides: Sequence[str] = (), config_dirs: Sequence[str | Path] = ()) -> TrainConfig:
    """The configuration of a run, checked.

    Args:
        overrides: ``key=value`` (also ``+key=value``, ``~key``) and ``group=option`` words in Hydra's grammar.
        config_dirs: folders laid out as ``configs/`` (``actors/``, ``experiment/``, ...) that are searched after it.

    Raises:
        ConfigError: one line: unknown key, option or folder, wrong type, contradicting values.
    """
    folders = [_config_dir(folder) for folder in config_dirs]
    options = {group: _options(group, folders) for group in GROUPS}
    words = parse(overrides)
    chosen = [word for word in words if word.key_or_group in GROUPS and "." not in word.key_or_group]
    for word in chosen:
        _check_option(word, options)
    named = [*_named("actors", chosen), *_named_by_experiments(chosen, options["experiment"])]
    if any(name not in options["actors"] for name in named):
        suites.offer(named, _actor_files(options["actors"]))
    search = [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in folders)}]"] if folders else []
    lines = [str(word.input_line) for word in chosen]
    config = _compose([*search, *lines], options)
    valued = [word for word in words if word not in chosen]
    if valued:
        keys = known_keys(config)
        config = _compose([*search, *lines, *(_settle(word, config, keys) for word in valued)], options)
    return typed(config)


def typed(config: DictConfig | dict[str, Any]) -> TrainConfig:
    """A checked `TrainConfig` from plain data, such as a run's ``config.yaml``; ConfigError where it does not fit."""
    with refusing(""), _one_line({}):
        result = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(TrainConfig), config))
        assert isinstance(result, TrainConfig)
        validate(result)
    return result


def options(group: str, config_dirs: Sequence[str | Path] = ()) -> dict[str, Path]:
    """The files of a group by their short name, shipped ones and those of the user's folders."""
    return _options(group, [_config_dir(folder) for folder in config_dirs])


def actor_configs(config_dirs: Sequence[str | Path] = ()) -> dict[str, ActorConfig]:
    """Every actor config there is, by short name; ConfigError naming the file where one cannot be used."""
    loaded = {}
    for name, path in options("actors", config_dirs).items():
        with refusing(str(path)), _one_line({}, f"{path}: "):
            tree = OmegaConf.merge(OmegaConf.structured(_Actors), {"actors": actor_file(name, path)})
            config = OmegaConf.to_object(tree.actors[name])
            assert isinstance(config, ActorConfig)
            check_actor_config(config, name)
            loaded[name] = config
    return loaded


def find_actor(name_or_task: str, config_dirs: Sequence[str | Path] = ()) -> tuple[str, ActorConfig]:
    """The actor config of a short name or of a task of the catalogue, and its short name.

    Raises:
        ConfigError: there is none, with the nearest names.
    """
    configs = actor_configs(config_dirs)
    by_task = suites.hand_written({name: vars(config) for name, config in configs.items()})
    name = by_task.get(name_or_task, name_or_task)
    if name in configs:
        return name, configs[name]
    named_by_others = {config.task: each for each, config in configs.items()}
    if name in named_by_others:
        return named_by_others[name], configs[named_by_others[name]]
    found = None if name.startswith(suites.PREFIX) else suites.expand(name, by_task)
    if found is None:
        near = nearest(name, [*configs, *named_by_others], "tasks", suites.near(name))
        raise ConfigError(f"there is no actor config for {name_or_task}; {near}")
    ((name, task),) = found.items()
    return name, configs[name] if name in configs else actor_config(task)


def actor_file(name: str, path: Path) -> dict[str, dict[str, Any]]:
    """One actor config: a mapping with one top-level key, its short name."""
    data = read_yaml(path)
    if not isinstance(data, dict) or list(data) != [name] or not isinstance(data[name], dict):
        raise ConfigError(
            f"{path}: an actor config has one top-level key, the name of its file ({name}:), and its settings below it"
        )
    return data


def known_keys(config: DictConfig | TrainConfig) -> list[str]:
    """Every dotted key that may be set, actors included."""
    return sorted(_walk("", OmegaConf.to_container(OmegaConf.structured(config)), TrainConfig))


def _walk(prefix: str, value: Any, kind: Any) -> Iterator[str]:
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            yield from _walk(f"{prefix}{field.name}.", value[field.name], hints[field.name])
    elif typing.get_origin(kind) is dict and dataclasses.is_dataclass(typing.get_args(kind)[1]):
        for name, entry in value.items():
            yield from _walk(f"{prefix}{name}.", entry, typing.get_args(kind)[1])
    else:
        yield prefix.rstrip(".")


def _config_dir(folder: str | Path) -> Path:
    path = Path(folder).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"--config-dir {folder}: no such folder; it holds YAML files in subfolders such as actors/")
    if not any((path / group).is_dir() for group in GROUPS):
        raise ConfigError(f"--config-dir {folder}: none of the subfolders {', '.join(GROUPS)} is in it")
    return path


def _options(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in (SHIPPED, *folders):
        for path in sorted((folder / group).glob("*.yaml")):
            if found.setdefault(path.stem, path) != path:
                raise ConfigError(f"{path} has the name of {found[path.stem]}; give it another")
    return found


def parse(overrides: Sequence[str]) -> list[Override]:
    """``key=value`` words in Hydra's grammar; ConfigError where one is not of it, or means several runs."""
    parser = OverridesParser.create()
    words = []
    for text in overrides:
        try:
            word = parser.parse_override(text)
        except HydraException as error:
            raise ConfigError(f"{text!r} is not of the form key=value ({str(error).splitlines()[0]})") from error
        if word.is_sweep_override():
            raise ConfigError(f"{text!r} gives several values; a run takes one (a list is written [a,b])")
        if word.key_or_group.startswith("hydra"):
            raise ConfigError(f"{text!r}: Hydra's own settings are not used; folders are added by --config-dir DIR")
        words.append(word)
    return words


def _named(group: str, words: Sequence[Override]) -> list[str]:
    """Options of a group that the user's words name."""
    values = [word.value() for word in words if word.key_or_group == group and not word.is_delete()]
    return [str(name) for value in values for name in (value if isinstance(value, list) else [value]) if name]


def _named_by_experiments(words: Sequence[Override], files: dict[str, Path]) -> list[str]:
    """Actor configs, suites among them, that the chosen experiments name; Hydra refuses what is malformed."""
    named: list[str] = []
    for experiment in _named("experiment", words):
        with contextlib.suppress(ConfigError):
            data = read_yaml(files[experiment])
            for entry in (data.get("defaults") or []) if isinstance(data, dict) else []:
                for key, value in entry.items() if isinstance(entry, dict) else ():
                    if str(key).split("/")[-1] == "actors":
                        named += [str(name) for name in (value if isinstance(value, list) else [value])]
    return named


def _actor_files(files: dict[str, Path]) -> dict[str, dict[str, Any]]:
    """What the actor configs say, by short name; one that is malformed is left for those that use it."""
    found = {}
    for name, path in files.items():
        with contextlib.suppress(ConfigError):
            found[name] = actor_file(name, path)[name]
    return found


def _check_option(word: Override, options: dict[str, dict[str, Path]]) -> None:
    """Refuse an option that has no file."""
    value = None if word.is_delete() else word.value()
    group = word.key_or_group
    if isinstance(value, dict):
        raise ConfigError(f"{word.input_line!r}: {group} is chosen by name; single keys are set by {group}.key=value")
    for name in value if isinstance(value, list) else [value]:
        if name is None or str(name) in options[group]:
            continue
        if group == "actors" and suites.expand(str(name), {}) is not None:
            continue
        likely = suites.near(str(name)) if group == "actors" else []
        raise ConfigError(
            f"{group}={name}: there is no {group}/{name}.yaml; {nearest(str(name), options[group], group, likely)}"
        )


def _settle(word: Override, config: DictConfig, keys: list[str]) -> str:
    """The word for Hydra, after its key was found among those that exist."""
    key, line = word.key_or_group, str(word.input_line)
    if any(each == key or each.startswith(f"{key}.") for each in keys):
        if key in keys and not word.is_delete() and isinstance(word.value(), dict):
            return f"++{line.lstrip('+')}"  # into an open dictionary: actors.x.arguments={y: 1}
        # Hydra refuses + for a key that exists; the user's intention is clear.
        return line.removeprefix("++").removeprefix("+") if word.is_add() else line
    if any(key.startswith(f"{each}.") and OmegaConf.is_dict(OmegaConf.select(config, each)) for each in keys):
        return line if word.is_delete() else f"++{line.lstrip('+')}"  # inside an open dictionary: actors.x.arguments.y
    raise ConfigError(f"{line}: no such key; {near_key(key, keys)}")


def near_key(key: str, keys: list[str]) -> str:
    """The nearest keys in the deepest part of the tree that exists, and those of that last name elsewhere."""
    parent, _, last = key.rpartition(".")
    while parent and not any(each.startswith(f"{parent}.") for each in keys):
        parent, _, last = parent.rpartition(".")
    prefix = f"{parent}." if parent else ""
    siblings = {each.removeprefix(prefix).split(".")[0] for each in keys if each.startswith(prefix)}
    elsewhere = [each for each in keys if each.split(".")[-1] == key.split(".")[-1]][:3]
    return nearest(last, siblings, f"keys of {parent}" if parent else "top-level keys", elsewhere)


@functools.cache
def _store_schema() -> None:
    """Once for the process: twice for each configuration, it took a third of the time."""
    ConfigStore.instance().store(name="schema", node=TrainConfig)


def _compose(words: list[str], options: dict[str, dict[str, Path]]) -> DictConfig:
    _store_schema()
    with _one_line(options), initialize_config_dir(str(SHIPPED), version_base="1.3", job_name="clowder"):
        try:
            return hydra_compose("config", words)
        except (OSError, *NOT_YAML) as error:  # OSError of a file that holds a bare number
            said = " ".join(str(error).split())
            raise ConfigError(f"a file or value of the configuration cannot be read: {said}") from error


@contextlib.contextmanager
def _one_line(options: dict[str, dict[str, Path]], where: str = "") -> Iterator[None]:
    """Turn what Hydra, OmegaConf and YAML raise into a `ConfigError` of one line."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ConfigError(where + _explain(error, options)) from error


def _explain(error: BaseException, options: dict[str, dict[str, Path]]) -> str:
    file = getattr(error, "missing_cfg_file", None)
    if isinstance(file, str):
        group, _, name = file.rpartition("/")
        return f"there is no {group}/{name}.yaml; {nearest(name, options.get(group, ()), group)}"
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OmegaConfBaseException):
        cause = cause.__cause__ or cause.__context__
    where = _file_of(error)
    if cause is None:
        return where + " ".join(str(error).split())
    full_key = str(cause.full_key or cause.key or "")
    parent, _, key = full_key.rpartition(".")
    kind = cause.object_type
    if dataclasses.is_dataclass(kind) and key not in (fields := [field.name for field in dataclasses.fields(kind)]):
        kind_of_keys = f"keys of {parent}" if parent else "top-level keys"
        return f"{where}{full_key}: no such key; {nearest(key, fields, kind_of_keys)}"
    if isinstance(cause, MissingMandatoryValue):
        return f"{where}{full_key} is not set; it has no default"
    return f"{where}{full_key}: {str(cause.msg or cause).splitlines()[0]}"


def _file_of(error: BaseException) -> str:
    """Which file Hydra was reading, from its message: "In 'actors/boxing': ..."."""
    text = str(error)
    return text.split("'")[1] + ".yaml: " if text.startswith("In '") else ""
