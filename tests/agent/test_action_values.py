"""Distributions of values: their means, their edges, and what an average of two says."""

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.action_values import ActionValues
from agent.agent import Agent
from agent.config import AgentConfig
from tests.agent.tasks import CONTROL, GRID, PASSAGE, PIXELS

VALUES = ActionValues(8, 101, GRID)


@given(st.floats(0.0, 1.0))
def test_the_mean_of_a_target_is_its_value(value: float) -> None:
    target = VALUES.soft(torch.tensor(value))
    assert target.sum().item() == pytest.approx(1.0, abs=1e-5) and (target >= 0).all()
    assert (target @ VALUES.centres).item() == pytest.approx(value, abs=2e-3)


@given(st.floats(-1e6, 1e6))
def test_what_lies_outside_is_moved_to_the_edge_of_the_range(value: float) -> None:
    mean = (VALUES.soft(torch.tensor([[value]])) @ VALUES.centres).item()
    assert mean == pytest.approx(min(1.0, max(0.0, value)), abs=2e-3)


def test_the_average_of_two_neighbours_logits_lies_between() -> None:
    """Weights that are averaged average logits; the mean of what they say must follow."""
    near, far = (VALUES.soft(torch.tensor(value)).clamp(min=1e-6).log() for value in (0.4, 0.5))
    for share in (0.25, 0.5, 0.75):
        mean = VALUES.expected((1 - share) * near + share * far).item()
        assert mean == pytest.approx(0.4 + 0.1 * share, abs=0.01)


def test_values_are_not_rounded_by_autocast() -> None:
    values, scores = ActionValues(8, 101, GRID), torch.randn(32, 101)
    exact = values.expected(scores)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(values.expected(scores), exact)


def test_every_task_has_a_head_of_its_own() -> None:
    """What is learned of one task's third action says nothing of another's; texts have no values."""
    dotted = dataclasses.replace(GRID, name="test/one.2%")
    tasks = (CONTROL, GRID, PIXELS, dotted, PASSAGE)
    agent = Agent(AgentConfig(width=8, layers=1, heads=2, value_bins=11), tasks)
    assert agent.action_values is not None
    assert list(agent.action_values) == ["test/control", "test/grid", "test/pixels", "test/one%2E2%25"]
    hidden, taken = torch.randn(3, 8), torch.tensor([[0, 5]]).expand(3, -1)
    few = (GRID, PIXELS, dotted)
    before = {task.name: agent.values_of(task)(hidden) for task in few}
    assert {name: scores.shape[1] for name, scores in before.items()} == {
        task.name: task.action.num_values for task in few
    }
    assert agent.values_of(CONTROL).of_taken(hidden, taken, 64).shape == agent.values_of(CONTROL).of_state(hidden).shape
    with torch.no_grad():
        for parameter in agent.values_of(GRID).parameters():
            parameter += 1.0
    assert not torch.allclose(agent.values_of(GRID)(hidden), before["test/grid"])
    for task in (PIXELS, dotted):
        assert torch.equal(agent.values_of(task)(hidden), before[task.name])
