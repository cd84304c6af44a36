import itertools
import time

import numpy as np
import pytest

from actors.demonstrations.episode import ActionRecord
from actors.environments import dm_control
from actors.experts.cartpole_mpc import (
    TASK,
    CartpoleMPC,
    Planner,
    PlannerSettings,
    reward,
    reward_derivatives,
)
from actors.experts.disturbance import bursts

SHORT = {"time_limit": 1.2}  # seconds; the pole is on its way up by then


def replayed_return(record: ActionRecord, **arguments: float) -> float:
    environment = dm_control.make(TASK, 1, **arguments)
    environment.reset([0], [record.seed])
    steps = [environment.step(action[None]) for action in record.action]
    assert [bool(step.done[0]) for step in steps] == [False] * (len(steps) - 1) + [True]
    return float(np.sum([step.reward[0] for step in steps], dtype=np.float64))


def test_the_planners_reward_is_the_suites() -> None:
    environment = dm_control.make(TASK, 1)
    environment.reset([0], [0])
    data = environment.environments[0].physics.data
    random = np.random.default_rng(0)
    for _ in range(50):
        data.qpos[:], data.qvel[:] = random.normal(size=2) * [0.5, 3], random.normal(size=2) * 5
        action = random.uniform(-1, 1, (1, 1)).astype(np.float32)
        given = environment.step(action).reward[0]
        ours = reward(np.concatenate([data.qpos, data.qvel]), np.float64(action[0, 0]))
        assert ours == pytest.approx(given, abs=1e-6)


def test_derivatives_of_the_reward() -> None:
    random = np.random.default_rng(0)
    state, control = random.normal(size=(8, 4)), random.uniform(-0.9, 0.9, 8)
    gradient, hessian = reward_derivatives(state, control)
    unit = np.eye(5) * 1e-4

    def at(shift: np.ndarray) -> np.ndarray:
        return reward(state + shift[:4], control + shift[4])

    for i in range(5):
        np.testing.assert_allclose((at(unit[i]) - at(-unit[i])) / 2e-4, gradient[:, i], atol=1e-7)
        for j in range(5):
            plus, minus = unit[i] + unit[j], unit[i] - unit[j]
            numeric = (at(plus) + at(-plus) - at(minus) - at(-minus)) / 4e-8
            np.testing.assert_allclose(numeric, hessian[:, i, j], atol=1e-6)


def test_labels_change_smoothly_with_the_state_around_the_balance() -> None:
    environment = dm_control.make(TASK, 1)
    planner = Planner(environment.environments[0].physics.model.ptr, PlannerSettings(horizon=100))
    labels = []
    for angle in np.linspace(-0.04, 0.04, 9):
        planner.begin(np.array([0.0, angle, 0.0, 0.0]), np.zeros(100))
        labels.append(planner.controls[0])
    slopes = np.diff(labels)
    assert (slopes > 0).all()  # leaning right, push right
    assert slopes.max() < 1.5 * slopes.min()
    np.testing.assert_allclose(labels, -np.array(labels)[::-1], atol=5e-3)  # and symmetric


def test_noise_comes_in_bursts_and_changes_slowly_within_one() -> None:
    noise = np.array(list(itertools.islice(bursts(np.random.default_rng(0), 0.5), 100_000)))
    active = noise != 0
    edges = np.flatnonzero(np.diff(active.astype(int))) + 1
    lengths = np.diff(edges)
    quiet, loud = sorted((lengths[::2], lengths[1::2]), key=lambda each: each.mean(), reverse=True)
    assert quiet.min() >= 50 and quiet.max() < 200
    assert loud.min() >= 30 and loud.max() < 100
    assert noise[active].std() == pytest.approx(0.5, rel=0.05)
    inside = active[:-1] & active[1:]
    correlation = np.corrcoef(noise[:-1][inside], noise[1:][inside])[0, 1]
    assert correlation == pytest.approx(np.exp(-0.01 / 0.2), abs=0.02)
    assert not any(itertools.islice(bursts(np.random.default_rng(0), 0.0), 1000))


@pytest.mark.long
def test_swings_up_and_replays_to_the_same_return() -> None:
    expert = CartpoleMPC(TASK, SHORT)
    clean = expert.play(seed=4)
    assert clean.action.shape == clean.label.shape == (120, 1) and clean.action.dtype == np.float32
    assert not clean.noisy and clean.label_mask.all()
    np.testing.assert_array_equal(clean.action, clean.label)
    assert clean.episode_return > 8  # a random policy has 3 by then
    assert replayed_return(clean, **SHORT) == clean.episode_return

    noisy = expert.play(seed=4, noise=0.3)
    assert noisy.noisy and noisy.episode_return > 6
    assert np.abs(noisy.action).max() <= 1
    disturbed = (np.abs(noisy.action) < 1) & (noisy.action != noisy.label)
    assert 10 < disturbed.sum() < 110  # in bursts, with quiet between
    assert 0.1 < (noisy.action - noisy.label)[disturbed].std() < 0.6
    assert replayed_return(noisy, **SHORT) == noisy.episode_return


def test_other_tasks_are_refused() -> None:
    with pytest.raises(ValueError, match="cartpole-swingup only"):
        CartpoleMPC("dm_control/cheetah-run", {})


@pytest.mark.learning
def test_a_whole_episode_in_a_minute() -> None:
    """About 20 CPU-seconds each."""
    expert = CartpoleMPC(TASK, {})
    for seed in (100, 101):
        before = time.process_time()
        record = expert.play(seed)
        assert record.episode_return > 850 and time.process_time() - before < 60
        assert replayed_return(record) == record.episode_return
