"""The averages that act: published, kept in checkpoints, and gone on from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from agent.weights import flat_weights, load_agent
from learner.checkpoint import Checkpoint, open_checkpoint, restore_checkpoint, take_snapshot, write_checkpoint
from learner.learner import Learner
from learner.objectives.imitation import Imitation
from tests.learner.places import episode, make_learner


def saved(folder: Path, learner: Learner) -> Checkpoint:
    return open_checkpoint(write_checkpoint(folder, take_snapshot(learner, {})))


def test_a_resumed_learner_goes_on_as_one_that_never_stopped(tmp_path: Path) -> None:
    # As long as the context, so that each is taken and the lists that stand in for replay stay in step.
    windows = [episode([0, 1, 2], [action, 1, 0], [0.0, float(action), 0.0]) for action in (0, 1)]
    straight, stopped, resumed = (make_learner(windows, calibration=1.0) for _ in range(3))
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
