import contextlib
import dataclasses

import numpy as np
import pytest
import torch

from actors.demonstrations.action_set import conform
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment, task_spec
from actors.experts.expert import ExpertFailed
from actors.experts.policy_expert import PolicyExpert
from actors.explorer.demonstrations import Way, read_way, write_ways
from actors.explorer.emulator import Emulator
from actors.explorer.explorer import ExplorerSettings
from actors.explorer.tracking import TrackerOptions, WayTracker
from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from distributed.compose import actor_configs
from distributed.errors import ClowderError
from distributed.run_expert import expert_of

FREEWAY = "atari/freeway"
QUICK = TrackerOptions(horizon=8, replicas=1, shots=1, patience=400)


@pytest.fixture(scope="module")
def way() -> Way:
    """Across the road of Freeway, always up: one point after some 150 steps."""
    settings = ExplorerSettings(FREEWAY, max_episode_steps=600)
    game = Emulator(FREEWAY)
    up = [action.name for action in game.actions].index("UP")
    sums = [0]
    while sums[-1] == 0:
        sums.append(sums[-1] + game.act(up))
    return Way(settings, np.full(len(sums) - 1, up, np.int32), np.array(sums[1:], np.int64))


def config():
    found = actor_configs()["pong"]
    return dataclasses.replace(found, task=FREEWAY, arguments={"max_episode_steps": 600}, reference_return=1.0)


def test_it_reaches_the_score_of_the_way_and_its_episode_is_the_adapters(way):
    tracker = WayTracker(way, sticky=0.25, options=QUICK)
    record = tracker.play(seed=3)
    assert record.episode_return == way.score and record.cut and not record.noisy
    environment = make_environment(config(), 1)
    played = conform(record, environment.task)
    index, episode = next(item for item in simulate(environment, lambda _: played, [0]) if item is not None)
    environment.close()
    assert index == 0 and episode.episode_return == way.score and episode.truncated


def test_a_seed_decides_the_episode_and_noise_leaves_the_labels(way):
    tracker = WayTracker(way, sticky=0.25, options=QUICK)
    for seed in range(1, 20):  # where every car comes at another time, some are lost, that of seed 0 among them
        with contextlib.suppress(ExpertFailed):
            first = tracker.play(seed, noise=0.1)
            break
    second = tracker.play(seed, noise=0.1)
    assert np.array_equal(first.action, second.action) and first.noisy
    assert 0.0 < (first.action != first.label).mean() < 0.4


def test_a_way_that_stays_on_the_screen_is_followed_without_looking_for_another(way):
    tracker = WayTracker(way, sticky=0.0)
    record = tracker.play(seed=0)
    assert np.array_equal(record.action, way.actions)


def test_the_expert_is_read_from_a_set_without_sticky_actions(way, tmp_path):
    write_ways(tmp_path / "found", config(), [way])
    again = read_way(tmp_path / "found", config())
    assert again.score == way.score and np.array_equal(again.actions, way.actions)
    expert = expert_of(f"track:{tmp_path / 'found'}", config())
    assert (expert.name, expert.sees) == ("way-tracker", "simulator state")


def test_what_is_no_way_is_refused(way, tmp_path):
    write_ways(tmp_path / "found", config(), [way])
    other = dataclasses.replace(config(), task="atari/pong")
    assert task_spec(other).name == "atari/pong"
    with pytest.raises(DemonstrationSetError, match="freeway"):
        read_way(tmp_path / "found", other)
    with pytest.raises(ClowderError, match="plays Atari games"):
        expert_of(f"track:{tmp_path / 'found'}", actor_configs()["babyai_goto_local"])


def test_a_pilot_steers_and_the_labels_are_the_trackers(way):
    environment = make_environment(dataclasses.replace(config(), context_steps=2), 1)
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [environment.task])
    pilot = PolicyExpert("run:fresh@0", agent, environment, DecodingConfig(), version=0)
    options = dataclasses.replace(QUICK, stretch=5, patience=60)
    tracker = WayTracker(way, sticky=0.25, options=options, pilot=pilot)
    for seed in range(1, 20):
        with contextlib.suppress(ExpertFailed):
            record = tracker.play(seed, noise=0.2)
            if (record.action != record.label).any():
                break
    assert record.noisy and (record.action != record.label).mean() < 0.4
    index, episode = next(item for item in simulate(environment, lambda _: record, [0]) if item is not None)
    assert index == 0 and episode.episode_return == record.episode_return
    without = tracker.play(seed)
    assert not without.noisy and np.array_equal(without.action, without.label)
    tracker.close()
