"""Ways and their replays become sets that the task's own adapter plays again, point for point."""

from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.open_set import open_set
from actors.explorer.demonstrations import (
    StickyReplays,
    Way,
    best_way,
    replay,
    stickiness,
    sticky_replays,
    without_sticky_actions,
    write_replays,
    write_ways,
)
from actors.explorer.emulator import Emulator
from actors.explorer.explorer import Explorer, ExplorerSettings

FREEWAY = ActorConfig("atari/freeway", random_return=0.0)


@pytest.fixture(scope="module")
def way() -> Way:
    explorer = Explorer(ExplorerSettings(FREEWAY.task))
    while explorer.progress.best < 1:
        explorer.run()
    found = best_way(explorer)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def replays(way: Way) -> StickyReplays:
    """Of two ways in turn: the second asks for a point more than its actions earn."""
    more = Way(way.settings, way.actions, way.sums + (np.arange(len(way.sums)) == len(way.sums) - 1))
    *_, last = sticky_replays([way, more], 0.25, 8, partial_share=0.25, first_seed=500)
    return last


def test_nothing_found_is_no_way() -> None:
    explorer = Explorer(ExplorerSettings("atari/montezuma_revenge"))
    explorer.run()
    assert best_way(explorer) is None


def test_a_way_is_cut_at_its_last_point_and_comes_out_the_same_in_the_adapter(tmp_path: Path, way: Way) -> None:
    assert way.score >= 1 and way.sums[-1] > way.sums[-2]
    settings = write_ways(tmp_path, FREEWAY, [way])
    assert (settings.expert, settings.arguments["repeat_action_probability"]) == ("go-explore", 0.0)
    opened = open_set(tmp_path, without_sticky_actions(FREEWAY))
    episode = opened.episode(0)
    opened.close()
    assert np.array_equal(episode.reward.cumsum(), way.sums)
    assert (episode.truncated, episode.terminated, episode.noisy) == (True, False, False)
    with pytest.raises(DemonstrationSetError, match=r"repeat_action_probability=0\.0, the actor config gives"):
        open_set(tmp_path, FREEWAY)


def test_replays_are_what_the_adapter_plays_for_their_seeds(tmp_path: Path, way: Way, replays: StickyReplays) -> None:
    assert replays.tried == 8 and 2 <= len(replays.whole) <= 4 and len(replays.partial) == 2
    settings = write_replays(tmp_path, FREEWAY, replays)
    assert settings.arguments["repeat_action_probability"] == stickiness(FREEWAY) == 0.25
    assert settings.failed_episodes == 8 - len(replays.whole) - 2
    opened = open_set(tmp_path, FREEWAY)
    assert opened.demonstrator_return >= way.score  # partial replays are not the demonstrator's
    found = [item[1] for item in opened.episodes(range(opened.num_episodes)) if item is not None]
    opened.close()
    assert len(found) == len(replays.whole) + 2
    for episode in found:
        assert episode.truncated and episode.reward[-1] > 0
        assert episode.noisy == (episode.seed % 2 == 1)
        asked = way.actions[: episode.length]
        assert np.array_equal(episode.action[: len(asked)], asked)
        assert np.array_equal(episode.label, episode.action)


def test_a_replay_without_sticky_actions_is_the_way(way: Way) -> None:
    found = replay(way, sticky=0.0, seed=0)
    assert found.whole and found.record is not None
    assert np.array_equal(found.record.action, way.actions)
    assert found.record.cut and not found.record.noisy


def test_a_replay_that_falls_behind_is_given_up(way: Way) -> None:
    idle = Way(way.settings, np.zeros_like(way.actions), way.sums)
    found = replay(idle, sticky=0.25, seed=0)
    assert found.record is None and not found.whole


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"first_seed": 999_999}, "seeds of replays are 0 to"), ({"partial_share": 1.5}, "between 0 and 1")],
)
def test_wrong_replays_are_refused(way: Way, wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        next(sticky_replays([way], 0.25, **{"count": 2} | wrong))


def test_the_emulator_refuses_a_damaged_state() -> None:
    game = Emulator("atari/pong")
    for state in (b"", b"nonsense", game.state()[:-50]):
        with pytest.raises(ValueError, match="damaged"):
            game.restore(state)
