"""`ActionSet`: demonstrations as settings, seeds and actions only; the task's adapter makes the episodes again.

A folder with ``set.json`` and one NumPy archive that it names with its SHA-256. 6,000 BabyAI episodes take 33 kB, so
such sets ship with the repository. Where the simulator has changed since, the return of an episode does not come out as
recorded, and reading it fails. So this form is for simulators that repeat exactly on every machine (emulators, grid
worlds); physics is better kept as a `MinariSet`: an initial state that differs by 1e-15 changes the return of an
open-loop cart-pole episode by up to 8 of 878.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from actors.demonstrations.demonstration_set import (
    DemonstrationSetError,
    SetSettings,
    demonstrator_return,
    describe_versions,
    library_versions,
)
from actors.demonstrations.episode import ActionRecord, Episode
from actors.demonstrations.simulation import ReplayMismatch, simulate
from actors.demonstrations.whole_files import write_json, write_whole
from actors.environments.vector_environment import VectorEnvironment
from actors.seeds import LAST_SEED
from agent.task import ArraySpec, TaskSpec
from replay.sealed_json import read_sealed, seal

MANIFEST = "set.json"
_COLUMNS = ("seeds", "lengths", "returns", "noisy", "actions", "differs", "labels", "masked")
_CUT = "cut"
"""A further column, bool [N], of sets in which an episode was cut (`ActionRecord`); the others do without."""


class ActionSet:
    """See `DemonstrationSet`. ``make_environment`` gives the vector to simulate in; it is called when first needed."""

    def __init__(self, folder: Path, make_environment: Callable[[], VectorEnvironment]) -> None:
        self.folder = folder
        self._make_environment = make_environment
        self._environment: VectorEnvironment | None = None
        self.settings, columns = _read(folder)
        self._task = self.settings.task
        self.lengths = columns["lengths"]
        self.returns = columns["returns"]
        self.noisy = columns["noisy"]
        self._cut = columns[_CUT]
        self.num_episodes = len(self.lengths)
        self.seeds = columns["seeds"]
        self._ends = np.cumsum(self.lengths)
        # As stored: a step of a discrete action takes three bytes, so a hundred million are no burden.
        self._actions, self._labels = columns["actions"], columns["labels"]
        steps = len(self._actions)
        self._differs = _unpack(columns["differs"], steps)
        differing = np.add.reduceat(self._differs, self._ends - self.lengths, dtype=np.int64)
        self._label_ends = np.cumsum(differing)
        self._label_mask = ~_unpack(columns["masked"], steps)

    @property
    def demonstrator_return(self) -> float:
        """Mean return of the episodes without injected noise."""
        return demonstrator_return(self.returns, self.noisy, self.folder)

    def record(self, index: int) -> ActionRecord:
        """Seed and actions of one episode."""
        end = int(self._ends[index])
        steps = slice(end - int(self.lengths[index]), end)
        differs = self._differs[steps]
        labels_end = int(self._label_ends[index])
        action = self._actions[steps].astype(self._task.action.dtype)
        label = action.copy()
        label[differs] = self._labels[labels_end - int(differs.sum()) : labels_end]
        return ActionRecord(
            seed=int(self.seeds[index]),
            action=action,
            label=label,
            label_mask=self._label_mask[steps],
            episode_return=float(self.returns[index]),
            noisy=bool(self.noisy[index]),
            cut=bool(self._cut[index]),
        )

    def episode(self, index: int) -> Episode:
        """One whole episode, simulated now."""
        return next(item[1] for item in self.episodes([index]) if item is not None)

    def episodes(self, order: Sequence[int]) -> Iterator[tuple[int, Episode] | None]:
        """See `DemonstrationSet`. An episode that does not come out as recorded raises DemonstrationSetError."""
        if self._environment is None:
            self._environment = self._make_environment()
        try:
            yield from simulate(self._environment, self.record, order)
        except ReplayMismatch as error:
            raise DemonstrationSetError(
                f"{self.folder}: {error}. It was recorded with {describe_versions(self.settings.versions)}; installed "
                f"are {describe_versions(library_versions(self._task.domain))}. Install the recorded versions, or "
                "record the set anew with `clowder record`"
            ) from error

    def close(self) -> None:
        """Close the environments."""
        if self._environment is not None:
            self._environment.close()
            self._environment = None


def write_action_set(folder: Path, settings: SetSettings, records: Sequence[ActionRecord]) -> None:
    """Make or replace the set in ``folder``. A reader finds the former set or this one, never a mixture.

    The archive is named after its content and the manifest, which names it, is renamed into place afterwards.
    """
    task = settings.task
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **_columns(task, records))
    data = buffer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    name = f"episodes-{digest[:8]}.npz"
    write_whole(folder / name, data)
    manifest = {"form": "actions", "episodes": len(records), "archive": name, "sha256": digest}
    write_json(folder / MANIFEST, seal(manifest | {"settings": settings.to_json()}))
    for former in folder.glob("episodes-*.npz"):
        if former.name != name:
            former.unlink()


def conform(record: ActionRecord, task: TaskSpec) -> ActionRecord:
    """The record in the dtypes of ``task``; a wrong shape, range or seed raises ValueError naming it."""
    spec = task.action
    where = f"{task.name}, episode with seed {record.seed}"
    action = np.asarray(record.action)
    label_mask = np.asarray(record.label_mask, bool)
    length = len(action)
    if not length or action.shape != (length, *spec.shape) or label_mask.shape != (length,):
        raise ValueError(
            f"{where}: actions {action.shape} and label mask {label_mask.shape} do not fit [T, {spec.shape}]"
        )
    if np.shape(record.label) != action.shape:
        raise ValueError(f"{where}: labels have shape {np.shape(record.label)}, actions {action.shape}")
    unmasked = label_mask.reshape(length, *[1] * len(spec.shape))
    label = np.where(unmasked, record.label, action)  # what is masked means nothing, and compresses best so
    for name, values in (("action", action), ("label", label)):
        low, high = _bounds(spec)
        if not np.isfinite(values).all() or values.min() < low or values.max() > high:
            raise ValueError(f"{where}: an {name} is outside [{low}, {high}]")
    if not 0 <= record.seed < LAST_SEED:
        raise ValueError(f"{where}: seeds of demonstrations are 0 to {LAST_SEED - 1}")
    if not np.isfinite(record.episode_return):
        raise ValueError(f"{where}: its return is {record.episode_return}")
    return dataclasses.replace(
        record, action=action.astype(spec.dtype), label=label.astype(spec.dtype), label_mask=label_mask
    )


def _bounds(spec: ArraySpec) -> tuple[float, float]:
    if spec.kind == "text":
        return 0, 255
    return (0, spec.num_values - 1) if spec.kind == "discrete" else (spec.low, spec.high)


def _columns(task: TaskSpec, records: Sequence[ActionRecord]) -> dict[str, np.ndarray]:
    """Columns of the archive. Labels are stored only where they differ from what was executed."""
    spec = task.action
    stored = np.min_scalar_type(spec.num_values - 1) if spec.kind == "discrete" else spec.dtype
    empty = np.empty((0, *spec.shape), spec.dtype)
    actions = np.concatenate([empty, *[record.action for record in records]]).astype(stored)
    labels = np.concatenate([empty, *[record.label for record in records]]).astype(stored)
    masks = np.concatenate([np.empty(0, bool), *[record.label_mask for record in records]])
    differs = (actions != labels).reshape(len(actions), -1).any(axis=1)
    cut = np.array([record.cut for record in records], bool)
    return ({_CUT: cut} if cut.any() else {}) | {
        "seeds": np.array([record.seed for record in records], np.int64),
        "lengths": np.array([len(record.action) for record in records], np.int64),
        "returns": np.array([record.episode_return for record in records], np.float64),
        "noisy": np.array([record.noisy for record in records], bool),
        "actions": actions,
        "differs": np.packbits(differs),
        "labels": labels[differs],
        "masked": np.packbits(~masks),
    }


def _unpack(bits: np.ndarray, steps: int) -> np.ndarray:
    return np.unpackbits(bits, count=steps).astype(bool)


def _read(folder: Path) -> tuple[SetSettings, dict[str, np.ndarray]]:
    """Settings and columns of the set in ``folder``, all checked; raises DemonstrationSetError."""
    manifest_path = folder / MANIFEST
    again = "copy the set again, or record it anew with `clowder record`"
    try:
        manifest = read_sealed(manifest_path)
        name, digest, episodes = str(manifest["archive"]), str(manifest["sha256"]), int(manifest["episodes"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemonstrationSetError(f"{manifest_path} cannot be read ({error!r}); {again}") from error
    settings = SetSettings.from_json(manifest.get("settings"), manifest_path)
    path = folder / os.path.basename(name)
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # a name may hold a null byte
        raise DemonstrationSetError(f"{path}, which {MANIFEST} names, cannot be read ({error}); {again}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise DemonstrationSetError(f"{path} is truncated or damaged: its SHA-256 is not the recorded one; {again}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            columns = {column: archive[column] for column in _COLUMNS}
            columns[_CUT] = archive[_CUT] if _CUT in archive.files else np.zeros(len(columns["seeds"]), bool)
    except Exception as error:  # zipfile, zlib and NumPy have some ten kinds for a damaged archive
        raise DemonstrationSetError(f"{path} is not an archive of episodes ({error!r}); {again}") from error
    _check_columns(columns, settings.task, episodes, path)
    return settings, columns


def _check_columns(columns: dict[str, np.ndarray], task: TaskSpec, episodes: int, path: Path) -> None:
    def need(rule: bool, what: str) -> None:
        if not rule:
            raise DemonstrationSetError(f"{path} is not a whole set of {task.name}: {what}; record it anew")

    need(episodes > 0, "it has no episodes")
    for column, kind in (("seeds", "i"), ("lengths", "i"), ("returns", "f"), ("noisy", "b"), (_CUT, "b")):
        array = columns[column]
        need(array.shape == (episodes,) and array.dtype.kind == kind, f"{column} is {array.dtype} {array.shape}")
    need(bool((columns["lengths"] > 0).all() and np.isfinite(columns["returns"]).all()), "an episode is empty")
    steps = int(columns["lengths"].sum())
    spec = task.action
    kinds = "f" if spec.kind == "continuous" else "iu"
    low, high = _bounds(spec)
    for column in ("differs", "masked"):
        array = columns[column]
        need(array.dtype == np.uint8 and array.shape == ((steps + 7) // 8,), f"{column} is {array.dtype} {array.shape}")
    counts = {"actions": steps, "labels": int(_unpack(columns["differs"], steps).sum())}
    for column, count in counts.items():
        array = columns[column]
        need(
            array.dtype.kind in kinds and array.shape == (count, *spec.shape),
            f"{column} is {array.dtype} {array.shape}, the task says {(count, *spec.shape)}",
        )
        need(not count or bool((array >= low).all() and (array <= high).all()), f"{column} leave [{low}, {high}]")
