import dataclasses
import math
import time

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.environments.make import make_environment
from actors.evaluator import ci95, evaluate, random_return
from actors.seeds import MONITORING_SEEDS, REPORTING_SEEDS
from actors.video import record_video
from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.policy import Policy
from tests.actors.countdown import ConstantAction, ConstantPolicy, Countdown, episode_length


@pytest.mark.parametrize("num_envs", [1, 3, 8, 20])
def test_every_seed_is_played_to_its_end_whatever_the_number_of_slots(num_envs: int) -> None:
    environment = Countdown(num_envs)
    seeds = [REPORTING_SEEDS + i for i in range(13)]
    evaluation = evaluate(ConstantPolicy(num_envs), environment, seeds, deadline=30)

    assert evaluation.seeds.tolist() == seeds
    assert evaluation.lengths.tolist() == [episode_length(seed) for seed in seeds]
    assert evaluation.returns.tolist() == [float(episode_length(seed)) for seed in seeds]
    assert evaluation.successes is not None and evaluation.successes.tolist() == [seed % 3 == 0 for seed in seeds]
    assert evaluation.versions.tolist() == [7] * 13
    assert evaluation.unfinished == ()
    for slot in range(min(num_envs, 13)):
        own = seeds[slot::num_envs]
        assert environment.seeds_begun[slot][: len(own)] == own, "seeds belong to slots before the first step"


def test_the_policy_is_told_of_each_first_step() -> None:
    policy = ConstantPolicy(2)
    evaluate(policy, Countdown(2), [0, 1, 20], deadline=30)  # episodes of 2, 3 and 2 steps
    flags = np.array(policy.first_flags)
    assert flags[:, 0].tolist() == [True, False, True, False]


def test_a_deadline_reports_what_is_unfinished_and_averages_only_whole_episodes() -> None:
    class SlowPolicy(ConstantPolicy):
        def act(self, observation, is_first) -> ConstantAction:  # type: ignore[no-untyped-def]
            time.sleep(0.05)
            return super().act(observation, is_first)

    evaluation = evaluate(SlowPolicy(2), Countdown(2), [0, 19, 1], deadline=0.3)  # 2 steps; 21; 3
    assert evaluation.unfinished == (19,)
    assert evaluation.seeds.tolist() == [0, 1]
    assert evaluation.mean_return == 2.5


def test_what_is_asked_for_is_that_of_each_episodes_first_step() -> None:
    evaluation = evaluate(ConstantPolicy(1), Countdown(1), [0, 3, 1], deadline=10)  # 2, 5 and 3 steps, one by one
    assert evaluation.foretold.asked == [1.0, 3.0, 8.0]
    assert evaluation.foretold.achieved == evaluation.returns.tolist() == [2.0, 5.0, 3.0]
    assert evaluation.foretold.pairs("valued", "earned") == [] and evaluation.foretold.means("valued", "earned") is None


def test_what_comes_of_it_is_of_as_many_steps_as_were_spoken_of_and_discounted_for_the_critic() -> None:
    class Valuing(ConstantPolicy):
        def action_value(self) -> np.ndarray:
            return np.array([2.5, math.nan])

    environment = Countdown(2)
    environment.task = dataclasses.replace(environment.task, return_horizon=3, context_steps=1)
    foretold = evaluate(Valuing(2), environment, [0, 3, 1], deadline=10, discount=0.5).foretold  # 2, 5 and 3 steps
    assert foretold.achieved == [2.0, 3.0, 3.0]
    assert foretold.earned == [1.5, 1.875, 1.75]  # of four steps at most
    assert foretold.pairs("valued", "earned") == [(2.5, 1.5), (2.5, 1.75)]
    assert foretold.means("valued", "earned") == (2.5, 1.625)


def test_nothing_finished_is_nan_not_zero() -> None:
    evaluation = evaluate(ConstantPolicy(2), Countdown(2), [4, 5], deadline=0.0)
    assert evaluation.unfinished == (4, 5) and evaluation.episodes == 0
    assert math.isnan(evaluation.mean_return) and math.isnan(evaluation.ci95_mean_return[0])


def test_weights_that_change_within_a_round_are_refused() -> None:
    class RestlessPolicy(ConstantPolicy):
        def act(self, observation, is_first) -> ConstantAction:  # type: ignore[no-untyped-def]
            self.version += 1
            return super().act(observation, is_first)

    with pytest.raises(RuntimeError, match="weights went from version 7"):
        evaluate(RestlessPolicy(2), Countdown(2), [4, 5], deadline=10)


@pytest.mark.parametrize("seeds", [[], [3, 3]])
def test_seeds_are_distinct_and_at_least_one(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="distinct seeds"):
        evaluate(ConstantPolicy(2), Countdown(2), seeds, deadline=10)


def test_seed_ranges_of_reporting_and_monitoring_are_disjoint() -> None:
    assert not set(range(REPORTING_SEEDS, REPORTING_SEEDS + 1000)) & set(
        range(MONITORING_SEEDS, MONITORING_SEEDS + 1000)
    )


def test_random_return_is_that_of_uniform_actions_and_reproducible() -> None:
    value = random_return(Countdown(4), episodes=200, seed=0)
    assert value == random_return(Countdown(4), episodes=200, seed=0)
    expected = np.mean([episode_length(seed) for seed in range(200)]) / 2
    assert value == pytest.approx(expected, abs=0.5)


def test_random_return_says_when_it_ran_out_of_time() -> None:
    with pytest.raises(TimeoutError, match="set random_return in the actor config"):
        random_return(Countdown(1), episodes=5, seed=0, deadline=0.0)


def test_ci95_covers_the_mean_of_a_normal_sample_and_shrinks() -> None:
    generator = np.random.default_rng(1)
    covered = sum(low <= 0 <= high for low, high in (ci95(generator.normal(size=20)) for _ in range(100)))
    assert 85 <= covered <= 99
    wide, narrow = ci95(generator.normal(size=10)), ci95(generator.normal(size=1000))
    assert narrow[1] - narrow[0] < wide[1] - wide[0]
    assert ci95([5.0]) == (5.0, 5.0)
    assert ci95([1.0, 2.0, 4.0]) == ci95([1.0, 2.0, 4.0]), "the resampling has a fixed seed"


def test_a_video_has_a_frame_for_the_reset_and_one_a_step(tmp_path) -> None:  # type: ignore[no-untyped-def]
    import imageio_ffmpeg

    path = tmp_path / "videos" / "countdown.mp4"
    frames = record_video(ConstantPolicy(2), Countdown(2), seed=5, path=path, fps=10)
    assert frames == 1 + episode_length(5)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    assert count == frames and seconds == pytest.approx(frames / 10, abs=0.2)
    assert [file.name for file in path.parent.iterdir()] == ["countdown.mp4"], "no partial file is left"
    assert record_video(ConstantPolicy(2), Countdown(2), 5, path, max_steps=3) == 4


def test_the_real_policy_on_a_real_task_repeats_itself_and_can_be_filmed(tmp_path) -> None:  # type: ignore[no-untyped-def]
    environment = make_environment(ActorConfig(task="babyai/GoToLocal", context_steps=2), num_envs=3)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [environment.task])
    seeds = [REPORTING_SEEDS + i for i in range(4)]
    evaluations = []
    for _ in range(2):
        policy = Policy(agent, environment.task, 3, DecodingConfig(temperature=2.0), seed=5)
        evaluations.append(evaluate(policy, environment, seeds, deadline=60))
    first, second = evaluations
    assert first.unfinished == () and (first.versions == -1).all()
    assert first.returns.tolist() == second.returns.tolist() and first.lengths.tolist() == second.lengths.tolist()
    assert first.successes is not None and np.array_equal(first.successes, first.returns > 0)
    frames = record_video(policy, environment, seeds[0], tmp_path / "babyai.mp4", max_steps=5)
    assert 1 < frames <= 6
    environment.close()
