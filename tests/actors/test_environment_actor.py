import dataclasses
import math
import time
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import pytest

from actors.config import ActorConfig, acting_decoding, check_actor_config
from actors.environment_actor import ActorIdentity, EnvironmentActor, good_filter
from actors.environments.checked import CheckedEnvironment
from actors.environments.failures import EnvironmentFailed
from actors.seeds import ENVIRONMENT_SEEDS
from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.policy import Policy
from agent.weights import flat_weights
from replay.config import ReplayConfig
from replay.sampler import WindowSampler
from replay.server import ServerHandle, start_replay_server
from replay.window import Window, check_window
from tests.actors.countdown import TASK, ConstantPolicy, Countdown, episode_length

CONFIG = ActorConfig(task=TASK.name, envs_per_actor=3)
REPLAY = ReplayConfig(window_length=16, window_stride=8, write_deadline=20.0, poll_seconds=0.2)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    with start_replay_server([TASK], REPLAY) as handle:
        yield handle


def make_actor(server: ServerHandle, actor_id: str, **changes) -> EnvironmentActor:  # type: ignore[no-untyped-def]
    environment = changes.pop("environment", None) or CheckedEnvironment(Countdown(3))
    policy = changes.pop("policy", None) or ConstantPolicy(3)
    return EnvironmentActor.connect(
        CONFIG, environment, policy, ActorIdentity(actor_id), server.address, REPLAY, **changes
    )


def windows_of(server: ServerHandle, source: str, actor_id: str, seconds: float = 3.0) -> list[Window]:
    """All different windows of one actor that a sampler draws."""
    sampler = WindowSampler(server.address, TASK, source, REPLAY)
    found: dict[tuple[str, int, int], Window] = {}
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        window = sampler.get(0.5)
        if window is not None and window.metadata.actor_id == actor_id:
            found[window.metadata.episode_id, window.metadata.start_step, window.length] = window
    sampler.close()
    return list(found.values())


def test_windows_in_replay_are_what_was_played(server: ServerHandle) -> None:
    policy = ConstantPolicy(3, version=5, published_at=123.0)
    actor = make_actor(server, "played", policy=policy)
    assert actor.run(20) == 20
    policy.version = 6  # weights arrive in the middle of episodes
    actor.run(40)
    report = actor.report()
    assert actor.close(10.0)

    assert report.environment_steps == 180 and report.frames == 180 and report.failures == 0
    assert report.episodes == len(report.finished) > 6
    assert report.policy_version == 6 and report.policy_age > 0
    assert all(episode.episode_return == episode.length for episode in report.finished)
    assert set(report.seconds) == {"environment", "policy", "writer", "blocked"}
    windows = windows_of(server, "online", "played")
    assert 0.8 * report.windows < len(windows) <= report.windows, "those of a short episode may be equal"
    covered: dict[int, dict[int, int]] = defaultdict(dict)
    for window in windows:
        check_window(window, TASK)
        about = window.metadata
        length = episode_length(about.environment_seed)
        assert about.source == "online" and about.decoding == "sample" and about.published_at == 123.0
        assert about.episode_id == f"played.0.{about.episode_index}"
        assert about.environment_seed == ActorIdentity("played").environment_seed(about.episode_index)
        assert about.texts == {"instruction": f"seed {about.environment_seed}"}
        left = length - about.start_step - np.arange(window.length + 1)
        assert np.array_equal(window.observation["left"][:, 0], left)
        assert (window.action == 1).all() and (window.label == 1).all() and window.label_mask.all()
        ends = left[1:] == 0
        assert np.array_equal(window.terminated | window.truncated, ends)
        assert np.array_equal(window.is_first, np.arange(window.length) + about.start_step == 0)
        for step, version in enumerate(window.policy_version, start=about.start_step):
            assert covered[about.episode_index].setdefault(step, int(version)) == version
    versions = [version for steps in covered.values() for version in steps.values()]
    assert set(versions) == {5, 6} and versions.count(5) <= 60
    finished = [steps for index, steps in covered.items() if len(steps) == episode_length(
        ActorIdentity("played").environment_seed(index))]  # fmt: skip
    assert len(finished) == report.episodes, "every step of every finished episode is in some window"


def test_what_was_asked_for_is_in_the_windows(server: ServerHandle) -> None:
    task = dataclasses.replace(TASK, return_range=(0.0, 20.0))
    agent = Agent(AgentConfig(width=32, layers=1, heads=2, returns="masked"), [task])
    for returns, mode in (("target", 1.0), ("tilted", 2.0)):
        policy = Policy(agent, task, 3, DecodingConfig(returns=returns, return_target=12.0, kappa=3.0))
        policy.version = 1
        actor = make_actor(server, returns, policy=policy)
        actor.run(30)
        assert actor.close(10.0)
        windows = [window for window in windows_of(server, "online", returns) if window.metadata.start_step == 0]
        assert windows
        for window in windows:
            value, asked_bin, how = window.return_asked.T
            assert (how == mode).all() and (asked_bin >= 0).all() and (asked_bin < 128).all()
            assert value == pytest.approx((asked_bin + 0.5) * 20 / 128, abs=1e-4)
            assert window.metadata.kappa == (3.0 if returns == "tilted" else 0.0)
            if returns == "target":
                earned = np.concatenate(([0.0], np.cumsum(window.reward[: window.length - 1])))
                assert value == pytest.approx(12.0 - earned, abs=0.1)
    plain = make_actor(server, "plain", policy=ConstantPolicy(3))
    plain.run(10)
    plain.close(10.0)
    assert all((window.return_asked == 0).all() for window in windows_of(server, "online", "plain"))


def test_a_ladder_is_spread_over_the_actors_of_a_task() -> None:
    config = ActorConfig(
        task=TASK.name,
        num_actors=3,
        ladder={"temperature": [0.5, 1.5], "top_p": [1, 0.5], "kappa": [0, 20]},
        acting_returns="tilted",
    )
    check_actor_config(config, "mine")
    evaluated = DecodingConfig(context="rolling", kept=0.9, past_actions="hidden", temperature=3.0, discrete="greedy")
    rungs = [acting_decoding(config, number, evaluated) for number in range(3)]
    assert {(each.context, each.kept, each.discrete) for each in rungs} == {("rolling", 0.9, "sample")}
    assert [each.temperature for each in rungs] == [0.5, 1.0, 1.5]
    assert [each.top_p for each in rungs] == [1.0, 0.75, 0.5]
    assert [each.kappa for each in rungs] == [0.0, 10.0, 20.0]
    assert {(each.returns, each.past_actions) for each in rungs} == {("tilted", "hidden")}
    assert acting_decoding(dataclasses.replace(config, num_actors=1), 0, evaluated).temperature == 0.5
    for ladder, message in (
        ({"heat": [1.0, 2.0]}, "temperature, top_p, kappa"),
        ({"top_p": [1.0]}, "two numbers"),
        ({"top_p": 0.5}, "two numbers"),
        ({"kappa": ["low", 1.0]}, "two numbers"),
        ({"top_p": [1.0, 0.0]}, r"ladder\.top_p must be in"),
    ):
        with pytest.raises(ValueError, match=message):
            check_actor_config(dataclasses.replace(config, ladder=ladder), "mine")
    with pytest.raises(ValueError, match=r"actors\.mine: ladder\.kappa needs acting_returns=tilted, not none"):
        check_actor_config(dataclasses.replace(config, acting_returns="none"), "mine")


def test_only_episodes_that_pass_the_filter_become_good(server: ServerHandle) -> None:
    actor = make_actor(server, "good", good_return=15.0)  # so that returns from 12 on are good
    actor.run(80)
    report = actor.report()
    actor.close(10.0)
    good = [episode for episode in report.finished if episode.good]
    assert 0 < len(good) < report.episodes
    assert all(episode.good == (episode.episode_return >= 12.0) for episode in report.finished)
    windows = windows_of(server, "good", "good")
    assert 0 < len(windows) <= report.good_windows
    assert all(window.metadata.episode_return >= 12.0 for window in windows)
    assert len({window.metadata.episode_index for window in windows}) == len(good)


def test_reports_count_absolutely_and_hand_over_each_episode_once(server: ServerHandle) -> None:
    actor = make_actor(server, "reports")
    actor.run(30)
    first = actor.report()
    actor.run(30)
    second = actor.report()
    actor.close(10.0)
    assert second.environment_steps == 2 * first.environment_steps == 180
    assert second.episodes == len(first.finished) + len(second.finished)
    assert actor.report().finished == ()


def test_environments_that_fail_are_made_anew_but_not_for_ever(server: ServerHandle) -> None:
    actor = make_actor(server, "failing", environment=CheckedEnvironment(Countdown(3, broken_at=30)))
    made: list[Countdown] = []

    def remake() -> CheckedEnvironment:
        made.append(Countdown(3, broken_at=1 if len(made) >= 1 else 40))  # the second failure comes later, then each
        return CheckedEnvironment(made[-1])

    actor._remake = remake
    actor.run(50)
    report = actor.report()
    assert report.failures == 1 and report.environment_steps == 3 * 49
    with pytest.raises(EnvironmentFailed, match=r"tests/countdown: failed 3 times .* step 68 of actor failing"):
        actor.run(100)
    assert len(made) == 3
    actor.close(10.0)


@pytest.mark.parametrize("nan", ["reward", "observation"])
def test_what_is_not_finite_is_counted_reaches_no_table_and_does_not_go_on_for_ever(
    server: ServerHandle, nan: str
) -> None:
    actor = make_actor(server, f"nan {nan}", environment=CheckedEnvironment(Countdown(3, broken_at=30, nan=nan)))
    actor._remake = lambda: CheckedEnvironment(Countdown(3))
    assert actor.run(100) == 100
    report = actor.report()
    assert report.failures == 1 and report.environment_steps == 3 * 99 and report.episodes > 10
    for window in (windows := windows_of(server, "online", f"nan {nan}", 1.5)):
        assert np.isfinite(window.reward).all() and np.isfinite(window.observation["left"]).all()
    assert len(windows) > 5

    actor._remake = lambda: CheckedEnvironment(Countdown(3, broken_at=1, nan=nan))
    actor.environment = actor._remake()
    actor._is_first[:] = True
    what = "reward is inf" if nan == "reward" else "left is not finite"
    with pytest.raises(EnvironmentFailed, match=rf"failed 3 times without .* {what}"):
        actor.run(100)
    assert actor.report().failures == 4
    actor.close(10.0)


def test_an_actor_waits_for_replay_before_an_episode_and_not_for_ever(server: ServerHandle) -> None:
    with start_replay_server([TASK], REPLAY) as mortal:
        actor = make_actor(mortal, "blocked")
        assert actor.run(5) == 5
    started = time.monotonic()
    taken = actor.run(1000)
    assert taken < 1000 and time.monotonic() - started < 15.0
    report = actor.report()
    assert report.seconds["blocked"] > 0.4
    assert not actor.close(0.5), "what was not taken is dropped, and said so"


def test_with_the_real_policy(server: ServerHandle) -> None:
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [TASK])
    policy = Policy(agent, TASK, 3, DecodingConfig(temperature=2.0), seed=1)
    policy.load_weights(9, flat_weights(agent), published_at=time.time())
    actor = make_actor(server, "policy", policy=policy)
    actor.run(30)
    report = actor.report()
    actor.close(10.0)
    assert report.policy_version == 9 and 0 <= report.policy_age < 60
    windows = windows_of(server, "online", "policy", seconds=2.0)
    assert windows
    for window in windows:
        check_window(window, TASK)
        assert (window.policy_version == 9).all()
        assert np.isfinite(window.log_prob).all() and (window.log_prob <= 0).all()
        assert window.metadata.temperature == 2.0
    actions = np.concatenate([window.action for window in windows])
    assert 0 < actions.mean() < 1, "it samples"


def test_the_policy_reads_the_beginning_of_the_best_episode_first(server: ServerHandle) -> None:
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [TASK])
    policy = Policy(agent, TASK, 3, DecodingConfig(), seed=1)
    policy.load_weights(0, flat_weights(agent))
    config = dataclasses.replace(CONFIG, acting_prompt="best")
    identity = ActorIdentity("prompted")
    actor = EnvironmentActor.connect(config, CheckedEnvironment(Countdown(3)), policy, identity, server.address, REPLAY)
    assert policy.context.prompt is None
    actor.run(60)
    # Of equal ones the newest.
    best = max(reversed(actor.report().finished), key=lambda episode: episode.episode_return)
    actor.close(10.0)
    read = policy.context.prompt
    assert read is not None and read.steps == 2
    assert read.observation["left"][:, 0].tolist() == [best.length, best.length - 1]
    windows = {window.metadata.episode_index: window.metadata for window in windows_of(server, "online", "prompted")}
    named = [metadata.prompt_episode_id for _, metadata in sorted(windows.items())]
    assert named[0] is None, "the first to end had read nothing"
    assert named[-1] is not None and named[-1].startswith("prompted.0.")


def test_environment_seeds_are_distinct_and_above_those_of_evaluations() -> None:
    identities = [
        ActorIdentity(f"a{i}", incarnation, run) for i in range(4) for incarnation in (0, 1) for run in (0, 1)
    ]
    seeds = [identity.environment_seed(index) for identity in identities for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    assert min(seeds) >= ENVIRONMENT_SEEDS and max(seeds) < 2**31


@pytest.mark.parametrize(
    ("good_return", "share", "episode_return", "good"),
    [(10.0, 0.8, 8.0, True), (10.0, 0.8, 7.99, False), (10.0, 0.5, 5.0, True), (5.0, 0.8, 4.0, True)],
)
def test_good_filter(good_return: float, share: float, episode_return: float, good: bool) -> None:
    is_good = good_filter(TASK, good_return, share)
    assert is_good is not None and is_good(episode_return) is good


@pytest.mark.parametrize("good_return", [None, -3.0, 0.0, math.nan])
def test_no_filter_where_it_would_mean_nothing(good_return: float | None) -> None:
    assert good_filter(TASK, good_return) is None


def test_as_many_writers_as_environments() -> None:
    with pytest.raises(ValueError, match="3 environments need as many writers, not 0"):
        EnvironmentActor(CONFIG, Countdown(3), ConstantPolicy(3), [], ActorIdentity("x"))
