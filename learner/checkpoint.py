"""Checkpoints: written aside, flushed to disk, renamed into place, with a manifest of hashes written last.

No file in it is unpickled or can name code: weights and optimiser are safetensors, everything else is JSON. What is in
one, and what a resume makes of it, is in ``docs/checkpoints.md``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError

from agent.agent import Agent
from agent.weights import (
    AGENT_FILE,
    SHARED_HEAD,
    TEXT_FILE,
    WEIGHTS_FILE,
    flat_weights,
    load_weights,
    read_weights,
    save_agent,
)
from learner.learner import Learner
from replay.sealed_json import read_sealed, seal

log = logging.getLogger(__name__)

MANIFEST, OPTIMISER, STATE, REPLAY = "MANIFEST.json", "optimiser.safetensors", "state.json", "replay"
OBJECTIVE = "objective.safetensors"
"""What the objective keeps between updates; not there where it keeps nothing."""
ADAM = ("step", "exp_avg", "exp_avg_sq")
"""What the optimiser keeps of each parameter."""
REQUIRED = {WEIGHTS_FILE, AGENT_FILE, TEXT_FILE, OPTIMISER, STATE}
NEWEST, BEST = "newest", "best"
_ASIDE = "tmp-"
"""Beginning of the names of folders that are being written or removed."""
_NAME = re.compile(r"(\d{9,})(\.old)?")
"""``<step>.old`` is the former checkpoint of a step that is written again, until the new one has taken its place."""

SaveReplay = Callable[[Path], Mapping[str, Any] | None]
"""Writes the contents of replay to a folder that does not exist yet, and returns plain data that describes the tables;
None, and no folder, where they could not be written."""


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """All that goes on from a step, copied to host memory: the learner may change its own meanwhile.

    Attributes:
        step: updates made.
        agent: whose settings and tasks are saved; its weights are not read.
        weights: those that act, by name.
        optimiser: its state by ``<slot>/<parameter name>``.
        objective: what the objective keeps.
        counters: of the learner.
        extra: of the caller, JSON-able; ``score`` in it is what the newest evaluation reached, higher is better.
    """

    step: int
    agent: Agent
    weights: dict[str, np.ndarray]
    optimiser: dict[str, torch.Tensor]
    objective: dict[str, torch.Tensor]
    counters: dict[str, Any]
    extra: dict[str, Any]


def take_snapshot(learner: Learner, extra: dict[str, Any]) -> Snapshot:
    """Copy a learner's state; this is all that a checkpoint makes the learner wait for."""
    acting = learner.acting
    return Snapshot(
        step=learner.step_count,
        agent=acting,
        weights=flat_weights(acting),
        optimiser=optimiser_tensors(learner),
        objective={name: _copy(tensor) for name, tensor in learner.objective.tensors(learner.agent).items()},
        counters=learner.counters(),
        extra=extra,
    )


def optimiser_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """Copy of the optimiser's state by ``<slot>/<parameter name>``."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in learner.agent.named_parameters()}
    return {
        f"{slot}/{names[parameter]}": _copy(value)
        for parameter, state in learner.optimiser.state.items()
        for slot, value in state.items()
    }


def _copy(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files are all as its manifest says. Made by `open_checkpoint`.

    Attributes:
        folder: of it.
        step: updates that its learner had made.
        score: of the newest evaluation before it, or None.
        tables: of replay at that time, by name: ``size``, ``inserts`` and ``samples``; None where its contents were
            not saved.
    """

    folder: Path
    step: int
    score: float | None
    tables: dict[str, dict[str, int]] | None
    replay_files: dict[str, str]

    def state(self) -> dict[str, Any]:
        """``counters`` of the learner and ``extra`` of whoever saved it."""
        path = self.folder / STATE
        with _reading(path):
            return dict(json.loads(path.read_text()))

    @property
    def extra(self) -> dict[str, Any]:
        """What the caller of `take_snapshot` added."""
        return dict(self.state()["extra"])

    def replay(self) -> Path | None:
        """Folder of the contents of replay, for `replay.server`; None where they were not saved or were let go.

        Contents that are not as the manifest says raise ValueError, naming the file; so does a file among them that
        it does not name, since the server reads whatever lies there.
        """
        contents = self.folder / REPLAY
        with _reading(contents):
            if not contents.is_dir():
                return None
            files = [path for path in contents.rglob("*") if path.is_symlink() or not path.is_dir()]
        for path in files:
            if str(path.relative_to(self.folder)) not in self.replay_files:
                raise ValueError(f"{path} is not named by {MANIFEST}: no part of this checkpoint; remove it")
        if self.tables is None:
            return None
        _check_files(self.folder, self.replay_files)
        return contents


def write_checkpoint(parent: Path, snapshot: Snapshot, save_replay: SaveReplay | None = None) -> Path:
    """Write ``parent/<step>`` and return it, once it is on disk and whole.

    A full disk raises OSError and leaves the earlier checkpoints as they were; a process that is killed at any moment
    leaves them too, and beside them a folder ``tmp-*`` for `tidy`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"{snapshot.step:09d}"
    aside = parent / f"{_ASIDE}{final.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        save_agent(aside, snapshot.agent, snapshot.weights)
        safetensors.torch.save_file(snapshot.optimiser, aside / OPTIMISER)
        if snapshot.objective:
            safetensors.torch.save_file(snapshot.objective, aside / OBJECTIVE)
        (aside / STATE).write_text(json.dumps({"counters": snapshot.counters, "extra": snapshot.extra}, indent=1))
        manifest: dict[str, Any] = {"step": snapshot.step, "score": snapshot.extra.get("score")}
        manifest["sha256"] = _sealed(aside, aside)
        tables = None if save_replay is None else save_replay(aside / REPLAY)
        if tables is not None:
            manifest["replay"] = {"tables": tables, "sha256": _sealed(aside / REPLAY, aside)}
        (aside / MANIFEST).write_text(json.dumps(seal(manifest), indent=1))
        flush(aside / MANIFEST)
        flush(aside)
        former = parent / f"{final.name}.old"
        if final.exists():  # the same step again, with newer counts of the actors
            remove(former)
            os.replace(final, former)
        os.replace(aside, final)
        flush(parent)
        remove(former)
    except BaseException as error:
        shutil.rmtree(aside, ignore_errors=True)
        if isinstance(error, SafetensorError):
            raise OSError(f"tensors could not be written to {aside}: {error}") from error
        raise
    return final


def _sealed(folder: Path, root: Path) -> dict[str, str]:
    """Flush all files of a folder and its folders to disk; their hashes by path from ``root``."""
    hashes = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            hashes[str(path.relative_to(root))] = file_hash(path)
        flush(path)
    return hashes


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint so that no moment shows a part of it; nothing where there is none."""
    gone = checkpoint.with_name(f"{_ASIDE}gone-{checkpoint.name}-{os.getpid()}")
    if checkpoint.is_dir():
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(checkpoint, gone)
        shutil.rmtree(gone, ignore_errors=True)


def tidy(parent: Path) -> None:
    """Remove what killed writers left behind. Only for a run's one writer, before it writes."""
    for left in (*parent.glob(f"{_ASIDE}*"), *parent.glob(f"*/{_ASIDE}*")):
        shutil.rmtree(left, ignore_errors=True)
    for former in parent.glob("*.old"):
        if (former.with_suffix("") / MANIFEST).is_file():
            remove(former)


def restore_checkpoint(checkpoint: Checkpoint, learner: Learner) -> None:
    """Load weights, optimiser, objective and counters into a learner that has made no step.

    A checkpoint of another model shape raises ValueError with the reason.
    """
    folder = checkpoint.folder
    with _reading(folder / WEIGHTS_FILE):
        weights = read_weights(folder)
    if SHARED_HEAD in weights:
        raise ValueError(
            f"{folder} is of an earlier Clowder, whose critic had one head for all tasks: its "
            f"optimiser cannot be gone on from; begin a new run with start_from={folder}"
        )
    load_weights(learner.agent, weights)
    tensors = _read_tensors(folder / OPTIMISER)
    parameters = dict(learner.agent.named_parameters())
    names = {key.partition("/")[2] for key in tensors}
    if tensors.keys() != {f"{slot}/{name}" for slot in ADAM for name in names} or not names <= parameters.keys():
        raise ValueError(f"{folder / OPTIMISER} is not of this model; use an earlier checkpoint")
    for key, value in tensors.items():
        slot, _, name = key.partition("/")
        parameter = parameters[name]
        if value.shape != (torch.Size() if slot == "step" else parameter.shape):
            raise ValueError(f"{folder / OPTIMISER}: {key} has shape {list(value.shape)}; use an earlier checkpoint")
        learner.optimiser.state[parameter][slot] = value.to(parameter.device)  # all three: it is fused
    if (folder / OBJECTIVE).is_file():
        learner.objective.restore(learner.agent, _read_tensors(folder / OBJECTIVE))
    elif learner.objective.tensors(learner.agent):
        raise ValueError(
            f"{folder} has no {OBJECTIVE}, which learner.objective={learner.config.objective} goes on from; it was "
            "written with another objective: resume with that, or start a new run"
        )
    learner.restore_counters(checkpoint.state()["counters"])


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        with _reading(path):
            return dict(safetensors.torch.load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); use an earlier checkpoint") from None


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn OSError into ValueError, naming the file: a disk that fails, or a learner that removes the checkpoint."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror or error}); use an earlier checkpoint") from error


def whole_checkpoints(parent: Path) -> list[Path]:
    """Folders with a manifest, oldest first; torn ones are not among them."""
    if not parent.is_dir():
        return []
    found = []
    for path in parent.iterdir():
        name = _NAME.fullmatch(path.name)
        if name and _has_manifest(path):
            found.append((int(name[1]), name[2] is None, path))
    return [path for *_, path in sorted(found)]


def _has_manifest(folder: Path) -> bool:
    try:
        return (folder / MANIFEST).is_file()
    except OSError:
        return True  # `read_manifest` says what is amiss


def latest_checkpoint(parent: Path, *, with_replay: bool = False) -> Checkpoint | None:
    """The newest checkpoint whose files are all as its manifest says, or None; those passed over are in the log.

    ``with_replay``: the newest that also has contents of replay, as its manifest says.
    """
    passed: set[Path] = set()
    # Listed anew each time: a learner may have written one, and retired others, meanwhile.
    while left := [folder for folder in whole_checkpoints(parent) if folder not in passed]:
        passed.add(left[-1])
        try:
            checkpoint = open_checkpoint(left[-1])
            if with_replay and checkpoint.replay() is None:
                continue
        except ValueError as error:
            log.warning("a checkpoint is passed over, the one before it is looked at: %s", error)
            continue
        return checkpoint
    return None


def named_checkpoint(parent: Path, name: str) -> Checkpoint | None:
    """The checkpoint that a user names: ``newest``, ``best`` (the highest score, the earliest of equals) or a step.

    None where ``newest`` finds none. ValueError, which names what there is, where another does not; and where the one
    that is named is damaged.
    """
    if name == NEWEST:
        return latest_checkpoint(parent)
    manifests = {}
    for folder in whole_checkpoints(parent):
        with contextlib.suppress(ValueError):
            manifest = read_manifest(folder)
            manifests[manifest["step"]] = folder, manifest.get("score")
    scores = {step: score for step, (_, score) in manifests.items() if score is not None}
    if name == BEST and scores:
        return open_checkpoint(manifests[max(scores, key=scores.__getitem__)][0])
    if name == BEST:
        raise ValueError(f"no checkpoint in {parent} has a score, which evaluations during training give; use {NEWEST}")
    if not name.isdecimal() or int(name) not in manifests:
        kept = ", ".join(map(str, manifests)) or "none"
        raise ValueError(f"{parent} has no checkpoint {name}; those that are kept are of steps: {kept}")
    return open_checkpoint(manifests[int(name)][0])


def checkpoint_of(path: Path) -> Checkpoint:
    """A checkpoint that is named by its own folder, or the newest whole one of a run's folder.

    Raises ValueError where there is none, or the one that is named is damaged.
    """
    if _NAME.fullmatch(path.name) and path.is_dir():
        return open_checkpoint(path)
    found = latest_checkpoint(path / "checkpoints")
    if found is None:
        raise ValueError(f"{path} is neither a checkpoint nor a run's folder that has one, such as runs/NAME")
    return found


def open_checkpoint(folder: Path) -> Checkpoint:
    """Check all files but the contents of replay; raise ValueError, naming the file, where one is not whole, cannot be
    read, or is a part that the manifest does not name. What is no part of a checkpoint is not looked at.
    """
    manifest = read_manifest(folder)
    files = manifest["sha256"]
    missing = REQUIRED - files.keys()
    if missing:
        raise ValueError(f"{folder / MANIFEST} does not name {', '.join(sorted(missing))}; use an earlier checkpoint")
    _check_files(folder, files)
    if OBJECTIVE not in files and os.path.lexists(folder / OBJECTIVE):
        raise ValueError(f"{folder / OBJECTIVE} is not named by {MANIFEST}: no part of this checkpoint; remove it")
    replay = manifest.get("replay") or {"tables": None, "sha256": {}}
    checkpoint = Checkpoint(folder, manifest["step"], manifest.get("score"), replay["tables"], replay["sha256"])
    try:
        counted = checkpoint.state()["counters"]["step_count"]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / STATE} is no state of a learner ({error}); use an earlier checkpoint") from None
    if not checkpoint.step == counted == int(folder.name.partition(".")[0]):
        raise ValueError(
            f"{folder} holds a manifest of step {checkpoint.step} and counters of step {counted}: its parts do not "
            "belong together; use an earlier checkpoint"
        )
    return checkpoint


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, its form checked, without a look at the files; ValueError where it is none."""
    try:
        manifest = read_sealed(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no whole {MANIFEST}: the checkpoint is torn; use an earlier one") from error
    replay = manifest.get("replay")
    sound = (
        isinstance(manifest.get("step"), int)
        and isinstance(manifest.get("score"), (int, float, type(None)))
        and _are_hashes(manifest.get("sha256"))
        and (replay is None or (isinstance(replay, dict) and isinstance(replay.get("tables"), dict)))
        and (replay is None or _are_hashes(replay.get("sha256")))
    )
    if not sound:
        raise ValueError(f"{folder / MANIFEST} is no manifest of a checkpoint; use an earlier checkpoint")
    return manifest


def _are_hashes(files: object) -> bool:
    """Whether this is a mapping of paths inside the checkpoint to hashes."""
    return isinstance(files, dict) and all(
        isinstance(value, str) and ".." not in Path(name).parts and not Path(name).is_absolute()
        for name, value in files.items()
    )


def _check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    for name, expected in hashes.items():
        path = folder / name
        with _reading(path):
            whole = path.is_file() and file_hash(path) == expected
        if not whole:
            raise ValueError(f"{path} is missing, truncated or changed; use an earlier checkpoint")


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync a file or folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
