"""Checkpoints: written aside, flushed to disk, renamed into place, with a manifest of hashes written last.

No file in it is unpickled or can name code: weights and optimiser are safetensors, everything else is JSON.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError

from agent.weights import AGENT_FILE, TEXT_FILE, WEIGHTS_FILE, load_weights, read_weights, save_agent
from learner.learner import Learner
from replay.sealed_json import read_sealed, seal

MANIFEST, OPTIMISER, STATE = "MANIFEST.json", "optimiser.safetensors", "state.json"
OBJECTIVE = "objective.safetensors"
"""What the objective keeps between updates; not there where it keeps nothing."""


def save_checkpoint(parent: Path, learner: Learner, extra: dict[str, Any], keep: int = 3) -> Path:
    """Write ``parent/<step>``; older ones beyond ``keep`` are removed. Returns its folder.

    A full disk raises OSError and leaves the earlier checkpoints as they were.
    """
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"{learner.step_count:09d}"
    aside = parent / f"tmp-{final.name}-{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    try:
        save_agent(aside, learner.acting)
        safetensors.torch.save_file(optimiser_tensors(learner), aside / OPTIMISER)
        kept = learner.objective.tensors(learner.agent)
        if kept:
            on_cpu = {key: value.detach().cpu().contiguous() for key, value in kept.items()}
            safetensors.torch.save_file(on_cpu, aside / OBJECTIVE)
        (aside / STATE).write_text(json.dumps({"counters": learner.counters(), "extra": extra}, indent=1))
        files = {path.name: file_hash(path) for path in sorted(aside.iterdir())}
        for path in aside.iterdir():
            flush(path)
        (aside / MANIFEST).write_text(json.dumps(seal({"step": learner.step_count, "sha256": files}), indent=1))
        flush(aside / MANIFEST)
        flush(aside)
        if final.exists():  # the same step again: what it holds is the same state
            shutil.rmtree(final)
        os.replace(aside, final)
        flush(parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    for old in whole_checkpoints(parent)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def restore_checkpoint(folder: Path, learner: Learner) -> dict[str, Any]:
    """Load weights, optimiser and counters into a learner that has made no step; returns ``extra``.

    Damage, or a checkpoint of another model shape, raises ValueError with the reason.
    """
    check_manifest(folder)
    load_weights(learner.agent, read_weights(folder))
    tensors = _read_tensors(folder / OPTIMISER)
    names = {parameter: name for name, parameter in learner.agent.named_parameters()}
    for parameter, name in names.items():
        own = {key.split("/", 1)[0]: value for key, value in tensors.items() if key.split("/", 1)[1] == name}
        if own:
            learner.optimiser.state[parameter] = {
                key: value if key == "step" else value.to(parameter.device) for key, value in own.items()
            }
    if (folder / OBJECTIVE).is_file():
        learner.objective.restore(learner.agent, _read_tensors(folder / OBJECTIVE))
    elif learner.objective.tensors(learner.agent):
        raise ValueError(
            f"{folder} has no {OBJECTIVE}, which learner.objective={learner.config.objective} goes on from; it was "
            "written with another objective: resume with that, or start a new run"
        )
    try:
        state = json.loads((folder / STATE).read_text())
        counters, extra = state["counters"], dict(state["extra"])
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{folder / STATE} is no state of a learner; use an earlier checkpoint") from error
    learner.restore_counters(counters)
    return extra


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return dict(safetensors.torch.load_file(path))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}); use an earlier checkpoint") from None


def optimiser_tensors(learner: Learner) -> dict[str, torch.Tensor]:
    """State of the optimiser by ``<slot>/<parameter name>``."""
    names: dict[torch.Tensor, str] = {parameter: name for name, parameter in learner.agent.named_parameters()}
    return {
        f"{slot}/{names[parameter]}": value.detach().cpu().contiguous().clone()
        for parameter, state in learner.optimiser.state.items()
        for slot, value in state.items()
    }


def whole_checkpoints(parent: Path) -> list[Path]:
    """Folders with a manifest, oldest first; torn ones are not among them."""
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.name.isdigit() and (path / MANIFEST).is_file())


def latest_checkpoint(parent: Path) -> Path | None:
    """The newest checkpoint whose files are all as the manifest says, or None."""
    for folder in reversed(whole_checkpoints(parent)):
        try:
            check_manifest(folder)
        except ValueError:
            continue
        return folder
    return None


def read_extra(folder: Path) -> dict[str, Any]:
    """What the caller of `save_checkpoint` added, without loading the weights."""
    check_manifest(folder)
    return dict(json.loads((folder / STATE).read_text())["extra"])


def check_manifest(folder: Path) -> None:
    """Raise ValueError, naming the file, where a checkpoint is not whole."""
    try:
        manifest = read_sealed(folder / MANIFEST)
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} has no whole {MANIFEST}: the checkpoint is torn; use an earlier one") from error
    files = found if isinstance(found := manifest.get("sha256"), dict) else {}
    missing = {WEIGHTS_FILE, AGENT_FILE, TEXT_FILE, OPTIMISER, STATE} - files.keys()
    if missing:
        raise ValueError(f"{folder / MANIFEST} does not name {', '.join(sorted(missing))}; use an earlier checkpoint")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file() or file_hash(path) != expected:
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
