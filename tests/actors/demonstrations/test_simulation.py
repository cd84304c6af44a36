"""Simulating episodes again: each once, exactly, and never one that is not as recorded."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.simulation import ReplayMismatch, simulate
from actors.environments.make import make_environment
from tests.actors.demonstrations.sets import BOXING, CARTPOLE, played


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_every_episode_comes_once_and_as_recorded_however_many_at_once(num_envs: int) -> None:
    records = [played(CARTPOLE, seed) for seed in range(7)]
    environment = make_environment(CARTPOLE, num_envs)
    order = [6, 0, 3, 1, 5]
    episodes = dict(item for item in simulate(environment, records.__getitem__, order) if item is not None)
    assert sorted(episodes) == sorted(order)
    for index, episode in episodes.items():
        record = records[index]
        assert episode.length == len(record.action) and episode.episode_return == record.episode_return
        assert episode.observation["observation"].shape == (episode.length + 1, 4)
        assert np.array_equal(episode.action, record.action) and np.array_equal(episode.label, record.label)
        assert np.array_equal(episode.label_mask, record.label_mask)
        assert episode.terminated != episode.truncated and episode.seed == record.seed


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("config", [CARTPOLE, BOXING], ids=lambda config: config.task)
def test_a_cut_episode_ends_as_truncated_and_its_slot_goes_on(config: ActorConfig, num_envs: int) -> None:
    whole = [played(config, seed) for seed in range(4)]
    environment = make_environment(config, num_envs)
    full = dict(item for item in simulate(environment, whole.__getitem__, range(4)) if item is not None)
    records = list(whole)
    for index in (0, 2, 3):
        steps = len(whole[index].action) if index == 3 else 7  # the last is cut where the environment ends it anyhow
        part = {name: getattr(whole[index], name)[:steps] for name in ("action", "label", "label_mask")}
        total = float(full[index].reward[:steps].sum())
        records[index] = dataclasses.replace(whole[index], **part, episode_return=total, cut=True)
    parts = dict(item for item in simulate(environment, records.__getitem__, range(4)) if item is not None)
    for index in (0, 2):
        assert parts[index].length == 7 and parts[index].truncated and not parts[index].terminated
        for key, values in parts[index].observation.items():
            assert np.array_equal(values, full[index].observation[key][:8])
    for index in (1, 3):
        assert np.array_equal(parts[index].reward, full[index].reward)
        assert (parts[index].terminated, parts[index].truncated) == (full[index].terminated, full[index].truncated)


def test_slots_do_not_change_what_is_observed() -> None:
    records = [played(BOXING, seed) for seed in range(2)]
    alone, together = (make_environment(BOXING, n) for n in (1, 3))
    one = dict(item for item in simulate(alone, records.__getitem__, range(2)) if item is not None)
    all_at_once = dict(item for item in simulate(together, records.__getitem__, range(2)) if item is not None)
    for index in range(2):
        assert np.array_equal(one[index].observation["image"], all_at_once[index].observation["image"])
        assert one[index].truncated and one[index].length == 12


def test_nothing_to_do() -> None:
    environment = make_environment(CARTPOLE, 2)
    assert list(simulate(environment, [].__getitem__, [])) == []


def test_a_waiting_caller_hears_every_now_and_then() -> None:
    records = [played(CARTPOLE, seed) for seed in range(2)]
    heard = list(simulate(make_environment(CARTPOLE, 1), records.__getitem__, [0, 1], patience=0.0))
    assert heard.count(None) > 5 and len([item for item in heard if item is not None]) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"episode_return": r.episode_return + 1}, "recorded with return"),
        (lambda r: {"episode_return": float("nan")}, "recorded with return"),
        (lambda r: {"action": r.action[:-1], "label": r.label[:-1]}, "goes on after"),
        (lambda r: {"action": np.repeat(r.action, 2), "label": np.repeat(r.label, 2)}, "ended after"),
        (lambda r: {"action": np.repeat(r.action, 2), "label": np.repeat(r.label, 2), "cut": True}, "ended after"),
        (lambda r: {"action": r.action[:0]}, "no actions"),
        (lambda r: {"seed": r.seed + 1, "episode_return": -1.0}, "seed 1"),
    ],
)
def test_another_episode_than_recorded_is_refused(change, message: str) -> None:
    record = played(CARTPOLE, 0)
    record = dataclasses.replace(record, **change(record))
    with pytest.raises(ReplayMismatch, match=message):
        list(simulate(make_environment(CARTPOLE, 2), lambda _: record, [0]))
