"""`Episode`: one whole demonstration in memory, and `ActionRecord`: the same as settings, seed and actions only."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclasses.dataclass(frozen=True)
class Episode:
    """T steps of one episode, as raw values.

    Attributes:
        observation: by key, [T + 1, *shape]; texts are in ``texts``.
        texts: value of each text observation, constant within the episode.
        action: executed, [T, *action shape].
        label: action to imitate; differs from ``action`` where noise was injected (DART, Laskey et al. 2017).
        label_mask: bool [T].
        reward: float32 [T], raw.
        terminated, truncated: of the last step.
        seed: of the episode's reset.
        success: the environment's own word, where it has one.
        noisy: True where noise was injected, so that the return is not the demonstrator's own.
    """

    observation: dict[str, np.ndarray]
    texts: dict[str, str]
    action: np.ndarray
    label: np.ndarray
    label_mask: np.ndarray
    reward: np.ndarray
    terminated: bool
    truncated: bool
    seed: int
    success: bool | None = None
    noisy: bool = False

    @property
    def length(self) -> int:
        """Number of steps T."""
        return len(self.reward)

    @property
    def episode_return(self) -> float:
        """Undiscounted sum of rewards."""
        return float(self.reward.sum(dtype=np.float64))

    def facts(self) -> dict[str, Any]:
        """What a set notes of an episode beside its steps; JSON-able."""
        return {
            "total_steps": self.length,
            "seed": self.seed,
            "noisy": self.noisy,
            "success": self.success,
            "episode_return": self.episode_return,
        }


@dataclasses.dataclass(frozen=True)
class ActionRecord:
    """What an episode is made of: replaying it through the environment gives the `Episode` back.

    Fields as in `Episode`; ``episode_return`` is checked after the replay. Where ``cut``, the episode ends after its
    last action though the environment may go on, and is truncated there.
    """

    seed: int
    action: np.ndarray
    label: np.ndarray
    label_mask: np.ndarray
    episode_return: float
    noisy: bool = False
    cut: bool = False

    @classmethod
    def of_steps(
        cls,
        seed: int,
        executed: npt.ArrayLike,
        labels: npt.ArrayLike,
        rewards: npt.ArrayLike,
        noisy: bool,
    ) -> ActionRecord:
        """The record of T steps of actions [T, *action shape], each labelled, with rewards [T]."""
        label = np.array(labels)
        return cls(
            seed=seed,
            action=np.array(executed),
            label=label,
            label_mask=np.ones(len(label), bool),
            episode_return=float(np.sum(rewards, dtype=np.float64)),
            noisy=noisy,
        )
