"""Small real sets for the tests of demonstrations."""

from __future__ import annotations

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.episode import ActionRecord
from actors.environments.make import make_environment

CARTPOLE = ActorConfig(task="gymnasium/CartPole-v1")
BABYAI = ActorConfig(task="babyai/GoToRedBallGrey", expert="babyai-bot")
BOXING = ActorConfig(task="atari/boxing", arguments={"max_episode_steps": 12})


def played(config: ActorConfig, seed: int, noisy: bool = False) -> ActionRecord:
    """One episode of random actions; the label of every third step differs and that of every fifth is masked."""
    environment = make_environment(config, 1)
    task, generator = environment.task, np.random.default_rng(seed)
    environment.reset([0], [seed])
    actions, rewards, done = [], 0.0, False
    while not done:
        if task.action.kind == "discrete":
            action = generator.integers(0, task.action.num_values, (1, *task.action.shape)).astype(np.int32)
        else:
            action = generator.uniform(-1, 1, (1, *task.action.shape)).astype(np.float32)
        step = environment.step(action)
        actions.append(action[0])
        rewards += float(step.reward[0])
        done = bool(step.done[0])
    environment.close()
    action = np.array(actions)
    label = action.copy()
    label[::3] = 0
    mask = np.arange(len(action)) % 5 != 4
    return ActionRecord(seed, action, label, mask, rewards, noisy)
