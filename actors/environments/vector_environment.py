"""The one interface of environments: a vector of E copies of one task that are reset by their caller.

Autoreset is off everywhere: the caller sees `terminated` or `truncated`, and resets that slot with a seed of its own
choice. So there are no reset steps that could be stored as actions, and every episode has a known seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from agent.task import TaskSpec

Observation = dict[str, "np.ndarray | list[str]"]
"""By key: [n, *shape] in the dtype of the spec, or n strings for a text."""


@dataclasses.dataclass(frozen=True)
class VectorStep:
    """What one `step` of E environments gave.

    Attributes:
        observation: what followed the action, for all E slots; the last of its episode where one ended.
        reward: float32 [E], raw.
        terminated, truncated: bool [E]. Such a slot must be reset before it is stepped again.
        success: bool [E] where the environment says whether the episode succeeded; None where it never does.
    """

    observation: Observation
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    success: np.ndarray | None = None

    @property
    def done(self) -> np.ndarray:
        """Bool [E]: the episode ended."""
        return self.terminated | self.truncated


class VectorEnvironment(Protocol):
    """E copies of one task."""

    task: TaskSpec
    num_envs: int

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin an episode in each of ``slots`` with its seed; returns observations for those slots, in that order."""
        ...

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all E slots; ``action`` is [E, *action shape] in the dtype of the spec."""
        ...

    def render(self, slot: int) -> np.ndarray:
        """A picture of one slot for a video, uint8 [height, width, 3]."""
        ...

    def close(self) -> None:
        """Free what the environments hold."""
        ...
