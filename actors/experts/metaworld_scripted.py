"""The scripted policies that ship with Meta-World: one for each of its 50 tasks, on the observation alone.

The observation holds the goal (`actors.environments.metaworld`), so a policy is a function of what an agent is given.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from metaworld.policies import ENV_POLICY_MAP

from actors.demonstrations.episode import ActionRecord
from actors.environments import metaworld
from actors.experts.disturbance import bursts
from actors.experts.expert import STEP_SECONDS, Sees, StepDeadline


class MetaWorldScripted:
    """Plays any ``metaworld/<name>-v3``; see `Expert`. ``arguments`` are the adapter's.

    An episode goes on after the task was solved, as the adapter's does, unless ``terminate_on_success`` is asked for.
    """

    name = "metaworld-scripted"
    sees: Sees = "observations"

    def __init__(self, task_name: str, arguments: dict[str, Any], step_seconds: float = STEP_SECONDS) -> None:
        self._environment = metaworld.make(task_name, 1, **arguments)
        self._task, self._step_seconds = task_name, step_seconds
        self._policy_class: Any = ENV_POLICY_MAP[task_name.removeprefix("metaworld/")]

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; ``noise`` is the standard deviation of bursts added to each of the four executed numbers."""
        deadline = StepDeadline(self.name, self._task, seed, self._step_seconds)
        policy = self._policy_class()  # some remember what they did
        noise_sources = [bursts(each, noise) for each in np.random.default_rng(seed).spawn(4)]
        state = self._environment.reset([0], [seed])["state"][0]
        labels: list[np.ndarray] = []
        executed: list[np.ndarray] = []
        rewards: list[np.float32] = []
        done = False
        while not done:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that the environment clips what they ask for
                label = np.clip(policy.get_action(np.asarray(state, np.float64)), -1, 1).astype(np.float32)
            if not np.isfinite(label).all():
                raise deadline.failed(f"its action is not finite: {label.tolist()}")
            labels.append(label)
            disturbed = label + [next(source) for source in noise_sources]
            executed.append(np.clip(disturbed, -1, 1).astype(np.float32))
            step = self._environment.step(executed[-1][None])
            state = step.observation["state"][0]
            rewards.append(step.reward[0])
            done = bool(step.done[0])
            deadline.next_step()
        return ActionRecord.of_steps(seed, executed, labels, rewards, noisy=noise > 0)
