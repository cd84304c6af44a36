"""`Acting`: what all policies share: one agent, one task, the weights they act with and their version."""

from __future__ import annotations

import numpy as np
import torch

from agent.agent import Agent
from agent.config import DecodingConfig
from agent.context import Prompt
from agent.packed_linears import can_pack, packed_agent
from agent.quantisation import int8_agent
from agent.task import TaskSpec
from agent.weights import load_weights


class Acting:
    """Acts in one task for ``num_slots`` environments.

    Attributes:
        version, published_at: of the weights.
    """

    def __init__(
        self, agent: Agent, task: TaskSpec, num_slots: int, decoding: DecodingConfig | None = None, seed: int = 0
    ) -> None:
        self.agent = agent.eval()
        self.task = task
        self.num_slots = num_slots
        self.decoding = decoding or DecodingConfig()
        self.decoding.validate()
        self.version = -1
        self.published_at = 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._legal = agent.legal(task)
        self._acting = self._make_acting()

    def read_first(self, prompt: Prompt | None) -> None:
        """Read a prompt before everything else from now on; ValueError where the task has no room for one."""
        raise ValueError(f"{self.task.name} is one step long and has no room for a prompt; use none")

    def load_weights(self, version: int, weights: dict[str, np.ndarray], published_at: float = 0.0) -> None:
        """Swap the weights, at any time."""
        load_weights(self.agent, weights)
        if self._acting is not self.agent:
            self._acting.transformer = self._make_acting().transformer
        self.version, self.published_at = version, published_at

    def _make_acting(self) -> Agent:
        if self.decoding.weights == "int8":
            return int8_agent(self.agent)
        return packed_agent(self.agent) if can_pack(self.agent) else self.agent
