"""Small real Gymnasium environments, reached by ``entry_point: misbehaving:<function>``; most break a rule."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Counting(gymnasium.Env):
    """Ten steps; a float observation of the step, and the episode's seed as text. ``fault`` breaks a rule at step 3."""

    def __init__(self, fault: str = "", at: int = 3):
        self.fault, self.at = fault, at
        self.observation_space = spaces.Dict(
            {
                "state": spaces.Box(-np.inf, np.inf, (2,), np.float64),
                "count": spaces.Discrete(11, start=-5),
                "goal": spaces.Text(max_length=20),
            }
        )
        self.action_space = spaces.Discrete(3, start=-1)
        self.executed: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.count, self.goal = 0, f"seed {seed}"
        if self.fault == "reset raises":
            raise OSError("no such level")
        if self.fault == "old reset":
            return self.observe()
        return self.observe(), {}

    def observe(self) -> dict[str, Any]:
        return {"state": np.array([self.count, 0.5]), "count": self.count - 5, "goal": self.goal}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in the action space"
        self.executed.append(action)
        self.count += 1
        observation, reward = self.observe(), 1.0
        if self.count == self.at:
            if self.fault == "nan reward":
                reward = np.nan
            elif self.fault == "infinite observation":
                observation["state"][1] = np.inf
            elif self.fault == "nan observation":
                observation["state"][0] = np.nan
            elif self.fault == "wrong shape":
                observation["state"] = np.zeros(3)
            elif self.fault == "missing key":
                del observation["state"]
            elif self.fault == "out of range":
                observation["count"] = 6
            elif self.fault == "changing text":
                observation["goal"] = "another"
            elif self.fault == "long text":
                observation["goal"] = "x" * 1000
            elif self.fault == "text reward":
                reward = "much"
            elif self.fault == "step raises":
                raise ZeroDivisionError("simulator broke")
            elif self.fault == "old step":
                return observation, reward, False, {}
        done = self.count == 10
        return observation, reward, done, False, {"is_success": self.count == 10} if done else {}


def counting(**arguments: Any) -> gymnasium.Env:
    return Counting(**arguments)


class Spaces(gymnasium.Env):
    """Samples of any spaces; remembers the actions executed."""

    def __init__(self, observation: spaces.Space, action: spaces.Space):
        self.observation_space, self.action_space = observation, action
        self.executed: list[Any] = []
        self.shown: list[Any] = []

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.shown.append(self.observation_space.sample())
        return self.shown[-1], {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), f"{action!r} is not in {self.action_space}"
        self.executed.append(action)
        self.shown.append(self.observation_space.sample())
        return self.shown[-1], 0.0, False, False, {}


def not_an_environment() -> str:
    return "surprise"
