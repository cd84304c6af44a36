"""What the objective that improves holds states and actions to be worth: targets by hand, time limits, luck, leaks."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.task import TaskSpec
from learner.batch import packed_hidden
from learner.objectives.advantage_filtered import retrace_targets
from tests.learner.places import ARM, TASK, episode, make_learner, probabilities, reaches, shown


def test_targets_follow_what_was_done_as_far_as_the_trace_and_no_further_than_a_termination() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0, 8.0]] * 3)
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]] * 3)
    chosen = value - 1
    terminated = torch.tensor([[False] * 4, [False, False, False, True], [False] * 4])
    valid = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])
    later = torch.full((3,), torch.nan)

    def targets(trace: float) -> tuple[torch.Tensor, torch.Tensor]:
        return retrace_targets(reward, terminated, valid, value, chosen, torch.full_like(reward, trace), later, 0.5)

    one_step, known = targets(0.0)
    assert known.tolist() == [[True, True, True, False], [True] * 4, [True, False, False, False]]
    assert one_step[0].tolist() == [1 + 10, 2 + 15, 4 + 20, 0]
    assert one_step[1].tolist() == [11, 17, 24, 8]
    assert one_step[2].tolist() == [11, 0, 0, 0]
    # At 1 the chosen action's value falls out: what followed stands in for it, and the state's value exceeds it by 1.
    followed, _ = targets(1.0)
    third = 4 + 0.5 * (1 + 8.0)
    second = 2 + 0.5 * (1 + third)
    assert followed[1].tolist() == [1 + 0.5 * (1 + second), second, third, 8.0]
    assert followed[0, 2] == 4 + 0.5 * 40
    half, _ = targets(0.5)
    assert half[1, 2] == 4 + 0.5 * (40 + 0.5 * (8 - 39))
    # What came after a crop stands for the value of the state after it; after a termination there is none.
    later = torch.tensor([100.0, 100.0, 200.0])
    continued, known = targets(1.0)
    assert (known == valid).all()
    assert continued[0, 2:].tolist() == [4 + 0.5 * (1 + 58.0), 8 + 50.0]
    assert continued[1].tolist() == followed[1].tolist()
    assert continued[2, :2].tolist() == [1 + 0.5 * (1 + 102.0), 2 + 100.0]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_so_much_of_the_critics_gradient_reaches_what_it_shares_with_the_policy(share: float) -> None:
    def gradient(critic_weight: float, critic_gradient: float | None = None) -> torch.Tensor:
        task = dataclasses.replace(TASK, critic_gradient=critic_gradient)
        windows = [episode([0, 1], [0, action], [0.0, float(action)]) for action in (0, 1)]
        learner = make_learner(windows, task, critic_weight=critic_weight)
        learner.objective.loss(learner.agent, learner.batches.make().batch)[0].backward()
        return torch.cat([each.grad.flatten() for each in learner.agent.transformer.parameters()])

    policy, both = gradient(0.0), gradient(1.0)
    torch.testing.assert_close(gradient(1.0, share), policy.lerp(both, share))
    assert not both.allclose(policy)


def test_what_the_policy_would_not_do_is_not_followed() -> None:
    """Both actions of place 1 were taken as often, by a policy that is gone; only one of those at place 0 led there."""
    learner = make_learner([episode([0, 1], [0, action], [0.0, float(action)]) for action in (0, 1)], trace=1.0)
    for _ in range(150):
        learner.step()
    assert probabilities(learner, [0, 1], [0])[1] > 0.95
    values, batch = learner.agent.values_of(TASK), learner.batches.make().batch
    first = packed_hidden(learner.agent, batch)[batch.steps[0].position[:, 0, 0]]
    assert values.expected(values(first))[:, 0].mean() > 0.8, "0.5 is the mean of what followed"


@pytest.mark.parametrize(
    "temperature, worth", [pytest.param(1.0, 0.75, marks=pytest.mark.learning), pytest.param(0.0, 1.0)]
)
def test_a_state_is_worth_what_the_policy_earns_there_at_the_temperature_of_values(
    temperature: float, worth: float
) -> None:
    """Three of four take the action that pays; greedily all do."""
    task = dataclasses.replace(TASK, value_temperature=temperature)
    windows = [shown([0], [a], [float(a == 0)]) for a in (0, 0, 0, 1)]
    learner = make_learner(windows, task, imitation_share=1.0)
    for _ in range(200):
        learner.step()
    learner.metrics()
    for _ in range(20):
        learner.step()
    assert probabilities(learner, [0], [])[0] == pytest.approx(0.75, abs=0.05)
    assert learner.metrics()["value/test/places"] == pytest.approx(worth, abs=0.06)


@pytest.mark.learning
def test_the_slope_of_outcomes_says_whether_advantages_mean_something() -> None:
    """One action pays 0.4 more on the average; in the other task there is nothing but luck."""
    rng = np.random.default_rng(0)
    noise = dataclasses.replace(TASK, name="test/noise")
    pays = [episode([0], [a], [float(rng.random() < 0.3 + 0.4 * a)]) for a in (0, 1) * 40]
    luck = [episode([1], [a], [float(rng.random() < 0.5)]) for a in (0, 1) * 40]
    learner = make_learner(pays, beside=(noise, luck), imitation_share=1.0, advantage_floor=10.0, outcome_share=0.0)
    for _ in range(250):
        learner.step()
    learner.metrics()
    for _ in range(40):
        learner.step()
    metrics = learner.metrics()
    assert metrics["advantage_slope/test/places"] == pytest.approx(1.0, abs=0.25)
    assert metrics["advantage_scale/test/noise"] - 10 < 0.5 * (metrics["advantage_scale/test/places"] - 10)


def test_a_time_limit_is_no_end() -> None:
    """A reward of 1 for ever, cut after twelve steps: the value learned of it is that of going on for ever."""
    rng, windows = np.random.default_rng(0), []
    for _ in range(40):
        cut = episode([0] * 12, rng.integers(0, 2, 12).tolist(), [1.0] * 12)
        windows.append(dataclasses.replace(cut, terminated=np.zeros(12, bool), truncated=np.arange(12) == 11))
    task = dataclasses.replace(TASK, value_range=(0.0, 5.0), context_steps=8, discount=0.75)  # the learner's is 1
    learner = make_learner(windows, task)
    for _ in range(200):
        learner.step()
    values, batch = learner.agent.values_of(TASK), learner.batches.make().batch
    steps = batch.steps[0]
    worth = values.expected(values(packed_hidden(learner.agent, batch)[steps.position[..., 0]])).detach()
    worth = 5.0 * worth.gather(2, steps.action)[:, :, 0]
    assert worth[steps.position[..., 0] >= 0].numpy() == pytest.approx(4.0, abs=0.4)


@pytest.mark.learning
@pytest.mark.parametrize("task", [TASK, ARM], ids=lambda task: task.name)
def test_what_a_state_is_said_to_be_worth_is_what_its_episodes_earn(task: TaskSpec) -> None:
    """Places that pay 0.1, 0.5 and 0.9 on the average, by chance; neither action matters."""
    rng, windows = np.random.default_rng(0), []
    for place in (1, 2, 3):
        for action in (0, 1) * 30:
            reward = float(rng.random() < 0.4 * place - 0.3)
            if task is TASK:
                windows.append(episode([place], [action], [reward]))
            else:
                windows.append(reaches([place], [(action - 0.5, action - 0.5)], [reward]))
    learner = make_learner(windows, task, expectile=0.5)
    for _ in range(400):  # after 200 one of five other seeds was 24% off
        learner.step()
    values, batch = learner.acting.values_of(task), learner.batches.make().batch
    at = packed_hidden(learner.acting, batch)[batch.steps[0].position[:, 0, 0]]
    worth = values.expected(values(at) if task is TASK else values.of_state(at)[:, None]).mean(1).detach().numpy()
    place = batch.groups[0].arrays["place"][:, 0].numpy()
    paid = [[w.reward[0] for w in windows if w.observation["place"][0] == number] for number in (1, 2, 3)]
    earned = np.array([0.0, *map(np.mean, paid)])
    slope, offset = np.polyfit(earned[place], worth, 1)
    assert slope == pytest.approx(1.0, abs=0.15) and offset == pytest.approx(0.0, abs=0.08)


@pytest.mark.learning
def test_a_critic_that_could_read_what_will_come_would_find_no_action_better() -> None:
    """Why windows that are told their return have no part in the critic: it would read the outcome off it."""
    rng = np.random.default_rng(0)
    windows = [episode([0], [a], [float(rng.random() < (0.8 if a else 0.2))]) for a in (0, 1) * 40]
    advantage = {}
    for told in (True, False):
        learner = make_learner(windows, value_bins=51, returns="masked", return_dropout=1.0 - told)
        for _ in range(150):
            batch = learner.batches.make().batch
            assert batch.steps[0].said.all() == told
            batch.steps[0].said.zero_()  # what is told is judged too
            learner.optimiser.zero_grad()
            learner.objective.loss(learner.agent, batch)[0].backward()
            learner.optimiser.step()
            learner.objective.updated(learner.agent)
        values = learner.acting.values_of(TASK)
        at = packed_hidden(learner.acting, batch)[batch.steps[0].position[:, 0, 0]]
        worth = values.expected(values(at)).detach()
        advantage[told] = float((worth[:, 1] - worth[:, 0]).mean())
    assert advantage[False] == pytest.approx(0.6, abs=0.2), advantage
    assert abs(advantage[True]) < 0.3 * advantage[False], advantage
