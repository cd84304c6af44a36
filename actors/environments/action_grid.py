"""`ActionGrid`: continuous actions chosen from a few, so that all of them can be weighed against each other.

Few levels are enough for many control tasks (Seyde et al. 2021, "Is bang-bang control all you need?").
"""

from __future__ import annotations

import numpy as np

from agent.task import MAX_DISCRETE_VALUES, ArraySpec


class ActionGrid:
    """``points`` evenly spaced levels in [-1, 1] for each of ``elements`` numbers; an action is one combination.

    The first element counts slowest. Raises ValueError for fewer than two points or more actions than ids.
    """

    def __init__(self, elements: int, points: int) -> None:
        if points < 2 or points**elements > MAX_DISCRETE_VALUES:
            raise ValueError(
                f"action_grid must be at least 2, and its power {elements} (an action has {elements} numbers) at most "
                f"{MAX_DISCRETE_VALUES}, not {points}"
            )
        self._shape = (points,) * elements
        self._levels = np.linspace(-1.0, 1.0, points, dtype=np.float32)
        self.spec = ArraySpec("discrete", (), num_values=points**elements)

    def values(self, action: np.ndarray) -> np.ndarray:
        """Float32 [..., elements] of actions int32 [...]."""
        return self._levels[np.stack(np.unravel_index(action, self._shape), axis=-1)]

    def nearest(self, values: np.ndarray) -> np.ndarray:
        """The action nearest to values [..., elements], int32 [...]; what is outside [-1, 1] is moved to its edge."""
        scaled = (np.clip(values, -1.0, 1.0) + 1.0) / 2 * (len(self._levels) - 1)
        places = np.rint(scaled).astype(np.int64)
        return np.ravel_multi_index(tuple(np.moveaxis(places, -1, 0)), self._shape).astype(np.int32)
