"""A grid of actions, and holding them, in DM Control: what is paid does not change."""

import numpy as np
import pytest

from actors.environments import dm_control
from actors.environments.action_grid import ActionGrid
from actors.experts.cartpole_mpc import CartpoleMPC
from actors.experts.dm_control_mpc import DMControlMPC

TASK = "dm_control/cartpole-swingup"


def test_every_combination_has_its_number_and_comes_back() -> None:
    grid = ActionGrid(2, 3)
    assert grid.spec.num_values == 9
    values = grid.values(np.arange(9, dtype=np.int32))
    assert values[:4].tolist() == [[-1, -1], [-1, 0], [-1, 1], [0, -1]]
    assert grid.nearest(values).tolist() == list(range(9))
    assert grid.nearest(np.array([[0.4, -7.0], [0.6, 0.1]])).tolist() == [3, 7]


@pytest.mark.parametrize(("elements", "points"), [(1, 1), (2, 0), (4, 6)])
def test_a_grid_of_too_few_levels_or_too_many_actions_is_refused(elements: int, points: int) -> None:
    with pytest.raises(ValueError, match="action_grid must be at least 2"):
        ActionGrid(elements, points)
    with pytest.raises(ValueError, match=r"dm_control/walker-walk: action_grid.*6 numbers"):
        dm_control.make("dm_control/walker-walk", 1, action_grid=4)
    with pytest.raises(ValueError, match="action_repeat must be at least 1"):
        dm_control.make(TASK, 1, action_repeat=0)


def test_held_actions_pay_what_the_same_numbers_pay_step_by_step() -> None:
    plain, coarse = dm_control.make(TASK, 1), dm_control.make(TASK, 2, action_grid=5, action_repeat=4)
    assert coarse.task.action.num_values == 5
    assert (coarse.task.max_episode_steps, coarse.task.action_repeat) == (250, 4 * plain.task.action_repeat)
    plain.reset([0], [7])
    coarse.reset([0, 1], [7, 8])
    random = np.random.default_rng(0)
    for count in range(250):
        action = random.integers(0, 5, 2).astype(np.int32)
        numbers = np.full((1, 1), action[0] / 2 - 1, np.float32)
        steps = [plain.step(numbers) for _ in range(4)]
        held = coarse.step(action)
        assert held.reward[0] == pytest.approx(sum(step.reward[0] for step in steps), abs=1e-5)
        assert np.array_equal(held.observation["position"][0], steps[-1].observation["position"][0])
        assert held.truncated.tolist() == [count == 249] * 2
    plain.close()
    coarse.close()


def test_the_controller_plays_with_a_grid_and_held_actions() -> None:
    arguments = {"action_grid": 5, "action_repeat": 4, "time_limit": 2.0}
    record = DMControlMPC(TASK, arguments).play(seed=1, noise=0.5)
    assert record.action.shape == record.label.shape == (50,) and record.action.dtype == np.int32
    assert (record.action != record.label).any() and np.abs(record.action - record.label).max() <= 4
    environment = dm_control.make(TASK, 1, **arguments)
    environment.reset([0], [1])
    again = sum(float(environment.step(action[None]).reward[0]) for action in record.action)
    environment.close()
    assert record.episode_return == pytest.approx(again)
    with pytest.raises(ValueError, match="choose dm-control-mpc"):
        CartpoleMPC(TASK, arguments)
