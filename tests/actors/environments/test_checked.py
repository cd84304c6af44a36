from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.environments import gymnasium_any
from actors.environments.checked import CheckedEnvironment
from actors.environments.failures import InvalidEnvironmentOutput
from actors.environments.make import make_environment


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


def counting(fault: str = "", num_envs: int = 3, faulty_slot: int = 2) -> CheckedEnvironment:
    environment = gymnasium_any.make("tests/counting", num_envs, entry_point="misbehaving:counting")
    environment._environments[faulty_slot].fault = fault
    return CheckedEnvironment(environment)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("nan reward", "reward is nan"),
        ("nan observation", r"state is not finite at \(0,\): nan"),
        ("infinite observation", r"state is not finite at \(1,\): inf"),
        ("wrong shape", r"'state' has shape \(3,\)"),
        ("missing key", "'state' is missing"),
        ("out of range", "count is not in 0 to 10: 11"),
        ("changing text", "goal changed from 'seed 3' to 'another'"),
        ("long text", "goal has 1000 bytes, the task says at most 20"),
    ],
)
def test_bad_output_is_refused_with_task_slot_and_step(fault: str, message: str) -> None:
    environment = counting(fault)
    environment.reset([0, 1, 2], [1, 2, 3])
    action = np.ones(3, np.int32)
    environment.step(action)
    environment.step(action)
    with pytest.raises(InvalidEnvironmentOutput, match=message) as caught:
        environment.step(action)
    assert "tests/counting, slot 2, step 3 of the episode" in str(caught.value)


def test_a_step_counts_from_the_slots_own_reset_and_text_may_change_between_episodes() -> None:
    environment = counting("nan reward", num_envs=2, faulty_slot=1)
    environment.reset([0, 1], [1, 2])
    action = np.ones(2, np.int32)
    environment.step(action)
    environment.reset([1], [9])
    environment.step(action)
    environment.step(action)
    with pytest.raises(InvalidEnvironmentOutput, match="slot 1, step 3 of"):
        environment.step(action)


def test_an_ended_or_never_begun_episode_is_not_stepped() -> None:
    environment = counting(num_envs=2, faulty_slot=0)
    environment.reset([0], [1])
    action = np.ones(2, np.int32)
    with pytest.raises(RuntimeError, match="slot 1: reset it"):
        environment.step(action)
    environment.reset([1], [1])
    while not environment.step(action).done.any():
        pass
    with pytest.raises(RuntimeError, match="slot 0: reset it"):
        environment.step(action)


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (np.array([0, 3], np.int32), "actions are 0 to 2"),
        (np.array([0, -1], np.int32), "actions are 0 to 2"),
        (np.array([0], np.int32), "action is int32"),
        (np.array([0.0, 1.0], np.float32), "action is float32"),
    ],
)
def test_actions_that_no_task_has(action: np.ndarray, message: str) -> None:
    environment = counting(num_envs=2, faulty_slot=0)
    environment.reset([0, 1], [1, 2])
    with pytest.raises(ValueError, match=message):
        environment.step(action)


def test_a_continuous_action_that_is_not_finite() -> None:
    environment = make_environment(ActorConfig(task="gymnasium/Pendulum-v1"), 1)
    environment.reset([0], [0])
    with pytest.raises(ValueError, match="not finite"):
        environment.step(np.full((1, 1), np.nan, np.float32))


def test_vector_output_of_another_form_is_refused() -> None:
    """Real environments whose adapter was given the wrong task: dtypes, shapes and keys of all slots at once."""
    environment = gymnasium_any.make("gymnasium/CartPole-v1", 2)
    other = gymnasium_any.make("gymnasium/MountainCar-v0", 2)
    wrong_shape = CheckedEnvironment(environment)
    wrong_shape.task = other.task
    with pytest.raises(InvalidEnvironmentOutput, match=r"all slots, step 0 .* observation is float32 \(2, 4\), not"):
        wrong_shape.reset([0, 1], [0, 1])
    wrong_keys = CheckedEnvironment(environment)
    wrong_keys.task = counting().task
    with pytest.raises(InvalidEnvironmentOutput, match=r"has keys \['observation'\], not \['count', 'goal', 'state'\]"):
        wrong_keys.reset([0, 1], [0, 1])


def test_checking_is_cheap() -> None:
    """27 microseconds a vector step of 8 BabyAI slots where a quiet machine measured it: 6% of the step."""
    config = ActorConfig(task="babyai/GoToLocal")
    checked = make_environment(config, 8)
    still = np.full(8, 6, np.int32)
    seconds: dict[str, list[float]] = {"checked": [], "bare": []}
    for _ in range(5):
        for name, environment in (("checked", checked), ("bare", checked.environment)):
            checked.reset(range(8), range(8))
            start = time.perf_counter()
            for _ in range(60):
                environment.step(still)
            seconds[name].append((time.perf_counter() - start) / 60)
    extra = np.median(seconds["checked"]) - np.median(seconds["bare"])
    print(f"checking costs {extra * 1e6:.0f} us a vector step of {np.median(seconds['bare']) * 1e6:.0f} us")
    assert extra < 500e-6  # far above what was measured: the machine of a test may be busy
