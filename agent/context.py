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
        self._returns = torch.full((num_slots, held), -1)
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
        self._returns = self._returns.roll(-1, dims=1)
        self._returns[:, -1] = -1
        if self._text_keys and bool(is_first.any()):
            for slot in torch.nonzero(is_first)[:, 0].tolist():
                self._texts[slot] = {key: observation[key][slot] for key in self._text_keys}
            self._encoded_texts = encode_texts(self.task, self._texts, self.agent.text)

    def set_action(self, action: np.ndarray) -> None:
        """The newest timestep's whole action, [E, *action shape]."""
        self._action[:, -1] = torch.from_numpy(action_elements(action, self.task))

    @property
    def newest_return(self) -> torch.Tensor:
        """Bin of the newest timestep's return to come, int64 [E]; -1 where nothing is said of it."""
        return self._returns[:, -1]

    def set_return(self, bins: torch.Tensor) -> None:
        """Bin of the newest timestep's return to come, int64 [E]; -1 says nothing of it."""
        self._returns[:, -1] = bins

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
            self._returns[chosen, -steps:],
        ).to(self.agent.device)

    def prompt_tokens(self) -> Tokens:
        """Tokens of the prompt, one row; without a prompt there are none. Nothing is said of its returns."""
        prompt, task = self.prompt, self.task
        if prompt is None:
            nothing = torch.zeros(1, 0, dtype=torch.bool, device=self.agent.device)
            return Tokens(
                nothing.float()[..., None].expand(1, 0, self.agent.config.width), nothing, nothing[0], nothing
            )
        inputs = TaskInputs(
            task,
            {key: torch.from_numpy(array)[None] for key, array in prompt.observation.items()},
            encode_texts(task, [prompt.texts], self.agent.text),
            torch.from_numpy(action_elements(prompt.action, task))[None],
            torch.tensor([self.hide]),
            torch.tensor([prompt.steps]),
        ).to(self.agent.device)
        tokens = timesteps_as_tokens(self.agent, inputs, self.agent.embed(inputs), torch.tensor([prompt.steps]))
        real = tokens.valid[0]
        before = tokens.timesteps[:, real] - prompt.steps
        return Tokens(tokens.x[:, real], tokens.valid[:, real], tokens.private[real], before)


@dataclasses.dataclass(frozen=True)
class Tokens:
    """n tokens of m slots.

    Attributes:
        x: embedded, [m, n, d].
        valid: bool [m, n], which are real.
        private: bool [n], which are returns, seen from their own timestep only.
        timesteps: int64 [m, n], which timestep of the slot's context they belong to.
    """

    x: torch.Tensor
    valid: torch.Tensor
    private: torch.Tensor
    timesteps: torch.Tensor

    def head(self, count: int) -> Tokens:
        """The first ``count`` of them."""
        return Tokens(self.x[:, :count], self.valid[:, :count], self.private[:count], self.timesteps[:, :count])

    def then(self, other: Tokens) -> Tokens:
        """These, and others behind them; one row here stands for as many as there."""
        rows = len(other.x)
        return Tokens(
            torch.cat((self.x.expand(rows, -1, -1).to(other.x.dtype), other.x), dim=1),
            torch.cat((self.valid.expand(rows, -1), other.valid), dim=1),
            torch.cat((self.private, other.private)),
            torch.cat((self.timesteps.expand(rows, -1), other.timesteps), dim=1),
        )


class Reader(Protocol):
    """Hidden states of the newest timestep, whose tail, what follows the observation, may come piece by piece."""

    def observe(self, is_first: torch.Tensor, stop: int) -> torch.Tensor:
        """Read the observation that the context has taken, and the first ``stop`` positions of its tail.

        Returns [E, stop, d] at those; with ``stop`` 0 [E, 1, d] at the last token of the observation.
        """
        ...

    def read(self, start: int, stop: int) -> torch.Tensor:
        """Read positions ``start`` to ``stop`` of the tail, which the context knows by now; [E, stop - start, d]."""
        ...

    def rewrite(self) -> None:
        """The newest action has changed since it was read."""
        ...

    def forget(self) -> None:
        """The weights have changed."""
        ...


class Embedded:
    """Embeddings of the timesteps of a context, each made once: what is read again need not be embedded again."""

    def __init__(self, context: Context) -> None:
        self._context, self._agent = context, context.agent
        self._tail = self._agent.tail(context.task)
        self._held: torch.Tensor | None = None

    def observe(self) -> None:
        """The context has taken a timestep."""
        context = self._context
        newest = self._agent.embed(context.inputs(None, 1))
        if self._held is None or self._held.shape[2] != newest.shape[2]:  # a longer text widens a timestep
            self._held = self._agent.embed(context.inputs(None, max(2, context.limit)))
        else:
            self._held = torch.cat((self._held[:, 1:], newest), dim=1)
            # The tail of the step before was not known when its timestep was embedded.
            self._held[:, -2, -self._tail :] = self._agent.embed_tail(context.inputs(None, 2))[:, 0]

    def tail_changed(self) -> None:
        """More is known of what follows the newest observation."""
        assert self._held is not None
        self._held[:, -1, -self._tail :] = self._agent.embed_tail(self._context.inputs(None, 1))[:, 0]

    def newest(self, slots: torch.Tensor | None, steps: int) -> torch.Tensor:
        """The newest ``steps`` timesteps of some slots (None: all), [m, steps, positions, d]."""
        assert self._held is not None
        return self._held[slice(None) if slots is None else slots, -steps:]

    def forget(self) -> None:
        """The weights have changed."""
        self._held = None


class Recompute:
    """Reads all of the context at every step."""

    def __init__(self, context: Context) -> None:
        self._context, self._agent = context, context.agent
        self._tail = self._agent.tail(context.task)
        self._embedded = Embedded(context)
        self._prompt: Tokens | None = None

    def observe(self, is_first: torch.Tensor, stop: int) -> torch.Tensor:
        """See `Reader`."""
        self._embedded.observe()
        return self._hidden(stop, max(1, stop))

    def read(self, start: int, stop: int) -> torch.Tensor:
        """See `Reader`."""
        self._embedded.tail_changed()
        return self._hidden(stop, stop - start)

    def rewrite(self) -> None:
        """See `Reader`; the next observation reads the action again."""

    def forget(self) -> None:
        """See `Reader`."""
        self._embedded.forget()
        self._prompt = None

    def _hidden(self, stop: int, wanted: int) -> torch.Tensor:
        """The last ``wanted`` hidden states of prompt and context, up to position ``stop`` of the newest tail."""
        context, agent = self._context, self._agent
        embedded = self._embedded.newest(None, int(context.lengths.max()))
        tokens = timesteps_as_tokens(agent, context.inputs(None, 1), embedded, context.lengths)
        tokens = tokens.head(tokens.x.shape[1] - self._tail + stop)
        pinned = None
        if context.prompt is not None:
            if self._prompt is None:
                self._prompt = context.prompt_tokens()
            pinned = torch.arange(self._prompt.x.shape[1] + tokens.x.shape[1]) < self._prompt.x.shape[1]
            tokens = self._prompt.then(tokens)
        masked = agent.config.returns == "masked"
        layout = Layout(
            (tokens.valid.cumsum(1) - 1).clamp(min=0),
            None if bool(tokens.valid.all()) else tokens.valid.int(),
            pinned=None if pinned is None else pinned.to(agent.device).expand(len(tokens.x), -1),
            private=tokens.private.expand(len(tokens.x), -1) if masked else None,
            timesteps=tokens.timesteps if masked else None,
        )
        return last(agent.transformer(tokens.x, layout), tokens.valid, wanted)


class Cached:
    """Reads new tokens only, beside the keys and values of what was read before.

    Without an attention window a slot whose context is full keeps its newest timesteps, a share ``kept`` of the
    context, and reads those again (so positions begin anew); with one (``kept`` None), old tokens fall out of the
    window one by one. New weights have every slot read again what the context still holds: keys of two policy versions
    never mix.
    """

    def __init__(self, context: Context, kept: float | None) -> None:
        self._context, self._agent = context, context.agent
        self._kept_steps = None if kept is None else max(1, int(context.limit * kept))
        self._tail = self._agent.tail(context.task)
        self._action_start = self._tail - context.task.action_tokens
        self._cache = KeyValueCache(
            self._agent.config, context.num_slots, self._agent.device, context.task.action_tokens
        )
        self._embedded = Embedded(context)
        self._steps = torch.zeros(context.num_slots, dtype=torch.int64)  # timesteps in the cache
        self._stale = True
        self._read_to = 0  # positions of the newest tail that are in the cache

    def observe(self, is_first: torch.Tensor, stop: int) -> torch.Tensor:
        """See `Reader`."""
        context = self._context
        if self._stale:
            self._embedded.forget()
            self._read_prompt()
        self._embedded.observe()
        self._steps = torch.where(is_first, 1, self._steps + 1)
        anew = is_first | self._stale
        if self._kept_steps is not None:
            full = self._steps > context.limit
            self._steps[full] = self._kept_steps
            anew |= full
        wanted = max(1, stop)
        hidden = torch.empty(context.num_slots, wanted, self._agent.config.width, device=self._agent.device)
        for chosen, gather in ((anew, self._all_tokens), (~anew, self._new_tokens)):
            if bool(chosen.any()):
                slots = None if bool(chosen.all()) else torch.nonzero(chosen)[:, 0]
                tokens = gather(slots)
                tokens = tokens.head(tokens.x.shape[1] - self._tail + stop)
                hidden[chosen] = self._append(slots, tokens, wanted).to(hidden.dtype)
        self._stale, self._read_to = False, stop
        return hidden

    def read(self, start: int, stop: int) -> torch.Tensor:
        """See `Reader`."""
        self._read_to = stop
        tokens = self._tail_tokens(None, 1, start).head(stop - start)
        return self._append(None, tokens, stop - start)

    def rewrite(self) -> None:
        """See `Reader`."""
        if not self._context.hide and self._read_to > self._action_start:
            self._cache.drop(self._read_to - self._action_start)
            self._read_to = self._action_start

    def forget(self) -> None:
        """See `Reader`."""
        self._stale = True

    def _read_prompt(self) -> None:
        self._cache.clear()
        prompt = self._context.prompt_tokens()
        if prompt.x.shape[1]:
            self._cache.pin(prompt.x.shape[1])
            self._append(None, prompt.then(_no_tokens(prompt, self._context.num_slots)), 1)

    def _all_tokens(self, slots: torch.Tensor | None) -> Tokens:
        """The newest timesteps of slots, for their emptied cache."""
        context = self._context
        chosen = torch.arange(context.num_slots) if slots is None else slots
        self._steps[chosen] = torch.minimum(self._steps[chosen], context.lengths[chosen])
        steps = self._steps[chosen]
        self._cache.reset(chosen)
        embedded = self._embedded.newest(slots, int(steps.max()))
        return timesteps_as_tokens(self._agent, context.inputs(slots, 1), embedded, steps)

    def _new_tokens(self, slots: torch.Tensor | None) -> Tokens:
        """What is left of the tail before, and the newest timestep."""
        inputs = self._context.inputs(slots, 1)
        steps = self._steps if slots is None else self._steps[slots]
        embedded = self._embedded.newest(slots, 1)
        newest = timesteps_as_tokens(self._agent, inputs, embedded, torch.ones_like(steps))
        newest = dataclasses.replace(newest, timesteps=newest.timesteps + (steps - 1).to(newest.x.device)[:, None])
        return self._tail_tokens(slots, 2, self._read_to).then(newest)

    def _tail_tokens(self, slots: torch.Tensor | None, ago: int, start: int) -> Tokens:
        """The tail of the ``ago``-th newest timestep from a position on."""
        x = self._agent.embed_tail(self._context.inputs(slots, ago))[:, 0, start:]
        steps = self._steps if slots is None else self._steps[slots]
        private = torch.zeros(self._tail, dtype=torch.bool, device=x.device)
        private[: self._action_start - 1] = True
        return Tokens(
            x,
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device),
            private[start:],
            (steps - ago).to(x.device)[:, None].expand(x.shape[:2]),
        )

    def _append(self, slots: torch.Tensor | None, tokens: Tokens, wanted: int) -> torch.Tensor:
        rules = (tokens.private, tokens.timesteps) if self._agent.config.returns == "masked" else ()
        extension = self._cache.append(slots, tokens.valid, *rules)
        return last(self._agent.transformer(tokens.x, extension=extension), tokens.valid, wanted)


def timesteps_as_tokens(agent: Agent, inputs: TaskInputs, embedded: torch.Tensor, steps: torch.Tensor) -> Tokens:
    """Timesteps laid end to end.

    Args:
        agent: that embedded them.
        inputs: of the same m slots; what is read of it does not differ between timesteps.
        embedded: [m, C, positions, d].
        steps: int64 [m], of the C timesteps the last so many are real.
    """
    held, width = embedded.shape[1:3]
    tail = agent.tail(inputs.task)
    observed = agent.observation.mask(inputs).to(agent.device)
    mask = torch.cat((observed, torch.ones(len(observed), tail, dtype=torch.bool, device=agent.device)), dim=1)
    number = (
        torch.arange(held, device=agent.device) - (held - steps.to(agent.device))[:, None]
    )  # of the real ones from 0
    private = torch.zeros(width, dtype=torch.bool, device=agent.device)
    private[width - tail : width - inputs.task.action_tokens - 1] = True
    return Tokens(
        embedded.flatten(1, 2),
        (mask[:, None] & (number >= 0)[..., None]).flatten(1),
        private.repeat(held),
        number.repeat_interleave(width, dim=1),
    )


def last(hidden: torch.Tensor, valid: torch.Tensor, wanted: int) -> torch.Tensor:
    """Hidden states [m, n, d] at the last ``wanted`` positions; where it is one, the last that is real: texts differ
    in length."""
    if wanted > 1:
        return hidden[:, -wanted:]
    place = (valid.long() * torch.arange(1, valid.shape[1] + 1, device=valid.device)).argmax(1)
    return hidden[torch.arange(len(hidden), device=hidden.device), place][:, None]


def _no_tokens(like: Tokens, rows: int) -> Tokens:
    empty = like.head(0)
    return Tokens(
        empty.x.expand(rows, -1, -1), empty.valid.expand(rows, -1), empty.private, empty.timesteps.expand(rows, -1)
    )
