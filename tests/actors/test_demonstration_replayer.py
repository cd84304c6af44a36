"""The replayer against a real replay server: each episode once and whole, from either form, also after a restart."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstration_replayer import DemonstrationReplayer
from actors.demonstrations.demonstration_set import DemonstrationSet, DemonstrationSetError
from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import pack_action_set, record
from actors.environments.make import task_spec
from replay.config import ReplayConfig
from replay.sampler import WindowSampler
from replay.server import ServerHandle, start_replay_server
from replay.table_info import poll
from replay.tables import table_for
from replay.window import Window, check_window
from replay.writer import EpisodeWriter
from tests.actors.demonstrations.sets import BABYAI, CARTPOLE, played

CONFIG = ReplayConfig(window_length=16, window_stride=8, demonstrations_capacity=5000)
EPISODES = 12


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sets")
    records = [played(CARTPOLE, seed, noisy=seed % 2 == 1) for seed in range(EPISODES)]
    pack_action_set(folder / "cartpole", CARTPOLE, "nobody", records, 22.0)
    record(BABYAI, "babyai-bot", EPISODES, folder / "babyai", noise_levels=[0.3], random_seconds=0)
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    with start_replay_server([task_spec(config) for config in (CARTPOLE, BABYAI)], CONFIG) as handle:
        yield handle


def replayer(opened: DemonstrationSet, server: ServerHandle, **arguments) -> DemonstrationReplayer:
    writer = EpisodeWriter(server.address, opened.settings.task, "demonstrations", CONFIG)
    return DemonstrationReplayer(opened, writer, **arguments)


def inserted(server: ServerHandle, config: ActorConfig, source: str) -> int:
    """Windows ever inserted: the server is shared by the tests."""
    return poll(server.address)[table_for(config.task, source)].inserts


def drawn(server: ServerHandle, config: ActorConfig, windows: int) -> list[Window]:
    sampler = WindowSampler(server.address, task_spec(config), "demonstrations", CONFIG)
    try:
        got = [sampler.get(timeout=20) for _ in range(windows)]
    finally:
        sampler.close()
    assert None not in got
    return got


@pytest.mark.parametrize(("name", "config"), [("cartpole", CARTPOLE), ("babyai", BABYAI)])
def test_the_whole_set_is_in_replay_as_it_was_recorded(name, config: ActorConfig, sets: Path, server) -> None:
    opened = open_set(sets / name, config)
    streaming = replayer(opened, server, seed=3)
    streaming.run(episodes=1)
    assert not streaming.done and streaming.report().episodes == 1
    streaming.run(episodes=1000)
    report = streaming.report()
    assert streaming.done and report.done and report.episodes == report.num_episodes == EPISODES
    assert report.steps == opened.lengths.sum() and report.cursor == [EPISODES]
    assert json.loads(json.dumps(report.cursor)) == report.cursor
    assert set(report.seconds) == {"episodes", "writer", "blocked"}
    episodes = [opened.episode(index) for index in range(EPISODES)]
    assert streaming.close(deadline=20)
    assert inserted(server, config, "demonstrations") == report.windows
    assert inserted(server, config, "ends") == EPISODES
    assert inserted(server, config, "good") == inserted(server, config, "online") == 0

    seen = set()
    for window in drawn(server, config, 30 * EPISODES):
        check_window(window, opened.settings.task)
        about, start = window.metadata, window.metadata.start_step
        episode = episodes[about.episode_index]
        seen.add(about.episode_index)
        assert about.episode_id == f"{name}.{about.episode_index}" and about.environment_seed == episode.seed
        assert about.source == "demonstrations" and about.expert == opened.settings.expert
        assert about.texts == episode.texts and about.episode_return == episode.episode_return
        steps = slice(start, start + window.length)
        for column in ("action", "label", "label_mask"):
            assert np.array_equal(getattr(window, column), getattr(episode, column)[steps])
        for key, values in episode.observation.items():
            assert np.array_equal(window.observation[key], values[start : start + window.length + 1])
        assert (window.policy_version == -1).all() and np.isnan(window.log_prob).all()
        assert window.terminated.any() == (episode.terminated and steps.stop == episode.length)
    assert seen == set(range(EPISODES))


@pytest.mark.parametrize("before", [0, 1, 5, EPISODES])
def test_a_restart_at_the_cursor_writes_the_rest_and_nothing_twice(before: int, sets: Path, server) -> None:
    windows_before, ends_before = (inserted(server, CARTPOLE, source) for source in ("demonstrations", "ends"))
    first = replayer(open_set(sets / "cartpole", CARTPOLE), server, seed=1)
    first.run(episodes=before)
    cursor, windows = first.cursor, first.report().windows
    assert first.close(deadline=20)
    second = replayer(open_set(sets / "cartpole", CARTPOLE), server, seed=1, cursor=cursor)
    assert second.done == (before == EPISODES)
    second.run(episodes=1000)
    assert second.done and second.close(deadline=20)
    windows += second.report().windows
    assert inserted(server, CARTPOLE, "demonstrations") - windows_before == windows
    assert inserted(server, CARTPOLE, "ends") - ends_before == EPISODES
    lengths = open_set(sets / "cartpole", CARTPOLE).lengths
    assert first.report().steps + second.report().steps == lengths.sum()


@pytest.mark.parametrize(("shards", "keep"), [(3, None), (2, [0, 3, 4, 7, 9]), (5, [6])])
def test_shards_write_each_kept_episode_once_also_after_a_restart(shards, keep, sets: Path, server) -> None:
    ends_before, seen = inserted(server, CARTPOLE, "ends"), []
    for shard in range(shards):
        place = {"keep": None if keep is None else np.array(keep), "shard": shard, "shards": shards, "seed": 4}
        first = replayer(open_set(sets / "cartpole", CARTPOLE), server, **place)
        seen += list(first._position)
        first.run(episodes=1)
        cursor = first.cursor
        assert first.close(deadline=20)
        second = replayer(open_set(sets / "cartpole", CARTPOLE), server, cursor=cursor, **place)
        second.run(episodes=1000)
        report = second.report()
        assert report.done and report.kept == (EPISODES if keep is None else len(keep)) and report.in_set == EPISODES
        assert second.close(deadline=20)
    assert sorted(seen) == (list(range(EPISODES)) if keep is None else keep)
    assert inserted(server, CARTPOLE, "ends") - ends_before == len(seen)


def test_the_order_is_shuffled_by_the_seed(sets: Path, server) -> None:
    orders = []
    for seed in (0, 0, 1):
        streaming = replayer(open_set(sets / "babyai", BABYAI), server, seed=seed)
        orders.append(list(streaming._position))
        streaming.close(deadline=5)
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == list(range(EPISODES)) != orders[0]


def test_run_returns_after_its_seconds(sets: Path, server) -> None:
    streaming = replayer(open_set(sets / "cartpole", CARTPOLE), server)
    streaming.run(episodes=1000, seconds=0.0)
    assert not streaming.done and streaming.report().episodes == 0
    streaming.close(deadline=5)


def test_a_cursor_of_another_set_is_refused(sets: Path, server) -> None:
    with pytest.raises(ValueError, match="the set has changed"):
        replayer(open_set(sets / "cartpole", CARTPOLE), server, cursor=[0, 99])


def test_an_episode_that_does_not_come_out_as_recorded_never_reaches_replay(sets: Path, server, tmp_path: Path) -> None:
    wrong = dataclasses.replace(played(CARTPOLE, 0), episode_return=1.0)
    pack_action_set(tmp_path, CARTPOLE, "nobody", [wrong], None)
    before = inserted(server, CARTPOLE, "demonstrations")
    streaming = replayer(open_set(tmp_path, CARTPOLE), server)
    with pytest.raises(DemonstrationSetError, match="recorded with return 1"):
        streaming.run(episodes=1)
    streaming.close(deadline=5)
    assert inserted(server, CARTPOLE, "demonstrations") == before
