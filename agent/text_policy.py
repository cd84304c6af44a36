"""`TextPolicy`: says a text for a batch of environments, token by token, and scores texts that were said by others."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from agent.acting import Acting
from agent.attention import Layout
from agent.context import last
from agent.inputs import TaskInputs, encode_said, encode_texts
from agent.sampling import Action, choose


class TextPolicy(Acting):
    """Answers in one task whose actions are texts; used like `agent.policy.Policy`.

    An episode is one step, so nothing is kept between two calls of `act`, and a prompt has no room. All tokens so far
    are read again for each new one.
    """

    @torch.inference_mode()
    def act(self, observation: dict[str, Any], is_first: np.ndarray) -> Action:
        """Say a text in every slot.

        Args:
            observation: by key, [E, *shape], or E strings for a text.
            is_first: bool [E]; every step begins an episode, so it is not looked at.
        """
        said = torch.zeros(self.num_slots, 1, 0, dtype=torch.int64)
        log_probs = np.full((self.num_slots, self.task.action_tokens), np.nan, np.float32)
        ended = torch.zeros(self.num_slots, dtype=torch.bool)
        inputs = self._inputs(observation, said)
        observed = self._acting.observation(inputs, self._acting.tokens)
        while not bool(ended.all()) and said.shape[2] < self.task.action_tokens:
            hidden, valid = self._read(inputs, observed)
            scores = self._acting.logits(last(hidden, valid, 1)[:, 0], self._legal).float().cpu()
            index, log_prob = choose(scores, self.task.action, self.decoding, self._generator)
            log_probs[:, said.shape[2]] = torch.where(ended, torch.nan, log_prob).numpy()
            said = torch.cat((said, torch.where(ended, -1, index)[:, None, None]), dim=2)
            ended |= index == self.agent.text.end
            inputs = dataclasses.replace(inputs, action=said.to(self.agent.device))
        action = np.stack([self._bytes(ids) for ids in said[:, 0].tolist()])
        return Action(action, log_probs)

    @torch.inference_mode()
    def score(self, observation: dict[str, Any], said: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Nats of each of E texts ``said`` (uint8 [E, max_bytes]), the end included, and its tokens; both [E]."""
        ids = torch.from_numpy(encode_said(said[:, None], self.agent.text))
        inputs = self._inputs(observation, ids)
        hidden, _ = self._read(inputs, self._acting.observation(inputs, self._acting.tokens))
        logits = self._acting.logits(hidden[:, -inputs.elements - 1 : -1], self._legal).float().cpu()
        ids = ids[:, 0]
        nats = -logits.log_softmax(-1).gather(2, ids.clamp(min=0)[..., None])[..., 0]
        return (nats * (ids >= 0)).sum(1).numpy(), (ids >= 0).sum(1).numpy()

    def asked(self) -> None:
        """No returns are asked for."""

    def rewarded(self, reward: np.ndarray) -> None:
        """Nothing hangs on rewards."""

    def executed(self, action: np.ndarray) -> None:
        """Nothing hangs on what was executed."""

    def _inputs(self, observation: dict[str, Any], said: torch.Tensor) -> TaskInputs:
        """One timestep with the tokens said so far, int64 [E, 1, n]."""
        keys = [key for key, spec in self.task.observation.items() if spec.kind == "text"]
        count = len(said)
        texts = [{key: observation[key][slot] for key in keys} for slot in range(count)]
        return TaskInputs(
            self.task,
            {
                key: torch.from_numpy(np.ascontiguousarray(values))[:, None]
                for key, values in observation.items()
                if key not in keys
            },
            encode_texts(self.task, texts, self.agent.text),
            said,
            torch.zeros(count, dtype=torch.bool),
            torch.ones(count, dtype=torch.int64),
        ).to(self.agent.device)

    def _read(self, inputs: TaskInputs, observed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hidden states [E, positions, d], and which positions are real, bool [E, positions]."""
        x = torch.cat((observed, self._acting.embed_tail(inputs).to(observed.dtype)), dim=2)[:, 0]
        valid = self._acting.valid_positions(inputs)[:, 0].to(x.device)
        layout = Layout((valid.cumsum(1) - 1).clamp(min=0), None if bool(valid.all()) else valid.int())
        return self._acting.transformer(x, layout), valid

    def _bytes(self, ids: list[int]) -> np.ndarray:
        """A said text as an action, cut at a whole character where it is too long."""
        pieces = [piece for piece in ids if piece not in (-1, self.agent.text.end)]
        text, longest = self.agent.text.decode(pieces).replace("\0", ""), self.task.action.max_bytes
        data = text.encode()[:longest].decode(errors="ignore").encode()
        return np.frombuffer(data.ljust(longest, b"\0"), np.uint8)
