"""What a policy has seen: `Context` holds the newest timesteps of E slots as raw values; a reader gives hidden states.

Two readers: `Recompute` runs the model over the whole context at every step, as a training crop is read; `Cached` keeps
keys and values and runs it over new tokens only.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np
import torch

from agent.agent import Agent
from agent.attention import Layout
from agent.cache import KeyValueCache
from agent.inputs import TaskInputs, action_elements, encode_texts
from agent.task import TaskSpec


@dataclasses.dataclass(frozen=True)
class Prompt:
    """P timesteps of another episode of the task, which every slot reads first and keeps (Reed et al. 2022, section 5).

    Attributes:
        observation: arrays by key, [P, *shape].
        texts: of that episode, by key.
        action: executed, [P, *action shape].
    """

    observation: dict[str, np.ndarray]
    texts: dict[str, str]
    action: np.ndarray

    def __post_init__(self) -> None:
        for key, values in self.observation.items():
            if len(values) != self.steps:
                raise ValueError(f"a prompt of {self.steps} actions has {len(values)} observations of {key!r}")

    @property
    def steps(self) -> int:
        """Timesteps P."""
        return len(self.action)


class Context:
    """The newest timesteps of E slots, right-aligned: the newest is the last.

    Attributes:
        prompt: read before them, if any.
        limit: timesteps that the agent reads beside the prompt: together `TaskSpec.context_steps`.
        lengths: int64 [E], timesteps of its episode that each slot holds, at most ``limit``.
        hide: whether actions are hidden from the model.
    """

    def __init__(self, agent: Agent, task: TaskSpec, num_slots: int, hide: bool, prompt: Prompt | None = None) -> None:
        self.agent, self.task, self.num_slots, self.hide, self.prompt = agent, task, num_slots, hide, prompt
        self.limit = task.context_steps - (0 if prompt is None else prompt.steps)
        if self.limit < 1:
            raise ValueError(
                f"a prompt of {task.context_steps - self.limit} timesteps leaves none of {task.name}'s "
                f"context of {task.context_steps}; give a shorter one"
            )
        self.lengths = torch.zeros(num_slots, dtype=torch.int64)
        held = max(2, self.limit)  # an action is read one step later
        self._arrays = {
            key: torch.zeros(num_slots, held, *spec.shape, dtype=torch.from_numpy(np.empty(0, spec.dtype)).dtype)
            for key, spec in task.observation.items()
            if spec.kind != "text"
        }
        dtype = torch.int64 if task.action.kind == "discrete" else torch.float32
        self._action = torch.zeros(num_slots, held, task.action_tokens, dtype=dtype)
        self._text_keys = [key for key, spec in task.observation.items() if spec.kind == "text"]
        self._texts: list[dict[str, str]] = [dict.fromkeys(self._text_keys, "") for _ in range(num_slots)]
        self._encoded_texts = encode_texts(task, self._texts, agent.text)

    def observe(self, observation: dict[str, Any], is_first: torch.Tensor) -> None:
        """Add a timestep; slots in ``is_first`` (bool [E]) forget what came before."""
        self.lengths[is_first] = 0
        self.lengths = (self.lengths + 1).clamp(max=self.limit)
        for key, ring in self._arrays.items():
            ring.copy_(ring.roll(-1, dims=1))
            ring[:, -1] = torch.from_numpy(np.ascontiguousarray(observation[key]))
        self._action = self._action.roll(-1, dims=1)
        self._action[:, -1] = 0
        if self._text_keys and bool(is_first.any()):
            for slot in torch.nonzero(is_first)[:, 0].tolist():
                self._texts[slot] = {key: observation[key][slot] for key in self._text_keys}
            self._encoded_texts = encode_texts(self.task, self._texts, self.agent.text)

    def set_action(self, action: np.ndarray) -> None:
        """The newest timestep's whole action, [E, *action shape]."""
        self._action[:, -1] = torch.from_numpy(action_elements(action, self.task))

    def set_element(self, element: int, value: torch.Tensor) -> None:
        """One element, [E], of the newest timestep's action."""
        self._action[:, -1, element] = value.to(self._action.dtype)

    def inputs(self, slots: torch.Tensor | None, steps: int) -> TaskInputs:
        """The newest ``steps`` timesteps of some slots (int64 [m]; None: all)."""
        chosen = slice(None) if slots is None else slots
        action = self._action[chosen, -steps:]
        return TaskInputs(
            self.task,
            {key: ring[chosen, -steps:] for key, ring in self._arrays.items()},
            {key: text[chosen] for key, text in self._encoded_texts.items()},
            action,
            torch.full((len(action),), self.hide),
            torch.full((len(action),), steps, dtype=torch.int64),
        ).to(self.agent.device)

    def embedded_prompt(self) -> torch.Tensor:
        """Tokens of the prompt, [1, tokens, d]; without one there are none."""
        prompt, task = self.prompt, self.task
        if prompt is None:
            return torch.zeros(1, 0, self.agent.config.width, device=self.agent.device)
        inputs = TaskInputs(
            task,
            {key: torch.from_numpy(array)[None] for key, array in prompt.observation.items()},
            encode_texts(task, [prompt.texts], self.agent.text),
            torch.from_numpy(action_elements(prompt.action, task))[None],
            torch.tensor([self.hide]),
            torch.tensor([prompt.steps]),
        ).to(self.agent.device)
        valid = token_mask(self.agent, inputs)[:, None].expand(-1, prompt.steps, -1).flatten()
        return self.agent.embed(inputs).flatten(1, 2)[:, valid]


class Reader(Protocol):
    """Hidden states of the newest timestep.

    Where actions are hidden, all elements of an action are predicted at once: k is their number. Else k is 1 and the
    elements are fed one after the other.
    """

    def observe(self, is_first: torch.Tensor) -> torch.Tensor:
        """[E, k, d]: from the separator on, after the context has taken an observation."""
        ...

    def feed(self, element: int) -> torch.Tensor:
        """[E, 1, d]: at an element of the newest action, which the context has taken."""
        ...

    def rewrite(self) -> None:
        """The newest action has changed since its elements were fed."""
        ...

    def forget(self) -> None:
        """The weights have changed."""
        ...


class Recompute:
    """Reads all of the context at every step. The embedding of a timestep is kept until the weights change."""

    def __init__(self, context: Context) -> None:
        self._context, self._agent = context, context.agent
        self._embedded: torch.Tensor | None = None
        self._prompt: torch.Tensor | None = None

    def observe(self, is_first: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        context, elements = self._context, self._context.task.action_tokens
        held = max(2, context.limit)
        newest = self._agent.embed(context.inputs(None, 1))
        if self._embedded is None or self._embedded.shape[2] != newest.shape[2]:  # a longer text widens a timestep
            self._embedded = self._agent.embed(context.inputs(None, held))
        else:
            self._embedded = torch.cat((self._embedded[:, 1:], newest), dim=1)
            # The action of the step before was not known when its timestep was embedded.
            self._embedded[:, -2, -elements:] = self._agent.embed_actions(context.inputs(None, 2))[:, 0]
        ahead = elements if context.hide else 1
        return self._hidden(ahead - 1)[:, -ahead:]

    def feed(self, element: int) -> torch.Tensor:
        """See `Reader`."""
        assert self._embedded is not None
        elements = self._context.task.action_tokens
        embedded = self._agent.embed_actions(self._context.inputs(None, 1))
        self._embedded[:, -1, element - elements] = embedded[:, 0, element]
        return self._hidden(element + 1)[:, -1:]

    def rewrite(self) -> None:
        """See `Reader`; the next observation reads the action again."""

    def forget(self) -> None:
        """See `Reader`."""
        self._embedded = self._prompt = None

    def _hidden(self, known: int) -> torch.Tensor:
        """Hidden states of the context, up to ``known`` elements of the newest action."""
        assert self._embedded is not None
        context = self._context
        longest = int(context.lengths.max())
        mask = token_mask(self._agent, context.inputs(None, 1))
        started = torch.arange(longest) >= longest - context.lengths[:, None]
        valid = (mask[:, None] & started.to(mask.device)[..., None]).flatten(1)
        stop = valid.shape[1] - context.task.action_tokens + known
        x, valid = self._embedded[:, -longest:].flatten(1, 2)[:, :stop], valid[:, :stop]
        if context.prompt is None:
            pinned = None
        else:
            if self._prompt is None:
                self._prompt = context.embedded_prompt()
            x = torch.cat((self._prompt.expand(len(x), -1, -1), x), dim=1)
            pinned = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
            pinned[:, : self._prompt.shape[1]] = True
            valid = torch.cat((pinned[:, : self._prompt.shape[1]], valid), dim=1)
        positions = (valid.cumsum(1) - 1).clamp(min=0)
        segments = None if bool(valid.all()) else valid.int()
        return self._agent.transformer(x, Layout(positions, segments, pinned=pinned))


class Cached:
    """Reads new tokens only, beside the keys and values of what was read before.

    Without an attention window a slot whose context is full keeps its newest half, from the beginning of a timestep,
    and reads that again (so positions begin anew); with one, old tokens fall out of the window one by one. New weights
    have every slot read again what the context still holds: keys of two policy versions never mix.
    """

    def __init__(self, context: Context, rolling: bool) -> None:
        self._context, self._agent, self._rolling = context, context.agent, rolling
        self._cache = KeyValueCache(
            self._agent.config, context.num_slots, self._agent.device, context.task.action_tokens
        )
        self._steps = torch.zeros(context.num_slots, dtype=torch.int64)  # timesteps in the cache
        self._stale = True
        self._fed = 0  # elements of the newest action that are in the cache

    def observe(self, is_first: torch.Tensor) -> torch.Tensor:
        """See `Reader`."""
        context = self._context
        if self._stale:
            self._read_prompt()
        self._steps = torch.where(is_first, 1, self._steps + 1)
        anew = is_first | self._stale
        if not self._rolling:
            full = self._steps > context.limit
            self._steps[full] = max(1, context.limit // 2)
            anew |= full
        ahead = context.task.action_tokens if context.hide else 1
        hidden = torch.empty(context.num_slots, ahead, self._agent.config.width, device=self._agent.device)
        for chosen, read in ((anew, self._read_again), (~anew, self._read_on)):
            if bool(chosen.any()):
                slots = None if bool(chosen.all()) else torch.nonzero(chosen)[:, 0]
                hidden[chosen] = read(slots, ahead - 1)[:, -ahead:].to(hidden.dtype)
        self._stale, self._fed = False, ahead - 1
        return hidden

    def feed(self, element: int) -> torch.Tensor:
        """See `Reader`."""
        self._fed = element + 1
        x = self._agent.embed_actions(self._context.inputs(None, 1))[:, 0, element : element + 1]
        return self._append(None, x, torch.ones(x.shape[:2], dtype=torch.bool, device=x.device))

    def rewrite(self) -> None:
        """See `Reader`."""
        if not self._context.hide and self._fed:
            self._cache.drop(self._fed)
            self._fed = 0

    def forget(self) -> None:
        """See `Reader`."""
        self._stale = True

    def _read_prompt(self) -> None:
        self._cache.clear()
        prompt = self._context.embedded_prompt().expand(self._context.num_slots, -1, -1)
        if prompt.shape[1]:
            self._append(None, prompt, torch.ones(prompt.shape[:2], dtype=torch.bool, device=prompt.device))
            self._cache.pin(prompt.shape[1])

    def _read_again(self, slots: torch.Tensor | None, known: int) -> torch.Tensor:
        """The newest timesteps of slots, into their emptied cache."""
        context = self._context
        chosen = torch.arange(context.num_slots) if slots is None else slots
        self._steps[chosen] = torch.minimum(self._steps[chosen], context.lengths[chosen])
        steps = self._steps[chosen]
        longest = int(steps.max())
        inputs = context.inputs(slots, longest)
        started = torch.arange(longest) >= longest - steps[:, None]
        valid = (token_mask(self._agent, inputs)[:, None] & started.to(self._agent.device)[..., None]).flatten(1)
        stop = valid.shape[1] - context.task.action_tokens + known
        self._cache.reset(chosen)
        return self._append(slots, self._agent.embed(inputs).flatten(1, 2)[:, :stop], valid[:, :stop])

    def _read_on(self, slots: torch.Tensor | None, known: int) -> torch.Tensor:
        """What is left of the action before, and the newest observation."""
        elements = self._context.task.action_tokens
        inputs = self._context.inputs(slots, 1)
        before = self._agent.embed_actions(self._context.inputs(slots, 2))[:, 0, self._fed :]
        newest = self._agent.embed(inputs)[:, 0]
        stop = newest.shape[1] - elements + known
        valid = torch.ones(before.shape[:2], dtype=torch.bool, device=before.device)
        valid = torch.cat((valid, token_mask(self._agent, inputs)[:, :stop]), dim=1)
        return self._append(slots, torch.cat((before, newest[:, :stop].to(before.dtype)), dim=1), valid)

    def _append(self, slots: torch.Tensor | None, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self._agent.transformer(x, extension=self._cache.append(slots, valid))


def token_mask(agent: Agent, inputs: TaskInputs) -> torch.Tensor:
    """Which positions of a timestep hold a token, bool [n, positions]; texts differ in length."""
    observed = agent.observation.mask(inputs).to(agent.device)
    rest = torch.ones(len(observed), 1 + inputs.task.action_tokens, dtype=torch.bool, device=agent.device)
    return torch.cat((observed, rest), dim=1)
