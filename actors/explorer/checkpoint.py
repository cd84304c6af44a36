"""The archive of an explorer on disk: one file of arrays, whole or not there; nothing in it is unpickled."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from actors.demonstrations.whole_files import write_whole
from actors.explorer.archive import Archive
from actors.explorer.emulator import rom_checksum
from actors.explorer.explorer import Explorer, ExplorerSettings, Find, Progress
from actors.explorer.trajectory_tree import TrajectoryTree

SCHEMA = 1
ARCHIVE_FILE = "archive.npz"
_AGAIN = "choose another --out, or delete the file to begin anew"
_DAMAGED = "cannot be read, it is truncated or damaged"
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile)


class ExplorerCheckpointError(ValueError):
    """A checkpoint that cannot be gone on from: damaged, or of another game, emulator or settings."""


def save(explorer: Explorer, path: Path) -> None:
    """Replace the checkpoint at ``path``; about 4 kB a cell. An interruption leaves the former one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scores = sorted(explorer.finds)
    about = {
        "schema": SCHEMA,
        "settings": dataclasses.asdict(explorer.settings),
        "progress": dataclasses.asdict(explorer.progress),
        "random": explorer.random.bit_generator.state,
        **_simulator(explorer.game.rom),
    }
    arrays: dict[str, Any] = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "find_scores": np.array(scores, np.int64),
        "find_lengths": np.array([explorer.finds[score].length for score in scores], np.int64),
        "find_nodes": np.array([explorer.finds[score].node for score in scores], np.int64),
        **explorer.archive.to_arrays(),
        **explorer.tree.to_arrays(),
    }
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # states are compressed already
    write_whole(path, buffer.getvalue())


def load(path: Path, settings: ExplorerSettings) -> Explorer:
    """The explorer that was saved at ``path``; it goes on as if it had not been interrupted.

    Raises:
        ExplorerCheckpointError: see there. The message says what to do.
    """
    about = check(path, settings)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ExplorerCheckpointError(f"{path} {_DAMAGED} ({error}); {_AGAIN}") from error
    try:
        tree = TrajectoryTree.from_arrays(arrays)
        archive = Archive.from_arrays(arrays, settings.capacity, len(tree))
        columns = (arrays[name].tolist() for name in ("find_scores", "find_lengths", "find_nodes"))
        finds = {score: Find(length, node) for score, length, node in zip(*columns)}
        if any(not 0 <= find.node < len(tree) for find in finds.values()):
            raise ValueError("a demonstration has no trajectory")
        return Explorer.restored(settings, archive, tree, finds, Progress(**about["progress"]), about["random"])
    except (ValueError, KeyError, TypeError) as error:
        raise ExplorerCheckpointError(f"{path} is damaged: {error}; {_AGAIN}") from error


def check(path: Path, settings: ExplorerSettings) -> dict[str, Any]:
    """What the checkpoint at ``path`` says of itself, quickly; raises what `load` raises where it is of another game,
    emulator or settings."""
    try:
        with np.load(path, allow_pickle=False) as file:
            about: dict[str, Any] = json.loads(file["about"].tobytes())
        schema, recorded = about["schema"], ExplorerSettings(**about["settings"])
    except _UNREADABLE as error:
        raise ExplorerCheckpointError(f"{path} {_DAMAGED} ({error}); {_AGAIN}") from error
    if schema != SCHEMA:
        raise ExplorerCheckpointError(f"{path} has schema {schema}, this Clowder reads {SCHEMA}; {_AGAIN}")
    for name, wanted in dataclasses.asdict(settings).items():
        if getattr(recorded, name) != wanted:
            raise ExplorerCheckpointError(
                f"{path} was explored with {name}={getattr(recorded, name)}, not {wanted}; give the same, or {_AGAIN}"
            )
    for name, installed in _simulator(settings.task.partition("/")[2]).items():
        if about.get(name) != installed:
            raise ExplorerCheckpointError(
                f"{path} has states of {name} {about.get(name)}, installed is {installed}; install the former, or "
                f"{_AGAIN}"
            )
    return about


def _simulator(rom: str) -> dict[str, str]:
    """What states depend on."""
    return {"ale-py": importlib.metadata.version("ale-py"), "ROM": rom_checksum(rom)}
