"""`TrajectoryTree`: every action list that was ever kept, sharing what it has in common with others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

ROOT = 0
"""The node of the first screen: no action led to it."""


class TrajectoryTree:
    """Nodes are numbers; each has a parent and the actions that lead from there. Nodes never change."""

    def __init__(self) -> None:
        self._parents = [ROOT]
        self._ends = [0]
        self._actions = bytearray()

    def __len__(self) -> int:
        return len(self._parents)

    def add(self, parent: int, actions: Sequence[int]) -> int:
        """A new node, reached from ``parent`` by ``actions``, indices below 256."""
        if not 0 <= parent < len(self._parents):
            raise ValueError(f"the tree has no node {parent}, only {len(self._parents)}")
        self._parents.append(parent)
        self._actions.extend(actions)
        self._ends.append(len(self._actions))
        return len(self._parents) - 1

    def path(self, node: int) -> np.ndarray:
        """All actions from the first screen to ``node``, uint8 [T]."""
        segments = []
        while node != ROOT:
            segments.append(bytes(self._actions[self._ends[node - 1] : self._ends[node]]))
            node = self._parents[node]
        return np.frombuffer(b"".join(reversed(segments)), np.uint8)

    def to_arrays(self) -> dict[str, np.ndarray]:
        """``parents`` and ``ends`` int64 [N], ``actions`` uint8."""
        return {
            "parents": np.array(self._parents, np.int64),
            "ends": np.array(self._ends, np.int64),
            "actions": np.frombuffer(bytes(self._actions), np.uint8),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> TrajectoryTree:
        """Inverse of `to_arrays`; ValueError where they are not of one tree."""
        parents, ends, actions = arrays["parents"], arrays["ends"], arrays["actions"]
        number = np.arange(len(parents))
        whole = len(parents) == len(ends) > 0 and ends[0] == 0 and ends[-1] == len(actions)
        if not whole or (np.diff(ends) < 0).any() or parents[0] != ROOT or (parents[1:] >= number[1:]).any():
            raise ValueError("its trajectories do not fit together")
        if (parents < 0).any():
            raise ValueError("its trajectories have parents below 0")
        tree = cls()
        tree._parents, tree._ends, tree._actions = parents.tolist(), ends.tolist(), bytearray(actions.tobytes())
        return tree
