"""`open_set`: a demonstration set by folder or by the name of a shipped one, refused unless it is of its task."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
from pathlib import Path

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST, ActionSet
from actors.demonstrations.demonstration_set import (
    DemonstrationSet,
    DemonstrationSetError,
    SetSettings,
    check_settings,
    check_simulated,
    library_versions,
)
from actors.demonstrations.minari_set import METADATA, MinariSet
from actors.environments.checked import CheckedEnvironment
from actors.environments.make import adapter_of, make_environment, task_spec

SIMULATED_AT_ONCE = 4
"""Environments in which an action set is simulated. More are no faster on one core; their episodes are in memory
together (a minute and a half of Atari is 21 MB) and the first is ready later."""

_NOT_THE_TASK = {"num_threads"}
"""Adapter arguments that change how fast an episode is simulated and nothing in it."""


def open_set(path_or_name: str | Path, config: ActorConfig, num_envs: int = SIMULATED_AT_ONCE) -> DemonstrationSet:
    """The set in a folder, or the shipped set of that name, for the task of ``config``.

    Raises:
        DemonstrationSetError: no such set (with the nearest names); of another task, adapter arguments or spaces;
            truncated, empty or corrupt. The message says what to do.
    """
    opened = load_set(path_or_name, config, num_envs)
    check_settings(opened.settings, wanted_settings(config), opened.folder, longest=int(opened.lengths.max()))
    if isinstance(opened, ActionSet):
        check_simulated(opened.settings, opened.folder)
    _ = opened.demonstrator_return  # refuses a set in which all episodes are noisy
    return opened


def load_set(
    path_or_name: str | Path, config: ActorConfig | None = None, num_envs: int = SIMULATED_AT_ONCE
) -> DemonstrationSet:
    """The set in a folder, or the shipped set of that name, whatever its task; only what is in it is checked.

    Without ``config``, episodes that have to be simulated cannot be had.
    """
    folder = find_set(path_or_name)

    def environment() -> CheckedEnvironment:
        if config is None:
            raise DemonstrationSetError(f"{folder} holds actions only; without an actor config they cannot be played")
        return make_environment(config, num_envs)

    if (folder / MANIFEST).exists():
        return ActionSet(folder, environment)
    if (folder / "data" / METADATA).exists():
        return MinariSet(folder)
    raise DemonstrationSetError(
        f"{folder} is no demonstration set: it has neither {MANIFEST} nor data/{METADATA}; name the folder that "
        "`clowder record --out` was given"
    )


def wanted_settings(config: ActorConfig, expert: str = "") -> SetSettings:
    """The settings that a set recorded now under ``config`` has; makes the environment once to learn its spaces."""
    arguments, checksums = dict(config.arguments), {}
    if config.entry_point is None:
        adapter = importlib.import_module(adapter_of(config).module)
        if hasattr(adapter, "data_checksums"):
            checksums = adapter.data_checksums(config.task)
        for name, parameter in inspect.signature(adapter.make).parameters.items():
            run_wide = hasattr(config, name) or parameter.default is inspect.Parameter.empty
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not run_wide:
                arguments.setdefault(name, parameter.default)
    task = task_spec(config)
    return SetSettings(
        task=task,
        expert=expert,
        arguments={name: value for name, value in arguments.items() if name not in _NOT_THE_TASK},
        entry_point=config.entry_point,
        versions=library_versions(task.domain) | checksums,
    )


def shipped_sets() -> dict[str, Path]:
    """Folders of the sets that come with Clowder, by name."""
    found = importlib.util.find_spec("configs")
    roots = [Path(place) / "demonstrations" for place in (found.submodule_search_locations or ())] if found else []
    return {
        folder.name: folder for root in roots if root.is_dir() for folder in sorted(root.iterdir()) if folder.is_dir()
    }


def find_set(path_or_name: str | Path) -> Path:
    """Folder of a set; DemonstrationSetError with the nearest shipped names where there is none."""
    folder = Path(path_or_name).expanduser()
    if folder.is_dir():
        return folder
    shipped = shipped_sets()
    if str(path_or_name) in shipped:
        return shipped[str(path_or_name)]
    nearest = difflib.get_close_matches(str(path_or_name), shipped, n=3, cutoff=0.4)
    hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
    raise DemonstrationSetError(
        f"there is no demonstration set {str(path_or_name)!r}: neither a folder nor a shipped set; {hint}"
        f"Shipped: {', '.join(shipped) or 'none'}. Record one with `clowder record TASK --expert NAME --out SET`"
    )
