"""Windows of several tasks, scales of reward, sources and objectives in one batch of the objective that improves."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from tests.learner.places import TASK, episode, make_learner, probabilities


def test_demonstrations_without_rewards_are_imitated_and_their_values_not_learned() -> None:
    learner = make_learner([episode([0, 1], [1, 0], [0.0, 0.0], "demonstrations", has_reward=False)])
    for _ in range(60):
        learner.step()
    metrics = learner.metrics()
    assert metrics["loss/critic"] == 0 and np.isfinite(list(metrics.values())).all()
    assert probabilities(learner, [0], [])[1] > 0.9 and probabilities(learner, [0, 1], [1])[0] > 0.9


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


@pytest.mark.learning
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
