"""Which episodes an actor offers to the table of the best."""

import numpy as np

from actors.environment_actor import BestFilter


def test_a_quarter_of_the_newest_episodes_is_best_whatever_the_level() -> None:
    rng = np.random.default_rng(0)
    for level in (0.0, 1000.0):
        is_best = BestFilter()
        offered = [is_best(level + value) for value in rng.normal(size=1000)]
        assert 0.2 < np.mean(offered[100:]) < 0.3
    assert not is_best(level - 100.0) and is_best(level + 100.0)


def test_equal_episodes_are_all_best() -> None:
    is_best = BestFilter()
    assert all(is_best(1.0) for _ in range(100))
