"""`Archive`: the cells that were reached, how to return to each, and which to explore from (Ecoffet et al. 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

import numpy as np


@dataclasses.dataclass
class Cell:
    """The best way into a cell that is known.

    Attributes:
        key: of its screen.
        state: of the emulator, see `Emulator.state`.
        score: sum of raw rewards on the way.
        length: steps of the way.
        node: of the way, in the `TrajectoryTree`.
    """

    key: bytes
    state: bytes
    score: int
    length: int
    node: int


class Archive:
    """Cells by number, in the order in which they were found. At most ``capacity``: then unknown ones are left out, and
    known ones still get better."""

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError(f"an archive holds at least 1 cell, not {capacity}")
        self.capacity = capacity
        self.cells: list[Cell] = []
        self._number: dict[bytes, int] = {}
        self._seen = np.zeros(64, np.int64)
        self._weight = np.ones(64)

    def __len__(self) -> int:
        return len(self.cells)

    @property
    def seen(self) -> np.ndarray:
        """Runs that visited each cell since it last got better, int64 [N]."""
        return self._seen[: len(self.cells)]

    def find(self, key: bytes) -> int | None:
        """Number of a cell."""
        return self._number.get(key)

    def select(self, random: np.random.Generator) -> int:
        """A cell to explore from, with probability proportional to 1 / sqrt(seen + 1)."""
        sums = np.cumsum(self._weight[: len(self.cells)])
        return min(int(np.searchsorted(sums, random.random() * sums[-1], side="right")), len(self.cells) - 1)

    def wants(self, key: bytes, score: int, length: int) -> bool:
        """Whether `keep` would be right: an unknown cell, or a better way: more score, or as much in fewer steps."""
        number = self._number.get(key)
        if number is None:
            return len(self.cells) < self.capacity
        known = self.cells[number]
        return score > known.score or (score == known.score and length < known.length)

    def keep(self, cell: Cell) -> int:
        """Insert a cell, or replace the one with its key; returns its number. Its counter starts anew with `count`."""
        number = self._number.get(cell.key)
        if number is not None:
            self.cells[number] = cell
            return number
        if len(self.cells) == len(self._seen):
            self._seen = np.concatenate([self._seen, np.zeros_like(self._seen)])
            self._weight = np.concatenate([self._weight, np.ones_like(self._weight)])
        self._number[cell.key] = len(self.cells)
        self.cells.append(cell)
        return len(self.cells) - 1

    def count(self, visited: Collection[int], improved: Collection[int]) -> None:
        """End of a run: every distinct cell that it visited was seen once more; those it inserted or replaced start
        anew."""
        seen = self._seen
        for number in visited:
            seen[number] += 1
        for number in improved:
            seen[number] = 0
        for number in {*visited, *improved}:
            self._weight[number] = 1.0 / np.sqrt(seen[number] + 1.0)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """``keys`` uint8 [N, points], ``states`` uint8 with ``state_ends`` int64 [N], ``scores``, ``lengths``,
        ``nodes`` and ``seen`` int64 [N]."""
        cells = self.cells
        return {
            "keys": np.frombuffer(b"".join(cell.key for cell in cells), np.uint8).reshape(len(cells), -1),
            "states": np.frombuffer(b"".join(cell.state for cell in cells), np.uint8),
            "state_ends": np.cumsum([len(cell.state) for cell in cells], dtype=np.int64),
            "scores": np.array([cell.score for cell in cells], np.int64),
            "lengths": np.array([cell.length for cell in cells], np.int64),
            "nodes": np.array([cell.node for cell in cells], np.int64),
            "seen": self.seen.copy(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray], capacity: int, nodes: int) -> Archive:
        """Inverse of `to_arrays`; ValueError where they do not fit together or name a node beyond ``nodes``."""
        names = ("state_ends", "scores", "lengths", "nodes", "seen")
        count = len(arrays["keys"])
        ends, states = arrays["state_ends"], arrays["states"].tobytes()
        if not count or any(arrays[name].shape != (count,) for name in names) or arrays["keys"].ndim != 2:
            raise ValueError("its cells do not fit together")
        if ends[-1] != len(states) or (np.diff(ends, prepend=0) <= 0).any():
            raise ValueError("its states do not fit together")
        if (arrays["nodes"] < 0).any() or (arrays["nodes"] >= nodes).any() or (arrays["seen"] < 0).any():
            raise ValueError("its cells have no trajectories")
        archive = cls(max(capacity, count))
        archive.capacity = capacity
        starts = np.concatenate([[0], ends[:-1]])
        for row in range(count):
            archive.keep(
                Cell(
                    key=arrays["keys"][row].tobytes(),
                    state=states[starts[row] : ends[row]],
                    score=int(arrays["scores"][row]),
                    length=int(arrays["lengths"][row]),
                    node=int(arrays["nodes"][row]),
                )
            )
        if len(archive) != count:
            raise ValueError("it has a cell twice")
        archive.seen[:] = arrays["seen"]
        archive._weight[:count] = 1.0 / np.sqrt(arrays["seen"] + 1.0)
        return archive
