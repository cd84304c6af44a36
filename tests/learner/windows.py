"""Windows made in memory, so that the learner can be tested without a server."""

from __future__ import annotations

import numpy as np

from agent.task import TaskSpec
from replay.window import Window, WindowMetadata, check_window
from tests.agent.tasks import MISSIONS, random_observation, random_values


def random_window(task: TaskSpec, length: int, rng: np.random.Generator, version: int = -1) -> Window:
    """A window of random values that fits the task's signature."""
    length = 1 if task.says_text else length
    action = random_values(task.action, (length,), rng)
    texts = {key: str(rng.choice(MISSIONS)) for key, spec in task.observation.items() if spec.kind == "text"}
    window = Window(
        observation=random_observation(task, (length + 1,), rng),
        action=action,
        label=action,
        label_mask=np.ones(length, bool),
        reward=np.zeros(length, np.float32),
        terminated=np.zeros(length, bool),
        truncated=np.zeros(length, bool),
        is_first=np.zeros(length, bool),
        policy_version=np.full(length, version, np.int64),
        log_prob=np.full((length, task.action_tokens), np.nan, np.float32),
        return_asked=np.zeros((length, 3), np.float32),
        metadata=WindowMetadata(task.name, "demonstrations", "set.0", texts=texts, published_at=1.0),
    )
    check_window(window, task)
    return window


class ListStream:
    """A stream that goes round a list; an empty one has nothing."""

    def __init__(self, windows: list[Window]) -> None:
        self.windows = windows
        self._next = 0

    def available(self) -> bool:
        return bool(self.windows)

    def get(self, timeout: float) -> Window | None:
        if not self.windows:
            return None
        self._next += 1
        return self.windows[(self._next - 1) % len(self.windows)]
