"""`BestPrompt`: the beginning of the best of the newest episodes, for a policy to read before its own."""

from __future__ import annotations

import collections

import numpy as np

from agent.context import Prompt
from agent.task import TaskSpec

NEWEST = 64
"""Episodes among which the best is looked for."""


class BestPrompt:
    """Remembers how the episodes of E slots began.

    Args:
        task: whose context a prompt takes half of (Reed et al. 2022, section 2.2, as in training).
        num_slots: E.

    Attributes:
        episode_id: of the episode whose beginning is to be read now; None at first.

    Raises:
        ValueError: the task's context has no room for a prompt.
    """

    def __init__(self, task: TaskSpec, num_slots: int) -> None:
        self.steps = task.context_steps // 2
        if self.steps < 1 or task.says_text:
            raise ValueError(f"a context of {task.context_steps} timesteps has no room for a prompt; use none")
        self._observations: list[list[dict[str, np.ndarray]]] = [[] for _ in range(num_slots)]
        self._actions: list[list[np.ndarray]] = [[] for _ in range(num_slots)]
        self._texts: list[dict[str, str]] = [{} for _ in range(num_slots)]
        self._ids = [""] * num_slots
        self._newest: collections.deque[tuple[float, str, Prompt]] = collections.deque(maxlen=NEWEST)
        self.episode_id: str | None = None

    def begin(self, slot: int, texts: dict[str, str], episode_id: str) -> None:
        """An episode begins."""
        self._observations[slot], self._actions[slot], self._texts[slot] = [], [], dict(texts)
        self._ids[slot] = episode_id

    def step(self, slot: int, observation: dict[str, np.ndarray], action: np.ndarray) -> None:
        """A timestep of it: what was seen, and what was done then."""
        if len(self._actions[slot]) < self.steps:
            self._observations[slot].append({key: np.copy(value) for key, value in observation.items()})
            self._actions[slot].append(np.copy(action))

    def end(self, slot: int, episode_return: float) -> Prompt | None:
        """It ended: the prompt to read from now on, where that is another one than before."""
        seen, done = self._observations[slot], np.stack(self._actions[slot])
        observation = {key: np.stack([each[key] for each in seen]) for key in seen[0]}
        self._newest.append((episode_return, self._ids[slot], Prompt(observation, self._texts[slot], done)))
        _, episode_id, best = max(reversed(self._newest), key=lambda played: played[0])  # of equal ones the newest
        if episode_id == self.episode_id:
            return None
        self.episode_id = episode_id
        return best
