"""Which episodes are replayed: the windowed maximum, the filter, the best few, and what cannot work."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from actors.config import check_actor_config
from actors.demonstrations.action_set import write_action_set
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.open_set import open_set, wanted_settings
from actors.demonstrations.selection import expert_return, kept_episodes
from tests.actors.demonstrations.sets import CARTPOLE


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([3.0], 3.0),
        ([1.0, 9.0, 2.0], 9.0),  # a window of one
        ([0.0] * 10 + [4.0, 6.0] + [0.0] * 8, 5.0),  # of two: neighbours only
        ([0.0] * 19 + [6.0], 3.0),
        ([-5.0] * 20, -5.0),
        ([0.0] * 9_000 + [2.0] * 1_000 + [0.0] * 10_000, 2.0),  # at most a thousand
    ],
)
def test_the_expert_return_is_the_best_mean_of_a_window(returns: list[float], expected: float) -> None:
    assert expert_return(np.array(returns)) == pytest.approx(expected)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns 1 to 20 in a mixed order; every fifth episode is noisy; random play gives 2."""
    returns = np.random.default_rng(0).permutation(20) + 1.0
    records = [
        ActionRecord(i, np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, bool), float(each), noisy=i % 5 == 4)
        for i, each in enumerate(returns)
    ]
    write_action_set(tmp_path, dataclasses.replace(wanted_settings(CARTPOLE, "nobody"), random_return=2.0), records)
    return tmp_path


def test_filter_and_top_keep_what_they_say_and_leave_the_scores_alone(folder: Path) -> None:
    opened = open_set(folder, CARTPOLE)

    def kept(**changes: object) -> np.ndarray:
        config = dataclasses.replace(CARTPOLE, demonstrations=str(folder), **changes)
        check_actor_config(config, "cartpole")
        return kept_episodes(opened, config)

    assert kept().tolist() == list(range(20))
    expert = expert_return(opened.returns[~opened.noisy])
    bound = 2.0 + 0.8 * (expert - 2.0)
    assert kept(demonstrations_filter=0.8).tolist() == np.flatnonzero(opened.returns >= bound).tolist()
    assert 0 < len(kept(demonstrations_filter=0.8)) < 20
    best = kept(demonstrations_top=3)
    assert sorted(opened.returns[best]) == [18, 19, 20] and best.tolist() == sorted(best)
    assert kept(demonstrations_top=99).tolist() == list(range(20))
    both = kept(demonstrations_filter=0.8, demonstrations_top=2)
    assert set(opened.returns[both]) == {19, 20}
    assert opened.demonstrator_return == opened.returns[~opened.noisy].mean()


def test_a_filter_that_leaves_nothing_says_so(folder: Path) -> None:
    opened = open_set(folder, CARTPOLE)
    opened.returns = np.where(opened.noisy, opened.returns, -10.0)
    opened.returns[opened.noisy] = -11.0
    opened.settings = dataclasses.replace(opened.settings, random_return=0.0)
    with pytest.raises(ValueError, match=r"demonstrations_filter=0\.5 leaves no episode.*lower it"):
        kept_episodes(opened, dataclasses.replace(CARTPOLE, demonstrations_filter=0.5))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("demonstrations_filter", 0.0),
        ("demonstrations_filter", 1.1),
        ("demonstrations_filter", float("nan")),
        ("demonstrations_top", 0),
        ("num_replayers", 0),
    ],
)
def test_values_that_cannot_work_are_refused_by_their_key(key: str, value: object) -> None:
    with pytest.raises(ValueError, match=rf"actors\.cartpole\.{key} must be"):
        check_actor_config(dataclasses.replace(CARTPOLE, demonstrations="somewhere", **{key: value}), "cartpole")


@pytest.mark.parametrize("key", ["demonstrations_filter", "demonstrations_top"])
def test_without_demonstrations_there_is_nothing_to_keep(key: str) -> None:
    with pytest.raises(ValueError, match="needs demonstrations"):
        check_actor_config(dataclasses.replace(CARTPOLE, **{key: 1}), "cartpole")
