"""`StepBuffer`: the newest steps of an episode under way, as contiguous arrays that windows are cut from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.task import TaskSpec
from replay.window import OBSERVATION_PREFIX, window_signature


def checked(
    task: TaskSpec, name: str, value: Any, dtype: np.dtype, shape: tuple[int, ...], step: int | None = None
) -> np.ndarray:
    """``value`` as an array; ValueError where its dtype or shape is not the one asked for."""
    where = f"{task.name}: column {name}" + ("" if step is None else f" at step {step}")
    if value is None:
        raise ValueError(f"{where} is missing")
    array = np.asarray(value)
    if array.dtype != dtype or array.shape != shape:
        raise ValueError(f"{where} is {array.dtype} {array.shape}, the task says {dtype} {shape}")
    return array


class StepBuffer:
    """Rows of the last steps; older ones are overwritten.

    Attributes:
        steps: steps of the episode so far.
    """

    def __init__(self, task: TaskSpec, capacity: int) -> None:
        self.steps = 0
        self._task = task
        self._capacity = capacity
        self._signature = {
            name: column for name, column in window_signature(task).items() if name not in ("metadata", "reward")
        }
        self._columns = {
            name: np.zeros((capacity + name.startswith(OBSERVATION_PREFIX), *shape), dtype)
            for name, (dtype, shape) in self._signature.items()
        }
        self._base = 0  # step of the episode that row 0 holds

    def begin(self, observation: Mapping[str, Any]) -> None:
        """Forget everything and begin an episode."""
        self.steps = self._base = 0
        self._write_observation(observation, 0)

    def step(self, next_observation: Mapping[str, Any], values: Mapping[str, Any]) -> None:
        """Add a step; ``values`` holds the step columns but ``is_first``."""
        row = self.steps - self._base
        if row == self._capacity:
            row = self._drop_older_half()
        for name in ("action", "label"):
            dtype, shape = self._signature[name]
            self._columns[name][row] = checked(self._task, name, values[name], dtype, shape, self.steps)
        for name in ("label_mask", "terminated", "truncated", "policy_version", "log_prob", "return_asked"):
            self._columns[name][row] = values[name]
        self._columns["is_first"][row] = self.steps == 0
        self._write_observation(next_observation, row + 1)
        self.steps += 1

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Views of steps [start, stop) of every column but reward; observations have one row more."""
        first, last = start - self._base, stop - self._base
        return {
            name: column[first : last + name.startswith(OBSERVATION_PREFIX)] for name, column in self._columns.items()
        }

    def _write_observation(self, observation: Mapping[str, Any], row: int) -> None:
        for name, (dtype, shape) in self._signature.items():
            if name.startswith(OBSERVATION_PREFIX):
                value = observation.get(name.removeprefix(OBSERVATION_PREFIX))
                self._columns[name][row] = checked(self._task, name, value, dtype, shape, self.steps)

    def _drop_older_half(self) -> int:
        half = self._capacity // 2
        for column in self._columns.values():
            kept = len(column) - half
            column[:kept] = column[half:].copy()
        self._base += half
        return self._capacity - half
