import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.action_set import conform, write_action_set
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.open_set import wanted_settings
from actors.environments.make import make_environment


@pytest.fixture(scope="session")
def cartpole_set(tmp_path_factory):
    """Four demonstrations of CartPole-v1 by a linear controller, which keeps the pole up for all 500 steps."""
    config = ActorConfig(task="gymnasium/CartPole-v1")
    environment = make_environment(config, 1)
    records = []
    for seed in range(4):
        (observed,), actions, done, total = environment.reset([0], [seed]).values(), [], False, 0.0
        while not done:
            x, speed, angle, turn = observed[0]
            actions.append(int(angle + 0.5 * turn + 0.05 * x + 0.1 * speed > 0))
            step = environment.step(np.array(actions[-1:], np.int32))
            (observed,), done, total = step.observation.values(), bool(step.done[0]), total + float(step.reward[0])
        action = np.array(actions, np.int32)
        records.append(ActionRecord(seed, action, action, np.ones(len(action), bool), total))
    folder = tmp_path_factory.mktemp("sets") / "balance"
    write_action_set(folder, wanted_settings(config, "balance"), [conform(each, environment.task) for each in records])
    environment.close()
    return folder
