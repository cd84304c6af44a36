"""`CheckpointWriter`: checkpoints written in a thread beside the learner, and the rule of which ones are kept."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from learner.checkpoint import (
    REPLAY,
    Snapshot,
    read_manifest,
    remove,
    take_snapshot,
    tidy,
    whole_checkpoints,
    write_checkpoint,
)
from learner.config import CheckpointConfig
from learner.learner import Learner


class SaveContents(Protocol):
    """Saves the contents of replay."""

    def __call__(self, into: Path, deadline: float, give_up: threading.Event) -> Mapping[str, Any]:
        """Write to the folder ``into`` within ``deadline`` seconds or until ``give_up``; describe the tables.

        What it raises is counted, and the checkpoint goes without contents.
        """
        ...


class CheckpointFailed(RuntimeError):
    """A checkpoint is not on disk; the message says why."""


class CheckpointWriter:
    """Writes one checkpoint at a time; the learner waits only while its tensors are copied.

    A checkpoint that cannot be written is counted, earlier ones stay, and the learner goes on.

    Args:
        parent: folder of the run's checkpoints; what killed writers left in it is removed.
        config: what is kept, and the deadline.
        save_contents: of replay; None where checkpoints go without.

    Attributes:
        pause_ms: for how long the learner waited for the newest copy of its tensors.
        write_seconds: from that copy to the end of the newest that was written.
        failures: checkpoints, or contents of replay, that could not be written or took longer than the deadline.
        why: the newest of them failed.
        cpu_seconds: of the writing threads, all together.
    """

    def __init__(self, parent: Path, config: CheckpointConfig, save_contents: SaveContents | None = None) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        tidy(parent)
        self._parent, self._config, self._save_contents = parent, config, save_contents
        self.pause_ms = self.write_seconds = self.cpu_seconds = 0.0
        self.failures, self.why = 0, ""
        self._written: Path | None = None
        self._thread: threading.Thread | None = None
        self._began = 0.0
        self._late = False
        self._hurry = threading.Event()

    def begin(self, learner: Learner, extra: dict[str, Any]) -> bool:
        """Copy the learner's state and have it written; False where the checkpoint before is still being written."""
        if self._thread is not None and self._thread.is_alive():
            if not self._late and time.monotonic() - self._began > self._config.deadline_seconds:
                self._late = True
                self._failed(f"it has been written for checkpoint.deadline_seconds={self._config.deadline_seconds:g}")
            return False
        self._began, self._late = time.monotonic(), False
        self._hurry.clear()
        self._written = None
        snapshot = take_snapshot(learner, extra)
        self.pause_ms = 1000 * (time.monotonic() - self._began)
        self._thread = threading.Thread(target=self._write, args=(snapshot,), name="checkpoint", daemon=True)
        self._thread.start()
        return True

    def save(self, learner: Learner, extra: dict[str, Any], deadline: float) -> Path:
        """Write a checkpoint of now and wait for it.

        Contents of replay that would take longer are left out, also from a checkpoint that is being written already.
        Raises CheckpointFailed where it is not on disk after ``deadline`` seconds.
        """
        end = time.monotonic() + deadline
        self._wait(0.5 * deadline)
        if not self.begin(learner, extra):
            raise CheckpointFailed(f"the checkpoint before was not done in {0.5 * deadline:.1f} s")
        self._wait(0.8 * (end - time.monotonic()))
        if self._thread is not None and self._thread.is_alive():
            raise CheckpointFailed(f"it was not done in {deadline:.1f} s")
        if self._written is None:
            raise CheckpointFailed(self.why)
        return self._written

    def _wait(self, seconds: float) -> None:
        """For the thread, a fifth longer where it has to be told to hurry."""
        if self._thread is not None:
            self._thread.join(max(0.0, seconds))
            self._hurry.set()
            self._thread.join(max(0.0, 0.2 * seconds))

    def _write(self, snapshot: Snapshot) -> None:
        try:
            save = self._contents if self._save_contents else None
            self._written = write_checkpoint(self._parent, snapshot, save)
            self.write_seconds = time.monotonic() - self._began
            retire(self._parent, self._config)
        except Exception as error:
            self._failed(f"step {snapshot.step}: {error}")
        self.cpu_seconds += time.thread_time()

    def _contents(self, into: Path) -> Mapping[str, Any] | None:
        assert self._save_contents is not None
        left = self._config.deadline_seconds - (time.monotonic() - self._began)
        try:
            return self._save_contents(into, left, self._hurry)
        except Exception as error:
            shutil.rmtree(into, ignore_errors=True)
            self._failed(f"its contents of replay: {error}")
            return None

    def _failed(self, why: str) -> None:
        self.failures, self.why = self.failures + 1, why


class Kept(NamedTuple):
    """What decides whether a checkpoint is kept; see `Checkpoint`."""

    step: int
    score: float | None
    has_replay: bool


def kept(found: Sequence[Kept], config: CheckpointConfig) -> tuple[set[int], set[int]]:
    """Which of a run's checkpoints, oldest first, are kept, and which of those with their contents of replay.

    Kept are the newest ``checkpoint.keep`` and the newest with contents of replay, both with these; the
    ``checkpoint.best`` with the highest scores; and the first at or after each multiple of
    ``checkpoint.milestone_steps``. Returned are positions in ``found``.
    """
    newest = set(range(max(0, len(found) - config.keep), len(found)))
    newest |= {max((place for place, each in enumerate(found) if each.has_replay), default=len(found) - 1)}
    scored = [place for place, each in enumerate(found) if each.score is not None]
    best = sorted(scored, key=lambda place: (-(found[place].score or 0.0), place))[: config.best]
    milestones = set()
    if config.milestone_steps:
        reached = 0
        for place, each in enumerate(found):
            if each.step // config.milestone_steps > reached:
                reached = each.step // config.milestone_steps
                milestones.add(place)
    return newest | set(best) | milestones, newest


def retire(parent: Path, config: CheckpointConfig) -> None:
    """Remove the checkpoints, and the contents of replay, that are not `kept`. What has no sound manifest stays."""
    folders, found = [], []
    for folder in whole_checkpoints(parent):
        try:
            manifest = read_manifest(folder)
        except ValueError:
            continue
        folders.append(folder)
        found.append(Kept(manifest["step"], manifest.get("score"), (folder / REPLAY).is_dir()))
    if not found:
        return
    stay, with_replay = kept(found, config)
    for place, folder in enumerate(folders):
        if place not in stay:
            remove(folder)
        elif place not in with_replay:
            remove(folder / REPLAY)
