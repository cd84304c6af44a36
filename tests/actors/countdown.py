"""A small real task for tests of the actor and the evaluator: the seed decides how long an episode is."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from actors.environments.failures import EnvironmentFailed
from actors.environments.vector_environment import Observation, VectorStep
from agent.config import DecodingConfig
from agent.task import ArraySpec, TaskSpec

TASK = TaskSpec(
    name="tests/countdown",
    observation={
        "left": ArraySpec("continuous", (1,)),
        "instruction": ArraySpec("text", max_bytes=16),
    },
    action=ArraySpec("discrete", num_values=2),
    random_return=0.0,
    reference_return=10.0,
    context_steps=4,
)


def episode_length(seed: int) -> int:
    """Steps of the episode of this seed: 2 to 21."""
    return 2 + seed % 20


class Countdown:
    """E counters. Reward 1 for action 1; the episode ends after `episode_length(seed)` steps, truncated if seed is odd.

    ``broken_at``: the vector step, counted over the life of the object, at which it raises; 0 for never. ``nan`` is
    what it gives there instead: an infinite ``reward``, or NaN as an ``observation``.
    """

    def __init__(self, num_envs: int, broken_at: int = 0, nan: str = "") -> None:
        self.task, self.num_envs, self.broken_at, self.nan = TASK, num_envs, broken_at, nan
        self.seeds_begun: list[list[int]] = [[] for _ in range(num_envs)]
        self.steps = 0
        self._left, self._seed = np.zeros(num_envs, np.int64), np.zeros(num_envs, np.int64)
        self._running = np.zeros(num_envs, bool)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        for slot, seed in zip(slots, seeds, strict=True):
            self._left[slot], self._seed[slot], self._running[slot] = episode_length(seed), seed, True
            self.seeds_begun[slot].append(seed)
        observation = self._observe()
        return {key: [values[slot] for slot in slots] if key == "instruction" else values[list(slots)]
                for key, values in observation.items()}  # fmt: skip

    def step(self, action: np.ndarray) -> VectorStep:
        assert action.shape == (self.num_envs,) and action.dtype == np.int32
        assert self._running.all(), "a slot that ended was stepped before its reset"
        self.steps += 1
        broken = self.steps == self.broken_at
        if broken and not self.nan:
            raise EnvironmentFailed(f"{TASK.name}: the simulator went away")
        self._left -= 1
        ended = self._left == 0
        self._running &= ~ended
        observation, reward = self._observe(), action.astype(np.float32)
        if broken and self.nan == "reward":
            reward[0] = np.inf
        elif broken:
            observation["left"][-1] = np.nan
        return VectorStep(
            observation=observation,
            reward=reward,
            terminated=ended & (self._seed % 2 == 0),
            truncated=ended & (self._seed % 2 == 1),
            success=self._seed % 3 == 0,
        )

    def render(self, slot: int) -> np.ndarray:
        return np.full((33, 47, 3), int(self._left[slot]) * 10, np.uint8)

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        return {
            "left": self._left[:, None].astype(np.float32),
            "instruction": [f"seed {seed}" for seed in self._seed],
        }


@dataclasses.dataclass(frozen=True)
class ConstantAction:
    """The two fields of a policy's action that the actor reads."""

    action: np.ndarray
    log_prob: np.ndarray


class ConstantPolicy:
    """Plays one action for ever, with the methods of `agent.policy.Policy` that the loops call."""

    def __init__(self, num_envs: int, action: int = 1, version: int = 7, published_at: float = 0.0) -> None:
        self.num_slots, self.version, self.published_at = num_envs, version, published_at
        self.decoding = DecodingConfig()
        self._action = ConstantAction(np.full(num_envs, action, np.int32), np.zeros((num_envs, 1), np.float32))
        self.first_flags: list[np.ndarray] = []

    def act(self, observation: Observation, is_first: np.ndarray) -> ConstantAction:
        assert observation["left"].shape == (self.num_slots, 1) and len(observation["instruction"]) == self.num_slots
        self.first_flags.append(is_first.copy())
        return self._action

    def rewarded(self, reward: np.ndarray) -> None:
        assert reward.shape == (self.num_slots,)

    def asked(self) -> None:
        """No return is asked for."""

    def action_value(self) -> np.ndarray:
        """There is no critic."""
        return np.full(self.num_slots, np.nan)

    def asked_return(self) -> np.ndarray:
        """The number of times that it was asked to act, so that a test sees when it was read."""
        return np.full(self.num_slots, float(len(self.first_flags)))
