"""When a task counts as solved and held, and the environment that PPO is given."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from actors.config import ActorConfig
from studies.from_nothing import Adapted, Point, between, held, panel, solved_at


def points(*returns: float) -> list[Point]:
    return [Point(1000 * number, value) for number, value in enumerate(returns, 1)]


@pytest.mark.parametrize(
    ("returns", "at", "kept"),
    [
        ((500, 500, 100, 480, 475, 490, 500), 4000, True),
        ((480, 480, 480, 100), 1000, False),
        ((480, 480, 100, 480, 480), None, False),
        ((), None, False),
    ],
)
def test_solved_is_the_first_of_three_in_a_row_and_held_is_ever_after(
    returns: tuple[float, ...], at: int | None, kept: bool
) -> None:
    assert solved_at(points(*returns), 475) == at
    assert held(points(*returns), 475) is kept


def test_curves_are_of_both_agents_where_both_played() -> None:
    runs = [{"points": [{"environment_steps": 1000, "mean_return": 20.0}]}]
    both = panel("cartpole", {"bar": 475.0, "clowder": runs, "ppo": runs})
    assert both.curves == {"Clowder": [{1000: 20.0}], "PPO": [{1000: 20.0}]} and both.levels == {"solved": 475.0}
    assert list(panel("cartpole", {"bar": 475.0, "clowder": runs, "ppo": []}).curves) == ["Clowder"]


def test_ppo_plays_what_clowder_plays() -> None:
    config = ActorConfig(task="dm_control/cartpole-balance", arguments={"action_grid": 3, "action_repeat": 4})
    environment = Adapted(config, seed=5)
    check_env(environment)
    first, _ = environment.reset(seed=7)
    again, _ = environment.reset(seed=7)
    assert np.array_equal(first, again) and first.shape == (5,)
    rewards = [environment.step(1) for _ in range(250)]
    assert [step[3] for step in rewards] == [False] * 249 + [True]
    assert 0 < sum(step[1] for step in rewards) <= 1000
    environment.close()


def test_no_episode_of_ppo_is_played_twice() -> None:
    """Whether or not the first one of an environment has a seed of the algorithm's."""
    config = ActorConfig(task="gymnasium/CartPole-v1")
    environments = [Adapted(config, seed=40 + place, stride=3) for place in range(3)]
    environments[0].reset(seed=7)
    starts = [environment.reset()[0] for environment in environments for _ in range(4)]
    for environment in environments:
        environment.close()
    assert len(np.unique(starts, axis=0)) == 12


def test_ppo_is_evaluated_as_often_as_clowder() -> None:
    assert between("cartpole", []) == 4000
    assert between("cartpole", ["evaluation.every_steps=100", "cluster.serial_steps=2"]) == 1600
