from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.item_stream import ItemStream
from replay.sampler import WindowSampler
from replay.server import ServerHandle, start_replay_server
from replay.table_info import poll
from replay.tables import table_for
from replay.window import Window, check_window
from replay.writer import EpisodeWriter, window_spans

CONFIG = ReplayConfig(poll_seconds=0.1)
LENGTHS = [1, 5, 15, 16, 17, 40, 100]


def write_stepwise(writer: EpisodeWriter, episode: dict[str, Any], **changes: Any) -> None:
    steps = len(episode["reward"])
    observation = episode["observation"]
    writer.begin({key: value[0] for key, value in observation.items()}, episode["texts"], episode["metadata"])
    for i in range(steps):
        last = i == steps - 1
        writer.step(
            episode["action"][i],
            episode["reward"][i],
            last and episode["terminated"],
            last and episode["truncated"],
            {key: value[i + 1] for key, value in observation.items()},
            label=episode["label"][i],
            label_mask=episode["label_mask"][i],
            policy_version=episode["policy_version"][i],
            log_prob=episode["log_prob"][i],
            **changes,
        )


def draw(sampler: WindowSampler, count: int) -> list[Window]:
    windows = []
    deadline = time.monotonic() + 30
    while len(windows) < count:
        window = sampler.get(1.0)
        assert time.monotonic() < deadline, f"{len(windows)} of {count} windows, table {sampler.info()}"
        if window is not None:
            windows.append(window)
    return windows


def check_against(window: Window, task: TaskSpec, episode: dict[str, Any]) -> None:
    """Bit for bit what was written."""
    check_window(window, task)
    start, stop = window.metadata.start_step, window.metadata.start_step + window.length
    steps = len(episode["reward"])
    for key, value in episode["observation"].items():
        np.testing.assert_array_equal(window.observation[key], value[start : stop + 1])
    for name in ("action", "label", "label_mask", "policy_version", "log_prob"):
        np.testing.assert_array_equal(getattr(window, name), episode[name][start:stop])
    tail = min(stop + task.return_horizon, steps) - stop
    assert window.metadata.tail_steps == tail
    assert window.metadata.tail_terminated == (tail > 0 and stop + tail == steps and bool(episode["terminated"]))
    np.testing.assert_array_equal(window.reward, episode["reward"][start : stop + tail])
    last = np.arange(start, stop) == steps - 1
    np.testing.assert_array_equal(window.terminated, last & episode["terminated"])
    np.testing.assert_array_equal(window.truncated, last & episode["truncated"])
    np.testing.assert_array_equal(window.is_first, np.arange(start, stop) == 0)
    np.testing.assert_array_equal(window.return_asked, np.zeros((stop - start, 3), np.float32))
    assert window.metadata.texts == episode["texts"]
    assert window.metadata.environment_seed == episode["metadata"]["environment_seed"]


@pytest.mark.parametrize(("name", "horizon"), [("steps", 0), ("whole", 0), ("horizon", 25)])
def test_every_window_comes_back_bit_for_bit(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]], name: str, horizon: int
) -> None:
    spec = task(name, return_horizon=horizon)
    episodes = [episode(spec, steps, seed) for seed, steps in enumerate(LENGTHS)]
    writer = EpisodeWriter(
        server.address, spec, "online", CONFIG, metadata={"actor_id": "a", "incarnation": 3, "temperature": 0.5}
    )
    expected: set[tuple[int, int, int]] = set()
    for index, one in enumerate(episodes):
        write_stepwise(writer, one) if name != "whole" else writer.write_episode(**one)
        spans = window_spans(len(one["reward"]), writer._phase, CONFIG.window_length, CONFIG.window_stride)
        expected |= {(index, start, stop) for start, stop in spans}
    assert writer.close(10)
    assert writer.episodes_written == len(LENGTHS) and writer.steps_written == sum(LENGTHS)
    assert writer.windows_written >= len(expected)
    sampler = WindowSampler(server.address, spec, "online", CONFIG)
    seen = set()
    for window in draw(sampler, 40 * len(expected)):
        metadata = window.metadata
        key = (metadata.episode_index, metadata.start_step, metadata.start_step + window.length)
        if key not in seen:
            seen.add(key)
            check_against(window, spec, episodes[metadata.episode_index])
            assert (metadata.actor_id, metadata.incarnation, metadata.temperature) == ("a", 3, 0.5)
            assert (metadata.source, metadata.task) == ("online", spec.name)
    assert seen == expected
    info = poll(server.address)[table_for(spec.name, "online")]
    assert info.inserts == writer.windows_written and info.samples > 0
    sampler.close()


def test_a_window_goes_out_when_its_tail_is_known_and_not_later(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("given_up", return_horizon=10)
    one = episode(spec, 60, 0)
    one["terminated"] = one["truncated"] = False  # still under way: nothing is written because of an end
    writer = EpisodeWriter(server.address, spec, "online", CONFIG, is_good=lambda _: True)
    write_stepwise(writer, one)
    spans = list(window_spans(1000, writer._phase, CONFIG.window_length, CONFIG.window_stride))
    assert writer.windows_written == sum(stop + 10 <= 60 for _, stop in spans)
    written = writer.windows_written
    write_stepwise(writer, episode(spec, 3, 2))  # the first episode is forgotten, but for what went out
    assert writer.windows_written - written == len(list(window_spans(3, writer._phase, 16, 8)))
    assert writer.good_windows_written == writer.windows_written - written
    assert writer.close(10)


@pytest.mark.parametrize("steps", [*range(1, 20), 33, 64])
def test_every_step_is_in_the_same_number_of_windows(steps: int) -> None:
    for phase in range(8):
        count = np.zeros(steps, int)
        for start, stop in window_spans(steps, phase, 16, 8):
            assert 0 <= start < stop <= steps and stop - start <= 16
            count[start:stop] += 1
        assert (count == 2).all()


def test_episodes_of_all_lengths_while_others_are_on_their_way(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    """A column for each length, added while Reverb's thread was sending, used to crash the process."""
    spec = task("lengths", return_horizon=7)
    writers = [EpisodeWriter(server.address, spec, "online", CONFIG, seed=seed) for seed in range(3)]
    for steps in range(1, 50):
        for writer in writers:
            writer.write_episode(**episode(spec, steps, steps))
    assert all(writer.close(10) for writer in writers)
    written = sum(writer.windows_written for writer in writers)
    assert poll(server.address)[table_for(spec.name, "online")].inserts == written


def test_the_first_item_fixes_the_columns(server: ServerHandle, task: Callable[..., TaskSpec]) -> None:
    table = table_for(task("lengths").name, "online")
    stream = ItemStream(server.address, CONFIG, [table], keep_alive=4)
    stream.store({"a": np.zeros(3)})
    cells = stream.store({"b": np.zeros(3)})
    stream._sending = True  # as `add` leaves it; an item of these columns would not fit the table
    assert stream.store({"b": np.ones(3)}).keys() == cells.keys()
    with pytest.raises(ValueError, match="'c' is new after the first item"):
        stream.store({"c": np.zeros(3)})
    stream.close(1.0)


def test_drawn_steps_are_uniform(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("coverage")
    lengths = [7, 30, 3, 64, 18]
    writer = EpisodeWriter(server.address, spec, "demonstrations", CONFIG, seed=5)
    for index in range(40):
        writer.write_episode(**episode(spec, lengths[index % 5], index))
    assert writer.close(10)
    count = {index: np.zeros(lengths[index % 5]) for index in range(40)}
    sampler = WindowSampler(server.address, spec, "demonstrations", CONFIG)
    for window in draw(sampler, 8000):
        start = window.metadata.start_step
        count[window.metadata.episode_index][start : start + window.length] += 1
    sampler.close()
    drawn = np.concatenate(list(count.values()))
    # By place in the episode too: neither beginnings nor ends are drawn less often.
    first, last = np.mean([c[0] for c in count.values()]), np.mean([c[-1] for c in count.values()])
    assert abs(first / drawn.mean() - 1) < 0.15 and abs(last / drawn.mean() - 1) < 0.15
    assert drawn.min() > 0.4 * drawn.mean() and drawn.max() < 1.8 * drawn.mean()
    assert drawn.std() < 0.2 * drawn.mean()


def test_good_episodes_and_ends(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("good", return_horizon=5)
    episodes = [episode(spec, steps, seed) for seed, steps in enumerate([50, 40, 9, 30])]
    returns = [float(one["reward"].sum(dtype=np.float64)) for one in episodes]
    threshold = sorted(returns)[2]
    writer = EpisodeWriter(server.address, spec, "online", CONFIG, is_good=lambda value: value >= threshold)
    counts = []
    for one in episodes:
        write_stepwise(writer, one, success=True)
        counts.append(len(list(window_spans(len(one["reward"]), writer._phase, 16, 8))))
    assert writer.close(10)
    good = {index for index, value in enumerate(returns) if value >= threshold}
    assert writer.good_episodes == 2
    assert writer.good_windows_written == sum(counts[index] for index in good)
    tables = poll(server.address)
    assert tables[table_for(spec.name, "good")].size == writer.good_windows_written
    assert tables[table_for(spec.name, "ends")].size == len(episodes)
    sampler = WindowSampler(server.address, spec, "good", CONFIG)
    spans = set()
    for window in draw(sampler, 40 * writer.good_windows_written):
        metadata = window.metadata
        check_against(window, spec, episodes[metadata.episode_index])
        assert metadata.episode_index in good and metadata.success is True
        assert metadata.episode_return == pytest.approx(returns[metadata.episode_index])
        spans.add((metadata.episode_index, metadata.start_step, window.length))
    sampler.close()
    assert {index for index, *_ in spans} == good
    sampler = WindowSampler(server.address, spec, "ends", CONFIG)
    ends = {window.metadata.episode_index: window for window in draw(sampler, 100)}
    sampler.close()
    assert sorted(ends) == [0, 1, 2, 3]
    for index, window in ends.items():
        steps = len(episodes[index]["reward"])
        assert window.metadata.start_step + window.length == steps
        assert window.length > min(steps, 16) - 8  # the longest of the windows that end there
        assert window.metadata.episode_return == pytest.approx(returns[index])


def test_the_best_episodes_stay(task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]) -> None:
    spec, config = task("best"), ReplayConfig(poll_seconds=0.1, best_capacity=8, ends=False)
    rewards = [3.0, -2.0, 5.0, 1.0, 4.0]
    with start_replay_server([spec], config) as server:
        writer = EpisodeWriter(server.address, spec, "online", config, is_best=lambda value: value > 0)
        for seed, reward in enumerate(rewards):
            one = episode(spec, 16, seed)
            one["reward"] = np.full(16, reward, np.float32)
            writer.write_episode(**one)
        assert writer.close(10)
        tables = poll(server.address)
        assert tables[table_for(spec.name, "best")].size == 8
        assert tables[table_for(spec.name, "online")].size == writer.windows_written
        assert writer.best_windows_written == writer.windows_written * 4 // 5  # all but the one below zero
        sampler = WindowSampler(server.address, spec, "best", config)
        drawn = {window.metadata.episode_return for window in draw(sampler, 200)}
        sampler.close()
    assert max(drawn) == 16 * 5.0 and min(drawn) >= 16 * 3.0  # eight windows: the highest three episodes at most


def test_an_episode_longer_than_what_is_kept_gives_its_last_windows_to_good(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("keep")
    config = ReplayConfig(keep_alive_windows=6, poll_seconds=0.1)
    writer = EpisodeWriter(server.address, spec, "online", config, is_good=lambda _: True)
    for seed in range(2):
        write_stepwise(writer, episode(spec, 200, seed))
    assert writer.close(10)
    assert writer.good_windows_written == 12
    sampler = WindowSampler(server.address, spec, "good", config)
    assert all(window.metadata.start_step >= 200 - 6 * 8 - 8 for window in draw(sampler, 100))
    sampler.close()
