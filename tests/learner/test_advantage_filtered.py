"""The policy of the objective that improves: luck, stitching, actions of several tokens, plain imitation."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from agent.config import DecodingConfig
from agent.policy import Policy
from agent.task import TaskSpec
from learner.batch import packed_hidden
from learner.learner import Learner
from learner.objectives.advantage_filtered import AdvantageFiltered
from learner.objectives.imitation import Imitation
from replay.window import Window
from tests.agent.tasks import CONTROL
from tests.learner.places import ARM, TASK, episode, make_learner, probabilities, reaches, shown


def test_at_first_no_action_is_preferred_and_all_values_are_low() -> None:
    learner = make_learner([episode([0], [0], [0.0])])
    assert probabilities(learner, [0], []) == pytest.approx([0.5, 0.5])
    values = learner.agent.values_of(TASK)
    worth = values.expected(values(torch.randn(5, 32)))
    assert (worth > 0).all() and (worth < 0.2).all()


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


@pytest.mark.learning
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


@pytest.mark.parametrize("imitated", [True, False], ids=["demonstrations", "online"])
def test_demonstrations_are_imitated_and_what_it_did_itself_is_not(imitated: bool) -> None:
    """Nothing is better than anything else, and only one action was ever taken."""
    one = (shown if imitated else episode)([0], [1], [0.5])
    task = dataclasses.replace(TASK, imitation_share=1.0)  # in the place of the learner's
    learner = make_learner([one], task, imitation_share=0.0, advantage_floor=10.0)
    for _ in range(100):
        learner.step()
    assert probabilities(learner, [0], []) == pytest.approx([0.0, 1.0] if imitated else [0.5, 0.5], abs=0.05)


@pytest.mark.parametrize("weighting, at_least, at_most", [(0.0, 0.4, 0.6), (1.0, 0.75, 1.0)])
def test_demonstrations_are_imitated_alike_or_by_what_they_paid(
    weighting: float, at_least: float, at_most: float
) -> None:
    windows = [shown([0], [action], [float(action)]) for action in (0, 1)]
    learner = make_learner(windows, imitation_share=1.0, imitation_weighting=weighting)
    for _ in range(150):
        learner.step()
    assert at_least <= probabilities(learner, [0], [])[1] <= at_most


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


@pytest.mark.learning
@pytest.mark.parametrize("of_task", [False, True], ids=["of all tasks", "of its own"])
def test_a_floor_keeps_the_policy_from_one_action(of_task: bool) -> None:
    def floor(share: float) -> Learner:
        own, of_all = (share, 0.5 - share) if of_task else (None, share)
        return make_learner(windows, dataclasses.replace(TASK, entropy_floor=own), entropy_floor=of_all)

    windows = [episode([0], [action], [float(action)]) for action in (0, 1)]
    free, floored = floor(0.0), floor(0.5)
    for step in range(280):
        floored.step()
        if step < 120:
            free.step()
        if step == 100:
            free.metrics()  # those from here on are looked at
        if step == 250:
            floored.metrics()
    assert free.metrics()["entropy/test/places"] < 0.2
    assert floored.metrics()["entropy/test/places"] == pytest.approx(0.5, abs=0.05)
    assert probabilities(floored, [0], [])[0] > 2 * probabilities(free, [0], [])[0]


@pytest.mark.learning
def test_what_is_imitated_does_not_hold_the_floor_for_what_it_does_itself() -> None:
    """Demonstrations at one place do either, so the policy there stays wide; at the other it has a best action."""
    windows = [shown([0], [action], [0.0]) for action in (0, 1)]
    windows += [episode([1], [action], [float(action)]) for action in (0, 1)]
    learner = make_learner(windows, imitation_share=1.0, entropy_floor=0.5)
    for _ in range(350):
        learner.step()
    learner.metrics()
    for _ in range(30):
        learner.step()
    metrics = learner.metrics()
    assert metrics["own_entropy/test/places"] == pytest.approx(0.5, abs=0.05)
    assert metrics["entropy/test/places"] == pytest.approx(0.75, abs=0.05)


@pytest.mark.parametrize(
    "calibration, pays, moves", [(0.0, False, True), (1.0, False, False), (1.0, True, True)], ids=str
)
def test_a_critic_counts_as_far_as_it_has_been_right(calibration: float, pays: bool, moves: bool) -> None:
    """A critic that is not trained prefers an action without knowing why; it pays or the other does."""
    task = dataclasses.replace(TASK, calibration=calibration)
    learner = make_learner([episode([0], [0], [0.0])], task)
    values, batch = learner.agent.values_of(task), learner.batches.make().batch
    at = packed_hidden(learner.agent, batch)[batch.steps[0].position[:1, 0, 0]]
    preferred = int(values.expected(values(at)).argmax())
    windows = [episode([0], [action], [float((action == preferred) == pays)]) for action in (0, 1)]
    learner = make_learner(windows, task, critic_weight=0.0, outcome_share=0.0, advantage_floor=1e-6)
    for _ in range(20):  # what the policy learns changes before long what such a critic reads
        learner.step()
    at_least, at_most = (0.8, 1.0) if moves else (0.49, 0.51)
    assert at_least <= probabilities(learner, [0], [])[preferred] <= at_most


@pytest.mark.learning
def test_with_less_of_the_prior_odds_do_not_grow_for_ever() -> None:
    """One action is 1 better. With half of the prior an update moves log odds d to d / 2 + 1 + exp(-d / 2), the better
    action's advantage being exp(-d / 2) root mean squares and the other's clipped at -1: at rest 0.93 are better."""
    windows = [episode([0], [action], [float(action)]) for action in (0, 1)]
    adding = make_learner(windows)
    fading = make_learner(windows, dataclasses.replace(TASK, prior_weight=0.5))  # in the place of the learner's
    for _ in range(200):
        adding.step()
        fading.step()
    assert probabilities(adding, [0], [])[1] > 0.98
    assert probabilities(fading, [0], [])[1] == pytest.approx(0.93, abs=0.02)


def chosen_shares(learner: Learner, place: int, near: tuple[float, float]) -> float:
    """Of 64 sampled actions at a place, those within 0.1 of ``near`` in both numbers."""
    hide = "hidden" if learner.config.past_action_dropout else "shown"
    policy = Policy(learner.agent.eval(), ARM, 64, DecodingConfig(past_actions=hide), seed=0)
    acted = policy.act({"place": np.full(64, place)}, np.ones(64, bool)).action
    return float((np.abs(acted - np.array(near)) < 0.1).all(1).mean())


@pytest.mark.parametrize("hidden", [0.0, pytest.param(1.0, marks=pytest.mark.learning)])
def test_an_action_of_two_numbers_is_judged_as_a_whole_and_luck_is_not_followed(hidden: float) -> None:
    """A sure 0.6 at (0.5, 0.5), a gamble at (-0.5, -0.5), and nothing at all where the two are mixed."""
    rng = np.random.default_rng(0)
    windows = [reaches([0], [(0.5, 0.5)], [0.6]) for _ in range(20)]
    windows += [reaches([0], [(-0.5, -0.5)], [float(rng.random() < 0.4)]) for _ in range(20)]
    windows += [reaches([0], [mixed], [0.0]) for mixed in ((0.5, -0.5), (-0.5, 0.5)) for _ in range(20)]
    learner = make_learner(windows, ARM, past_action_dropout=hidden)
    for _ in range(300):
        learner.step()
    values = learner.acting.values_of(ARM)
    batch = learner.batches.make().batch
    steps = batch.steps[0]
    at = packed_hidden(learner.acting, batch)[steps.position[:, 0, 0]]
    worth = values.expected(values.of_taken(at, steps.action[:, 0], steps.legal.count)).detach()
    sure, mixed = (steps.action[:, 0] > 600).all(1), steps.action[:, 0, 0] != steps.action[:, 0, 1]
    assert worth[sure].mean() == pytest.approx(0.6, abs=0.1) and worth[mixed].mean() < 0.15
    # Numbers that are predicted beside each other, not after each other, are mixed by the policy as well.
    more = 1.0 if hidden else 1.3
    assert chosen_shares(learner, 0, (0.5, 0.5)) > more * chosen_shares(learner, 0, (-0.5, -0.5))
    assert learner.metrics()["accepted/test/arm"] == pytest.approx(0.25, abs=0.2)


@pytest.mark.learning
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


@pytest.mark.parametrize(
    "calibration, pays, moves", [(0.0, False, True), (1.0, False, False), (1.0, True, True)], ids=str
)
def test_a_critic_of_actions_that_are_not_all_weighed_counts_so_too(
    calibration: float, pays: bool, moves: bool
) -> None:
    """It is not trained, and holds one of two reaches for better than the state and the other for worse."""
    task = dataclasses.replace(ARM, calibration=calibration)
    settings = {"critic_weight": 0.0, "outcome_share": 0.0, "advantage_floor": 1e-6}
    reached = [(0.8, -0.8), (-0.8, 0.8)]

    def learner_of(windows: list[Window]) -> Learner:
        learner = make_learner(windows, task, **settings)
        assert isinstance(learner.objective, AdvantageFiltered)
        learner.objective.target.values_of(task).encoder.elements.mul_(10.0)  # or all actions are alike to it
        return learner

    learner = learner_of([reaches([0], [reached[0]], [0.0])])
    former, batch = learner.acting, learner.batches.make().batch
    values, count = former.values_of(task), batch.steps[0].legal.count
    at = packed_hidden(former, batch)[batch.steps[0].position[:1, 0, 0]]
    action = ((torch.tensor(reached) + 1) / 2 * (count - 1)).round().long()
    above = values.expected(values.of_taken(at.expand(2, -1), action, count)) - values.expected(values.of_state(at))
    assert above.min() < 0 < above.max()
    preferred = int(above.argmax())
    windows = [reaches([0], [each], [float((number == preferred) == pays)]) for number, each in enumerate(reached)]
    learner = learner_of(windows)
    for _ in range(60):
        learner.step()
    at_least, at_most = (0.7, 0.9) if moves else (0.35, 0.65)
    assert at_least <= chosen_shares(learner, 0, reached[preferred]) <= at_most


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
