"""`MinariSet`: whole episodes on disk in Minari's Arrow form, one folder an episode.

``<set>/data/metadata.json`` is Minari's own, with our settings under ``clowder``; ``<set>/data/<i>/`` holds the table
of episode i and a ``metadata.json`` with its size and SHA-256. Read with pyarrow alone: Minari's reader takes images
apart one by one and knows nothing of damage.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import pyarrow as pa

from actors.demonstrations.demonstration_set import DemonstrationSetError, SetSettings, demonstrator_return
from actors.demonstrations.episode import Episode
from actors.demonstrations.minari_form import decode_episode
from replay.sealed_json import read_sealed

METADATA = "metadata.json"
TABLE = "part-0.arrow"
_KEPT: dict[str, type | UnionType] = {
    "seed": int,
    "episode_return": int | float,
    "noisy": bool,
    "total_steps": int,
    "success": bool | None,
    "sha256": str,
}
"""What a set keeps in memory of each episode, and of which type that is."""


class MinariSet:
    """See `DemonstrationSet`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = folder / "data"
        metadata = read_metadata(self._data / METADATA)
        self.settings = SetSettings.from_json(metadata.get("clowder"), self._data / METADATA)
        if metadata.get("data_format") != "arrow":
            raise DemonstrationSetError(f"{folder} is Minari's {metadata.get('data_format')} form; Clowder reads arrow")
        promised = metadata.get("total_episodes", 0)
        if not isinstance(promised, int):
            raise DemonstrationSetError(f"{self._data / METADATA}: total_episodes is {promised!r}; record the set anew")
        # An episode whose folder is there is whole, even where an interruption came before the count was written.
        # Of an episode only this is kept, about a hundred bytes; its steps are read when it is asked for.
        rows: list[tuple[Any, ...]] = []
        while len(rows) < promised or (self._data / str(len(rows))).exists():
            facts = self._episode_facts(len(rows), promised)
            rows.append(tuple(facts[name] for name in _KEPT))
        self.num_episodes = len(rows)
        if not self.num_episodes:
            raise DemonstrationSetError(f"{folder} has no episodes; record some with `clowder record`")
        seeds, returns, noisy, lengths, success, sha256 = zip(*rows)
        try:
            self.seeds = np.array(seeds, np.int64)
            self.returns = np.array(returns, np.float64)
            self.noisy = np.array(noisy, bool)
            self.lengths = np.array(lengths, np.int64)
            self._success = np.array([-1 if each is None else bool(each) for each in success], np.int8)
            self._sha256 = [bytes.fromhex(each) for each in sha256]
            if not np.isfinite(self.returns).all():
                raise ValueError("a return is no number")
        except (OverflowError, ValueError) as error:
            raise DemonstrationSetError(f"{folder}: the {METADATA} of an episode is malformed ({error})") from error

    def _episode_facts(self, index: int, promised: int) -> dict[str, Any]:
        folder = self._data / str(index)
        if not folder.is_dir():
            raise DemonstrationSetError(
                f"{self.folder} is truncated: episode {index} of {promised} is missing; copy the set again, or record "
                "it anew"
            )
        facts = read_metadata(folder / METADATA)
        missing = {*_KEPT, "bytes"} - facts.keys()
        if missing:
            raise DemonstrationSetError(f"{folder / METADATA} lacks {sorted(missing)}; record the set anew")
        for name, kind in {**_KEPT, "bytes": int}.items():
            if not isinstance(facts[name], kind):
                raise DemonstrationSetError(
                    f"{folder / METADATA} is malformed: {name} is {facts[name]!r}; record the set anew"
                )
        path = folder / TABLE
        size = path.stat().st_size if path.exists() else 0
        if size != facts["bytes"]:
            raise DemonstrationSetError(
                f"{path} is truncated: {size} of {facts['bytes']} bytes; copy the set again, or record it anew"
            )
        return facts

    @property
    def demonstrator_return(self) -> float:
        """Mean return of the episodes without injected noise."""
        return demonstrator_return(self.returns, self.noisy, self.folder)

    def episode(self, index: int) -> Episode:
        """One whole episode; a damaged one raises DemonstrationSetError."""
        path = self._data / str(index) / TABLE
        success, length = int(self._success[index]), int(self.lengths[index])
        facts = {
            "seed": self.seeds[index],
            "noisy": self.noisy[index],
            "success": None if success < 0 else bool(success),
        }
        try:
            data = path.read_bytes()
            if hashlib.sha256(data).digest() != self._sha256[index]:
                raise ValueError("its SHA-256 is not the recorded one")
            with pa.ipc.open_file(pa.BufferReader(data)) as reader:
                episode = decode_episode(reader.read_all(), self.settings.task, facts)
            if episode.length != length:
                raise ValueError(f"it has {episode.length} steps instead of {length}")
        except (OSError, ValueError, KeyError, IndexError, pa.ArrowException) as error:
            raise DemonstrationSetError(
                f"{path} is damaged ({error}); copy the set again, or record it anew"
            ) from error
        return episode

    def episodes(self, order: Sequence[int]) -> Iterator[tuple[int, Episode] | None]:
        """See `DemonstrationSet`."""
        for index in order:
            yield index, self.episode(index)

    def close(self) -> None:
        """Nothing is held between episodes."""


def read_metadata(path: Path) -> dict[str, Any]:
    """A JSON object; DemonstrationSetError where it is missing or damaged."""
    try:
        return read_sealed(path)
    except (OSError, ValueError) as error:
        raise DemonstrationSetError(f"a set cannot be read: {error}; copy the set again, or record it anew") from error
