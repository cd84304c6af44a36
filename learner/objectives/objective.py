"""What the learner asks of an objective, and which one a configuration means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch

from agent.agent import Agent
from learner.batch import Batch
from learner.config import LearnerConfig

LossAndRecord = tuple[torch.Tensor, dict[str, torch.Tensor]]
"""The loss to minimise, and numbers for the record by name; ``window_loss`` [windows] among them."""


class Objective(Protocol):
    """Turns a batch into a loss. What it keeps between updates goes into checkpoints.

    Attributes:
        varied_lengths: crops have half of the context to all of it, rather than all where the window has it; but not of
            tasks with a ``return_horizon``.
    """

    varied_lengths: bool

    def loss(self, agent: Agent, batch: Batch) -> LossAndRecord:
        """Of one batch."""
        ...

    def updated(self, agent: Agent) -> None:
        """The optimiser has made a step."""
        ...

    def acting(self, agent: Agent) -> Agent:
        """Whose weights are published, evaluated and kept: ``agent`` itself, or an average over its updates."""
        ...

    def tensors(self, agent: Agent) -> dict[str, torch.Tensor]:
        """What is kept between updates beside the weights that act, by name; on any device, not to be changed."""
        ...

    def restore(self, agent: Agent, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of `tensors`, with the weights that act in ``agent``; other names or shapes raise ValueError."""
        ...


def make_objective(agent: Agent, config: LearnerConfig) -> Objective:
    """The objective of ``learner.objective``; ValueError where the agent or one of its tasks is not made for it."""
    from learner.objectives.advantage_filtered import AdvantageFiltered
    from learner.objectives.imitation import Imitation
    from learner.objectives.return_conditioned import ReturnConditioned

    if config.objective == "imitation":
        return Imitation(config)
    if config.objective == "return_conditioned":
        return ReturnConditioned(agent, config)
    return AdvantageFiltered(agent, config)
