import json
import math
from pathlib import Path

import numpy as np
import pytest

from actors import reference
from actors.catalogue import actor_config, generated_names, human_score, short_name, suite_tasks
from actors.config import check_actor_config
from actors.environments.failures import UnknownTask
from actors.reference import Reference, windowed_maximum


@pytest.mark.parametrize(
    ("returns", "expected"),
    [
        ([3.0], 3.0),  # W = 1
        ([1.0, 5.0, 2.0], 5.0),
        ([0.0] * 19 + [7.0], 3.5),  # W = 2: the best stretch, not the best episode
        ([float(i) for i in range(100)], 94.5),  # W = 10: the mean of 90 to 99
        ([1.0] * 10_000 + [0.0] * 10_000, 1.0),  # W = 1000 and not 2000
        ([1.0] * 1_000 + [0.0] * 19_000, 1.0),
        ([1.0] * 500 + [0.0] * 19_500, 0.5),
    ],
)
def test_windowed_maximum(returns: list[float], expected: float) -> None:
    assert windowed_maximum(returns) == pytest.approx(expected)


def test_windowed_maximum_equals_its_definition() -> None:
    returns = np.random.default_rng(0).normal(size=257)
    means = [returns[start : start + 25].mean() for start in range(257 - 25 + 1)]
    assert windowed_maximum(returns) == pytest.approx(max(means))


@pytest.mark.parametrize("returns", [[], [1.0, math.nan]])
def test_windowed_maximum_refuses(returns: list[float]) -> None:
    with pytest.raises(ValueError, match="finite returns of at least one"):
        windowed_maximum(returns)


def test_measuring_is_repeatable_and_bounded() -> None:
    first = reference.measure("gymnasium/CartPole-v1", 3, 60.0)
    assert first == reference.measure("gymnasium/CartPole-v1", 3, 60.0)
    assert first.random is not None and first.random.episodes == 3 and first.random.cut_at is None
    assert first.random.mean == first.random.steps / 3 and first.random.standard_error is not None
    one = reference.measure("gymnasium/CartPole-v1", 3, 0.0).random
    assert one is not None and one.episodes == 1 and one.standard_error is None
    endless = reference.measure("dm_control/lqr-lqr_2_1", 1, 0.0).random
    assert endless is not None and endless.cut_at == endless.steps == reference.UNENDING_STEPS
    level = reference.measure("babyai/GoToLocal", 1, 0.0)
    assert level.texts["mission"].startswith("go to")


def test_the_table_is_written_whole_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "tasks.json"
    assert reference.read_table(path) == {}
    measured = reference.measure("gymnasium/CartPole-v1", 2, 60.0)
    score = reference.expert_score(reference.recorded("cartpole-swingup"))
    table = {"b/x": measured, "a/x": Reference(measured.task, expert=score)}
    reference.write_table(path, table)
    again = reference.read_table(path)
    assert again.keys() == table.keys() and again["a/x"].expert == score and again["b/x"].random == measured.random
    assert score.expert == "cartpole-mpc" and score.value > 800
    assert [line[:7] for line in path.read_text().splitlines()[1:3]] == [' "a/x":', ' "b/x":']  # one task a line
    for broken in ("", "[]", '{"schema": 9, "tasks": {}}', '{"schema": 1, "tasks": {"a/b": {}}}'):
        path.write_text(broken)
        with pytest.raises(ValueError, match=r"is no table of `clowder reference`.*another --out"):
            reference.read_table(path)


def test_published_scores_name_their_source() -> None:
    data = json.loads((reference.shipped_table().parent / "atari_human.json").read_text())
    assert "dqn_zoo" in data["source"] and len(data["games"]) == 57
    assert human_score("atari/montezuma_revenge") == 4753.3 and human_score("atari/adventure") is None
    assert human_score("babyai/GoTo") is None


def test_every_generated_config_is_valid_and_has_its_own_name() -> None:
    tasks = suite_tasks("all")
    assert len({short_name(task) for task in tasks}) == len(tasks) == len(generated_names())
    for task in tasks:
        config = actor_config(task)
        check_actor_config(config, short_name(task))
        assert config.task == task and generated_names()[short_name(task)] == task


def test_what_the_normalised_score_is_made_of() -> None:
    assert (actor_config("atari/alien").random_return, actor_config("atari/alien").reference_return) == (227.8, 7127.7)
    assert actor_config("dm_control/dog-walk").reference_return == 1000.0
    assert actor_config("dm_control/lqr-lqr_2_1").reference_return is None  # nobody knows it
    assert short_name("dm_control_pixels/ball_in_cup-catch") == "dm_control_pixels_ball_in_cup_catch"
    with pytest.raises(UnknownTask, match="did you mean atari/alien"):
        actor_config("atari/aliens")
    with pytest.raises(UnknownTask, match="did you mean atari51"):
        suite_tasks("atari_51")
