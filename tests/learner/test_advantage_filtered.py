"""The objective that improves: its targets by hand, luck, stitching, imitation where nothing is known, and resuming."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.policy import Policy
from agent.task import ArraySpec, TaskSpec
from agent.weights import flat_weights, load_agent
from learner.batch import packed_hidden
from learner.batch_source import TaskSources
from learner.checkpoint import Checkpoint, open_checkpoint, restore_checkpoint, take_snapshot, write_checkpoint
from learner.config import LearnerConfig
from learner.learner import Learner
from learner.objectives.advantage_filtered import AdvantageFiltered, retrace_targets
from learner.objectives.imitation import Imitation
from replay.window import Window, WindowMetadata
from tests.agent.tasks import CONTROL
from tests.learner.windows import ListStream

PLACES = 4
TASK = TaskSpec(
    "test/places",
    {"place": ArraySpec("discrete", (), num_values=PLACES)},
    ArraySpec("discrete", (), num_values=2),
    return_range=(0.0, 1.0),
    value_range=(0.0, 1.0),
    context_steps=3,
)


def episode(places: list[int], actions: list[int], rewards: list[float], source: str = "online", **about) -> Window:
    """An episode that terminates; ``places`` are those where the actions were taken."""
    steps = len(actions)
    return Window(
        {"place": np.array([*places, 0], np.int32)},
        np.array(actions, np.int32),
        np.array(actions, np.int32),
        np.ones(steps, bool),
        np.array(rewards, np.float32),
        np.arange(steps) == steps - 1,
        np.zeros(steps, bool),
        np.arange(steps) == 0,
        np.zeros(steps, np.int64),
        np.zeros((steps, 1), np.float32),
        np.zeros((steps, 3), np.float32),
        WindowMetadata(TASK.name, source, "0.0.0", steps=steps, **about),
    )


ARM = dataclasses.replace(TASK, name="test/arm", action=ArraySpec("continuous", (2,), -1.0, 1.0))


def reaches(places: list[int], actions: list[tuple[float, float]], rewards: list[float], **changes) -> Window:
    """As `episode`, of the task whose action is two numbers."""
    plain = episode(places, [0] * len(actions), rewards)
    moved = np.array(actions, np.float32)
    likelihood = np.full((len(actions), 2), np.nan, np.float32)
    return dataclasses.replace(plain, action=moved, label=moved, log_prob=likelihood, **changes)


def make_learner(
    windows: list[Window],
    task: TaskSpec = TASK,
    returns: str = "off",
    value_bins: int | None = None,
    objectives: Mapping[str, str] | None = None,
    beside: tuple[TaskSpec, list[Window]] | None = None,
    **changes: object,
) -> Learner:
    """It improves, or is told returns where ``returns`` are not off and it has no bins for values.

    ``beside``: another task and its windows, half of each batch.
    """
    torch.manual_seed(0)
    value_bins = (51 if returns == "off" else 0) if value_bins is None else value_bins
    each_task = [(task, windows), *([beside] if beside else [])]
    config_of_agent = AgentConfig(width=32, layers=1, heads=2, value_bins=value_bins, returns=returns)
    agent = Agent(config_of_agent, [one for one, _ in each_task])
    sources = {}
    for one, its_windows in each_task:
        by_source: dict[str, list[Window]] = {}
        for window in its_windows:
            source = "demonstrations" if window.metadata.source == "demonstrations" else "online"
            by_source.setdefault(source, []).append(window)
        streams = {source: ListStream(each) for source, each in by_source.items()}
        sources[one.name] = TaskSources(one, 1.0, (0.5, 0.5), streams, objectives=objectives or {})
    config = LearnerConfig(
        objective="advantage_filtered" if value_bins else "return_conditioned",
        windows_per_batch=32,
        tokens_per_row=4 * task.context_steps + 3,
        learning_rate=3e-3,
        warmup_steps=5,
        weight_decay=0.0,
        prompt_share=0.0,
        prefetch_batches=0,
        steps=10_000,
        **{"target_rate": 0.05, "discount": 1.0, "imitation_share": 0.0} | changes,
    )
    return Learner(agent, sources, config, 0)


def probabilities(
    learner: Learner, places: list[int], actions: list[int], asked: float | None = None, task: TaskSpec = TASK
) -> np.ndarray:
    """Of both actions at the last of ``places``, after ``actions`` at those before."""
    decoding = DecodingConfig(returns="none" if asked is None else "target", return_target=asked or 0.0)
    policy = Policy(learner.agent.eval(), task, 1, decoding, seed=0)
    for number, place in enumerate(places):
        chosen = policy.act({"place": np.array([place])}, np.array([number == 0]))
        if number < len(actions):
            policy.executed(np.array([actions[number]]))
    probability = float(np.exp(chosen.log_prob[0, 0]))
    return np.array([probability, 1 - probability])[:: 1 if chosen.action[0] == 0 else -1]


def test_at_first_no_action_is_preferred_and_all_values_are_low() -> None:
    learner = make_learner([episode([0], [0], [0.0])])
    assert probabilities(learner, [0], []) == pytest.approx([0.5, 0.5])
    values = learner.agent.action_values
    assert values is not None
    worth = values.expected(values(torch.randn(5, 32), 2))
    assert (worth > 0).all() and (worth < 0.2).all()


def test_targets_follow_what_was_done_as_far_as_the_trace_and_no_further_than_a_termination() -> None:
    reward = torch.tensor([[1.0, 2.0, 4.0, 8.0]] * 3)
    value = torch.tensor([[10.0, 20.0, 30.0, 40.0]] * 3)
    chosen = value - 1
    terminated = torch.tensor([[False] * 4, [False, False, False, True], [False] * 4])
    valid = torch.tensor([[True] * 4, [True] * 4, [True, True, False, False]])

    def targets(trace: float) -> tuple[torch.Tensor, torch.Tensor]:
        return retrace_targets(reward, terminated, valid, value, chosen, torch.full_like(reward, trace), 0.5)

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


def test_what_the_policy_would_not_do_is_not_followed() -> None:
    """Both actions of place 1 were taken as often, by a policy that is gone; only one of those at place 0 led there."""
    learner = make_learner([episode([0, 1], [0, action], [0.0, float(action)]) for action in (0, 1)], trace=1.0)
    for _ in range(150):
        learner.step()
    assert probabilities(learner, [0, 1], [0])[1] > 0.95
    values, batch = learner.agent.action_values, learner.batches.make().batch
    assert values is not None
    first = packed_hidden(learner.agent, batch)[batch.steps[0].position[:, 0, 0]]
    assert values.expected(values(first, 2))[:, 0].mean() > 0.8, "0.5 is the mean of what followed"


def test_it_is_not_fooled_by_luck_as_asking_for_the_best_return_is() -> None:
    generator = np.random.default_rng(0)
    sure = [episode([0], [0], [0.6]) for _ in range(40)]
    gambles = [episode([0], [1], [float(generator.random() < 0.5)]) for _ in range(40)]
    improving = make_learner([*sure, *gambles])
    conditioned = make_learner([*sure, *gambles], returns="masked")
    for _ in range(100):
        improving.step()
        conditioned.step()
    assert probabilities(improving, [0], [])[0] > 0.9
    assert probabilities(conditioned, [0], [], asked=1.0)[1] > 0.9


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


def test_it_stitches_halves_of_episodes_that_nobody_played_together() -> None:
    """From place 1: leave for 0.3, or walk to place 3. From place 2 all walk there. At 3 one action earns 1, the other
    nothing, and whoever came from 1 took the other, which the policy would not."""
    leave, failed = episode([1], [0], [0.3]), episode([1, 3], [1, 0], [0.0, 0.0])
    good, bad = episode([2, 3], [1, 1], [0.0, 1.0]), episode([2, 3], [1, 0], [0.0, 0.0])
    windows = [leave, failed, good, bad] * 10
    improving, conditioned = make_learner(windows), make_learner(windows, returns="masked")
    for _ in range(350):
        improving.step()
    for _ in range(150):
        conditioned.step()
    assert probabilities(improving, [1], [])[1] > 0.9
    assert probabilities(improving, [1, 3], [1])[1] > 0.9
    assert probabilities(conditioned, [1], [], asked=0.3)[0] > 0.9  # the most that was ever earned from there


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_padding_and_hidden_labels_count_for_nothing(share: float) -> None:
    """A crop of one step beside one of three, whose first label may not be learned from; nor does entropy count where
    there is nothing."""
    short, whole = episode([0], [0], [1.0]), episode([1, 2, 3], [1, 1, 0], [0.0, 0.0, 1.0])
    whole = dataclasses.replace(whole, label_mask=np.array([False, True, True]))
    learner = make_learner([short, whole], imitation_share=share)
    assert isinstance(learner.objective, AdvantageFiltered)
    learner.objective.multiplier[TASK.name].fill_(0.5)
    batch = learner.batches.make().batch
    before, _ = learner.objective.loss(learner.agent, batch)
    learner.objective.multiplier[TASK.name].fill_(0.5)  # which it moved
    learner.objective.mean_square.clear()
    steps = batch.steps[0]
    absent = steps.position[..., 0] < 0
    steps.reward[absent] = 1e6
    steps.action[absent] = 1
    steps.label[absent | ~steps.labelled] = 1
    after, _ = learner.objective.loss(learner.agent, batch)
    assert absent.any() and (~steps.labelled & ~absent).any()
    assert torch.equal(before, after) and torch.isfinite(after)


def test_what_is_done_with_equal_values_is_imitated_as_by_the_plain_objective() -> None:
    """Where no advantage is known every weight is 1, and all of it is imitation: Gato's loss, number by number."""
    windows = [episode([0, 1], [1, 0], [0.0, 0.0], "demonstrations", has_reward=False)]
    improving = make_learner(windows, critic_weight=0.0)
    batch = improving.batches.make().batch
    gradients = []
    for objective in (Imitation(improving.config), improving.objective):
        improving.agent.zero_grad()
        loss, _ = objective.loss(improving.agent, batch)
        loss.backward()
        grads = (torch.zeros_like(p) if p.grad is None else p.grad for p in improving.agent.parameters())
        gradients.append([loss.detach(), *grads])
    for plain, ours in zip(*gradients):
        torch.testing.assert_close(plain, ours, rtol=1e-5, atol=1e-8)


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
    values, batch = learner.agent.action_values, learner.batches.make().batch
    assert values is not None
    steps = batch.steps[0]
    worth = values.expected(values(packed_hidden(learner.agent, batch)[steps.position[..., 0]], 2)).detach()
    worth = 5.0 * worth.gather(2, steps.action)[:, :, 0]
    assert worth[steps.position[..., 0] >= 0].numpy() == pytest.approx(4.0, abs=0.4)


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
    for _ in range(200):
        learner.step()
    values, batch = learner.acting.action_values, learner.batches.make().batch
    assert values is not None
    at = packed_hidden(learner.acting, batch)[batch.steps[0].position[:, 0, 0]]
    worth = values.expected(values(at, 2) if task is TASK else values.of_state(at)[:, None]).mean(1).detach().numpy()
    place = batch.groups[0].arrays["place"][:, 0].numpy()
    paid = [[w.reward[0] for w in windows if w.observation["place"][0] == number] for number in (1, 2, 3)]
    earned = np.array([0.0, *map(np.mean, paid)])
    slope, offset = np.polyfit(earned[place], worth, 1)
    assert slope == pytest.approx(1.0, abs=0.15) and offset == pytest.approx(0.0, abs=0.08)


def test_demonstrations_without_rewards_are_imitated_and_their_values_not_learned() -> None:
    learner = make_learner([episode([0, 1], [1, 0], [0.0, 0.0], "demonstrations", has_reward=False)])
    for _ in range(60):
        learner.step()
    metrics = learner.metrics()
    assert metrics["loss/critic"] == 0 and np.isfinite(list(metrics.values())).all()
    assert probabilities(learner, [0], [])[1] > 0.9 and probabilities(learner, [0, 1], [1])[0] > 0.9


def test_a_floor_keeps_the_policy_from_one_action() -> None:
    windows = [episode([0], [action], [float(action)]) for action in (0, 1)]
    free, floored = make_learner(windows), make_learner(windows, entropy_floor=0.5)
    for step in range(120):
        free.step()
        floored.step()
        if step == 100:
            free.metrics()  # those from here on are looked at
    assert free.metrics()["entropy/test/places"] < 0.2
    assert floored.metrics()["entropy_multiplier/test/places"] > 0
    assert probabilities(floored, [0], [])[0] > 2 * probabilities(free, [0], [])[0]


def test_rewards_of_another_scale_move_the_policy_as_far() -> None:
    large = dataclasses.replace(TASK, value_range=(-1000.0, 1000.0))
    windows = [episode([0], [action], [float(action)]) for action in (0, 1)]
    scaled = [episode([0], [action], [2000.0 * action - 1000.0]) for action in (0, 1)]
    ordinary, other = make_learner(windows), make_learner(scaled, large)
    for _ in range(60):
        ordinary.step()
        other.step()
    assert probabilities(ordinary, [0], []) == pytest.approx(probabilities(other, [0], []), abs=1e-3)


def test_tasks_of_very_different_rewards_share_a_batch_as_equals() -> None:
    """One task pays a million times what the other does, in different places."""
    large = dataclasses.replace(TASK, name="test/large", value_range=(0.0, 1000.0))
    small = dataclasses.replace(TASK, name="test/small", value_range=(0.0, 0.001))
    paid = [episode([0], [action], [1000.0 * action]) for action in (0, 1)]
    little = [episode([1], [action], [0.001 * (1 - action)]) for action in (0, 1)]
    learner = make_learner(paid, large, beside=(small, little))
    batch, norms = learner.batches.make().batch, []
    for steps in batch.steps:
        learner.agent.zero_grad()
        learner.objective.loss(learner.agent, dataclasses.replace(batch, steps=[steps]))[0].backward()
        grads = [each.grad.norm() for each in learner.agent.parameters() if each.grad is not None]
        norms.append(float(torch.stack(grads).norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.3)
    for _ in range(60):
        learner.step()
    assert probabilities(learner, [0], [], task=large)[1] > 0.9
    assert probabilities(learner, [1], [], task=small)[0] > 0.9


def test_a_task_without_rewards_is_imitated_beside_one_with_them() -> None:
    shown = dataclasses.replace(TASK, name="test/shown")
    windows = [episode([0], [action], [float(action)]) for action in (0, 1)]
    silent = [episode([1], [0], [0.0], "demonstrations", has_reward=False)]
    learner = make_learner(windows, beside=(shown, silent))
    for _ in range(60):
        learner.step()
    metrics = learner.metrics()
    assert np.isfinite(list(metrics.values())).all()
    assert metrics["accepted/test/shown"] == 0 and metrics["accepted/test/places"] > 0
    assert probabilities(learner, [0], [])[1] > 0.9 and probabilities(learner, [1], [], task=shown)[0] > 0.9


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
        values = learner.acting.action_values
        assert values is not None
        at = packed_hidden(learner.acting, batch)[batch.steps[0].position[:, 0, 0]]
        worth = values.expected(values(at, 2)).detach()
        advantage[told] = float((worth[:, 1] - worth[:, 0]).mean())
    assert advantage[False] == pytest.approx(0.6, abs=0.2), advantage
    assert abs(advantage[True]) < 0.3 * advantage[False], advantage


def saved(folder: Path, learner: Learner) -> Checkpoint:
    return open_checkpoint(write_checkpoint(folder, take_snapshot(learner, {})))


def test_a_resumed_learner_goes_on_as_one_that_never_stopped(tmp_path: Path) -> None:
    # As long as the context, so that each is taken and the lists that stand in for replay stay in step.
    windows = [episode([0, 1, 2], [action, 1, 0], [0.0, float(action), 0.0]) for action in (0, 1)]
    straight, stopped, resumed = (make_learner(windows) for _ in range(3))
    for _ in range(6):
        straight.step()
    for _ in range(3):
        stopped.step()
    restore_checkpoint(saved(tmp_path, stopped), resumed)
    for _ in range(3):
        resumed.step()
    ours, theirs = (each.objective.tensors(each.agent) for each in (resumed, straight))
    assert set(ours) == set(theirs)
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, msg=name)
    for name, tensor in straight.acting.state_dict().items():
        torch.testing.assert_close(resumed.acting.state_dict()[name], tensor, msg=name)


def test_what_acts_and_is_kept_is_the_average_of_what_is_updated(tmp_path: Path) -> None:
    learner = make_learner([episode([0], [action], [float(action)]) for action in (0, 1)])
    for _ in range(3):
        learner.step()
    _, published = learner.next_version()
    kept = flat_weights(load_agent(saved(tmp_path, learner).folder))
    average, updated = flat_weights(learner.acting), flat_weights(learner.agent)
    for name, weights in average.items():
        assert np.array_equal(published[name], weights) and np.array_equal(kept[name], weights)
    assert any(not np.array_equal(average[name], updated[name]) for name in average)


def test_a_checkpoint_of_another_objective_is_refused(tmp_path: Path) -> None:
    learner = make_learner([episode([0], [0], [0.0])])
    learner.objective = Imitation(learner.config)
    with pytest.raises(ValueError, match="another objective"):
        restore_checkpoint(saved(tmp_path, learner), make_learner([episode([0], [0], [0.0])]))


def chosen_shares(learner: Learner, place: int, near: tuple[float, float]) -> float:
    """Of 64 sampled actions at a place, those within 0.1 of ``near`` in both numbers."""
    hide = "hidden" if learner.config.past_action_dropout else "shown"
    policy = Policy(learner.agent.eval(), ARM, 64, DecodingConfig(past_actions=hide), seed=0)
    acted = policy.act({"place": np.full(64, place)}, np.ones(64, bool)).action
    return float((np.abs(acted - np.array(near)) < 0.1).all(1).mean())


@pytest.mark.parametrize("hidden", [0.0, 1.0])
def test_an_action_of_two_numbers_is_judged_as_a_whole_and_luck_is_not_followed(hidden: float) -> None:
    """A sure 0.6 at (0.5, 0.5), a gamble at (-0.5, -0.5), and nothing at all where the two are mixed."""
    rng = np.random.default_rng(0)
    windows = [reaches([0], [(0.5, 0.5)], [0.6]) for _ in range(20)]
    windows += [reaches([0], [(-0.5, -0.5)], [float(rng.random() < 0.4)]) for _ in range(20)]
    windows += [reaches([0], [mixed], [0.0]) for mixed in ((0.5, -0.5), (-0.5, 0.5)) for _ in range(20)]
    learner = make_learner(windows, ARM, past_action_dropout=hidden)
    for _ in range(300):
        learner.step()
    values = learner.acting.action_values
    assert values is not None
    batch = learner.batches.make().batch
    steps = batch.steps[0]
    at = packed_hidden(learner.acting, batch)[steps.position[:, 0, 0]]
    worth = values.expected(values.of_taken(at, steps.action[:, 0], ARM, steps.legal.count)).detach()
    sure, mixed = (steps.action[:, 0] > 600).all(1), steps.action[:, 0, 0] != steps.action[:, 0, 1]
    assert worth[sure].mean() == pytest.approx(0.6, abs=0.1) and worth[mixed].mean() < 0.15
    # Numbers that are predicted beside each other, not after each other, are mixed by the policy as well.
    more = 1.0 if hidden else 1.3
    assert chosen_shares(learner, 0, (0.5, 0.5)) > more * chosen_shares(learner, 0, (-0.5, -0.5))
    assert learner.metrics()["accepted/test/arm"] == pytest.approx(0.25, abs=0.2)


def test_a_state_is_worth_the_better_of_what_was_done_there() -> None:
    """From place 1 leave for 0.4, or go on to 3, where two of three failed and one earned 1."""
    one, other = (0.5, 0.5), (-0.5, -0.5)
    leave, failed = reaches([1], [one], [0.4]), reaches([1, 3], [other, one], [0.0, 0.0])
    windows = [leave] * 3 + [failed] * 2 + [reaches([1, 3], [other, other], [0.0, 1.0])]
    bold, mean = (make_learner(windows, ARM, trace=0.0, outcome_share=0.0, expectile=e) for e in (0.9, 0.5))
    for _ in range(300):
        bold.step()
        mean.step()
    assert chosen_shares(bold, 1, other) > 0.55 > 0.45 > chosen_shares(mean, 1, other)


def test_windows_that_are_told_their_return_learn_beside_those_that_are_not() -> None:
    """Luck again: one model gambles when asked for 1, and does not when nothing is asked."""
    rng = np.random.default_rng(0)
    sure = [episode([0], [0], [0.6]) for _ in range(40)]
    gambles = [episode([0], [1], [float(rng.random() < 0.5)]) for _ in range(40)]
    learner = make_learner([*sure, *gambles], value_bins=51, returns="masked", return_dropout=0.5)
    for _ in range(200):
        learner.step()
    assert probabilities(learner, [0], [])[0] > 0.9
    assert probabilities(learner, [0], [], asked=1.0)[1] > 0.9
    said = learner.batches.make().batch.steps[0].said
    assert 0 < said.sum() < len(said)


def test_windows_of_a_source_learn_by_the_objective_that_is_chosen_for_it() -> None:
    """Demonstrations that do better in one case of four, and own windows from another place."""
    shown = [episode([0], [action], [1.0 - action], "demonstrations") for action in (0, 1, 1, 1)]
    own = [episode([1], [action], [1.0 - action]) for action in (0, 1)]
    judged, imitated = (
        make_learner([*shown, *own], objectives=objectives) for objectives in ({}, {"demonstrations": "imitation"})
    )
    for _ in range(100):
        judged.step()
        imitated.step()
    assert probabilities(judged, [0], [])[0] > 0.9
    assert probabilities(imitated, [0], [])[0] == pytest.approx(0.25, abs=0.05)
    assert probabilities(imitated, [1], [])[0] > 0.9

    chosen = {"demonstrations": "return_conditioned", "own": "advantage_filtered"}
    learner = make_learner([*shown, *own], value_bins=51, returns="masked", objectives=chosen)
    made = learner.batches.make()
    steps = made.batch.steps[0]
    told = [made.origins[window].source == "demonstrations" for window in steps.window]
    assert steps.said.tolist() == told and steps.rewarded.tolist() == [not each for each in told]


@pytest.mark.parametrize(
    ("task", "said"),
    [
        (dataclasses.replace(CONTROL, value_range=None), "value_range"),
        (dataclasses.replace(TASK, value_range=None), "value_range"),
        (dataclasses.replace(TASK, context_steps=1), "at least 2"),
    ],
)
def test_a_task_that_it_is_not_made_for_is_refused(task: TaskSpec, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make_learner([episode([0], [0], [0.0])], task)
