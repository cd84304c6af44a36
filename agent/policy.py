"""`Policy`: observe and act for a batch of environments, with the context the agent was trained on.

The same class serves environment actors and the evaluator. Each slot reads its last `TaskSpec.context_steps` timesteps,
as a training crop does; the embedding of a timestep is computed once and kept until the weights change.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.config import DecodingConfig
from agent.inputs import TaskInputs, action_elements, encode_texts
from agent.sampling import choose
from agent.task import TaskSpec
from agent.weights import load_weights


@dataclasses.dataclass(frozen=True)
class Action:
    """What the policy chose for E slots.

    Attributes:
        action: [E, *action shape] in the dtype of the spec; what the environments execute.
        log_prob: float32 [E, elements] of each action token under the distribution really sampled from; NaN where the
            decoding does not sample.
    """

    action: np.ndarray
    log_prob: np.ndarray


class Policy:
    """Acts in one task for ``num_slots`` environments."""

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
        self._legal = agent.vocabulary.legal_actions(task.action)
        context, elements = task.context_steps, task.action_tokens
        # Context, right-aligned: the newest timestep is the last; `_lengths` counts the valid ones of each slot.
        self._arrays = {
            key: torch.zeros(num_slots, context, *spec.shape, dtype=torch.from_numpy(np.empty(0, spec.dtype)).dtype)
            for key, spec in task.observation.items()
            if spec.kind != "text"
        }
        action_dtype = torch.int64 if task.action.kind == "discrete" else torch.float32
        self._action = torch.zeros(num_slots, context, elements, dtype=action_dtype)
        self._lengths = torch.zeros(num_slots, dtype=torch.int64)
        self._texts: list[dict[str, str]] = [{} for _ in range(num_slots)]
        self._encoded_texts: dict[str, torch.Tensor] = {}
        self._hide = torch.full((num_slots,), self.decoding.past_actions == "hidden")
        self._embedded: torch.Tensor | None = None

    def load_weights(self, version: int, weights: dict[str, np.ndarray], published_at: float = 0.0) -> None:
        """Swap the weights, at any time: what is kept of the context is embedded anew, so versions never mix."""
        load_weights(self.agent, weights)
        self.version, self.published_at = version, published_at
        self._embedded = None

    @torch.inference_mode()
    def act(self, observation: dict[str, Any], is_first: np.ndarray) -> Action:
        """Choose an action for every slot.

        Args:
            observation: by key, [E, *shape], or E strings for a text.
            is_first: bool [E]; these slots begin an episode and forget what came before.
        """
        self._observe(observation, is_first)
        elements = self.task.action_tokens
        longest = int(self._lengths.max())
        if self._embedded is None:
            self._embedded = self._embed(slice(None))
        chosen, log_probs = [], []
        hidden_ahead = elements if bool(self._hide.any()) else 1
        for element in range(elements):
            if element == 0 or hidden_ahead == 1:
                hidden = self._hidden(longest, element + hidden_ahead)
            offset = element - elements if hidden_ahead > 1 else -1
            scores = self.agent.logits(hidden[:, offset], self._legal).float().cpu()
            value, log_prob = choose(scores, self.task.action, self.decoding, self._generator)
            chosen.append(value)
            log_probs.append(log_prob)
            self._set_action(element, value)
        action = torch.stack(chosen, dim=1).numpy().reshape(self.num_slots, *self.task.action.shape)
        return Action(action.astype(self.task.action.dtype), torch.stack(log_probs, dim=1).numpy())

    @torch.inference_mode()
    def executed(self, action: np.ndarray) -> None:
        """Say what was executed, [E, *action shape], where it differs from what `act` chose."""
        elements = torch.from_numpy(action_elements(action, self.task))
        for element in range(self.task.action_tokens):
            self._set_action(element, elements[:, element])

    def _observe(self, observation: dict[str, Any], is_first: np.ndarray) -> None:
        first = torch.from_numpy(np.asarray(is_first, bool))
        self._lengths[first] = 0
        self._lengths = (self._lengths + 1).clamp(max=self.task.context_steps)
        for key, ring in self._arrays.items():
            ring.copy_(ring.roll(-1, dims=1))
            ring[:, -1] = torch.from_numpy(np.ascontiguousarray(observation[key]))
        self._action = self._action.roll(-1, dims=1)
        self._action[:, -1] = 0
        text_keys = [key for key, spec in self.task.observation.items() if spec.kind == "text"]
        if first.any():
            for slot in np.flatnonzero(is_first):
                self._texts[slot] = {key: observation[key][slot] for key in text_keys}
            self._encode_texts()
        if self._embedded is not None:
            self._embedded = torch.cat((self._embedded[:, 1:], self._embed(slice(-1, None))), dim=1)

    def _encode_texts(self) -> None:
        self._encoded_texts = encode_texts(self.task, self._texts, self.agent.text)
        if self._embedded is not None and self._embedded.shape[2] != self._positions():
            self._embedded = None  # the longest text changed the layout of a timestep

    def _inputs(self, steps: slice) -> TaskInputs:
        return TaskInputs(
            self.task,
            {key: ring[:, steps] for key, ring in self._arrays.items()},
            self._encoded_texts,
            self._action[:, steps],
            self._hide,
            torch.ones(self.num_slots, dtype=torch.int64),
        ).to(self.agent.device)

    def _positions(self) -> int:
        return self.agent.observation.mask(self._inputs(slice(-1, None))).shape[1] + 1 + self.task.action_tokens

    def _embed(self, steps: slice) -> torch.Tensor:
        return self.agent.embed(self._inputs(steps))

    def _set_action(self, element: int, value: torch.Tensor) -> None:
        self._action[:, -1, element] = value.to(self._action.dtype)
        if self._embedded is not None:
            inputs = self._inputs(slice(-1, None))
            at = self._embedded.shape[2] - self.task.action_tokens + element
            self._embedded[:, -1, at] = self.agent.embed_actions(inputs)[:, 0, element]

    def _hidden(self, longest: int, ahead: int) -> torch.Tensor:
        """Hidden states over the last ``longest`` timesteps, up to ``ahead`` positions from the newest separator on."""
        assert self._embedded is not None
        elements = self.task.action_tokens
        mask = self.agent.observation.mask(self._inputs(slice(-1, None)))
        tail = torch.ones(self.num_slots, 1 + elements, dtype=torch.bool, device=mask.device)
        place = torch.arange(longest, device=mask.device)
        valid_step = place >= longest - self._lengths.to(mask.device)[:, None]
        valid = (torch.cat((mask, tail), dim=1)[:, None] & valid_step[..., None]).flatten(1)
        stop = valid.shape[1] - elements + ahead - 1
        x = self._embedded[:, -longest:].flatten(1, 2)[:, :stop]
        valid = valid[:, :stop]
        if bool(valid.all()):
            return self.agent.transformer(x)
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        return self.agent.transformer(x, positions, valid.int())
