"""`MinariWriter`: appends episodes to a set in Minari's Arrow form."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from actors.demonstrations.demonstration_set import ROM, SetSettings
from actors.demonstrations.episode import ActionRecord, Episode
from actors.demonstrations.minari_form import encode_episode, minari_spaces
from actors.demonstrations.minari_set import METADATA, TABLE, MinariSet
from actors.demonstrations.whole_files import write_json, write_whole
from replay.sealed_json import seal

COUNT_SECONDS = 1.0
"""Minari's count of the episodes is written at most this often: `MinariSet` finds those beyond it, whose folders are
there, and each writing waits for the disk."""


class MinariWriter:
    """Writes each episode aside and renames its folder into place: an interruption leaves whole episodes only.

    A folder that holds a set is continued; its caller has compared the settings.
    """

    def __init__(self, folder: Path, settings: SetSettings) -> None:
        self._folder = folder
        self._data = folder / "data"
        self.settings = settings
        self.seeds: list[int] = []
        self._steps = 0
        # Gymnasium is imported by the recording process only, so here and not above.
        from minari.serialization import serialize_space

        observation_space, action_space = minari_spaces(settings.task)
        self._spaces = {
            "observation_space": serialize_space(observation_space),
            "action_space": serialize_space(action_space),
        }
        self._minari_version = importlib.metadata.version("minari")
        self._data.mkdir(parents=True, exist_ok=True)
        for aside in self._data.glob(".writing-*"):
            shutil.rmtree(aside)
        if (self._data / METADATA).exists() and (self._data / "0").exists():
            existing = MinariSet(folder)
            self.seeds = [int(seed) for seed in existing.seeds]
            self._steps = int(existing.lengths.sum())
        self._write_metadata()

    def append(self, record: ActionRecord, episode: Episode) -> None:
        """Add one episode; OSError leaves the set as it was."""
        self.append_rows(encode_episode(episode, self.settings.task, 0), episode.facts())

    def append_rows(self, rows: pa.RecordBatch, facts: dict[str, Any]) -> None:
        """Add one episode that `encode_episode` made, with its `Episode.facts`; OSError leaves the set as it was."""
        index = len(self.seeds)
        ids = pa.array(np.full(len(rows), index, np.int32))
        batch = pa.RecordBatch.from_arrays([ids, *rows.columns[1:]], schema=rows.schema)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_file(sink, batch.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_batch(batch)
        data = sink.getvalue().to_pybytes()
        facts = facts | {
            "id": index,
            "expert": self.settings.expert,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        aside = self._data / f".writing-{index}-{os.getpid()}"
        try:
            aside.mkdir()
            write_whole(aside / TABLE, data)
            write_json(aside / METADATA, seal(facts))
            os.rename(aside, self._data / str(index))
        except BaseException:
            shutil.rmtree(aside, ignore_errors=True)
            raise
        self.seeds.append(facts["seed"])
        self._steps += facts["total_steps"]
        if time.monotonic() - self._counted_at > COUNT_SECONDS:
            self._write_metadata()

    def finish(self, failed_episodes: int) -> None:
        """Bring the settings up to date."""
        self.settings = dataclasses.replace(self.settings, failed_episodes=failed_episodes)
        self._write_metadata()

    def _write_metadata(self) -> None:
        self._counted_at = time.monotonic()
        about = {
            "dataset_id": dataset_id(self._folder),
            "total_episodes": len(self.seeds),
            "total_steps": self._steps,
            "data_format": "arrow",
            "minari_version": self._minari_version,
            "algorithm_name": self.settings.expert,
            "author": ["Clowder"],
            "author_email": [],
            "description": f"Demonstrations of {self.settings.task.name}; settings under the key clowder",
            "requirements": [
                f"{name}=={version}" for name, version in self.settings.versions.items() if not name.startswith(ROM)
            ],
            "clowder": self.settings.to_json(),
        }
        write_json(self._data / METADATA, seal(self._spaces | about))


def dataset_id(folder: Path) -> str:
    """Minari's name of the set: its folder's, with ``-v0`` where that names no version."""
    name = re.sub(r"[^-_\w]+", "-", folder.resolve().name).strip("-") or "demonstrations"
    return name if re.search(r"-v\d+$", name) else f"{name}-v0"
