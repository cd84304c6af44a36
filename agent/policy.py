"""`Policy`: observe and act for a batch of environments, with the context the agent was trained on.

The same class serves environment actors and the evaluator.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from agent.acting import Acting
from agent.action_values import weighed_at_once
from agent.agent import Agent
from agent.config import DecodingConfig
from agent.context import Cached, Context, Prompt, Reader, Recompute
from agent.sampling import Action, choose
from agent.task import TaskSpec
from agent.text_policy import TextPolicy
from agent.tokenizer import bin_centres, encode_action, encode_return, return_centres


class Policy(Acting):
    """Acts in one task for ``num_slots`` environments, all with the same prompt, if any.

    Attributes:
        context: the timesteps it has seen.

    Raises:
        ValueError: ``decoding.context`` is ``rolling`` or ``decoding.returns`` not ``none``, and the agent was not
            trained for it; or the prompt leaves no room in the context.
    """

    def __init__(
        self,
        agent: Agent,
        task: TaskSpec,
        num_slots: int,
        decoding: DecodingConfig | None = None,
        seed: int = 0,
        prompt: Prompt | None = None,
    ) -> None:
        super().__init__(agent, task, num_slots, decoding, seed)
        self.read_first(prompt)
        if self.decoding.returns != "none" and agent.config.returns == "off":
            raise ValueError(
                f"decoding.returns={self.decoding.returns} needs a model with return tokens (agent.returns); use none"
            )
        self._tilts = self.decoding.returns == "tilted"
        self._asked = torch.full((num_slots,), self.decoding.return_target, dtype=torch.float64)

    def read_first(self, prompt: Prompt | None) -> None:
        """Read a prompt before everything else from now on; episodes under way go on as if they had just begun."""
        hide = self.decoding.past_actions == "hidden"
        self.context = Context(self._acting, self.task, self.num_slots, hide=hide, prompt=prompt)
        self._reader: Reader = make_reader(self.context, self.decoding)
        self._begins = True

    def load_weights(self, version: int, weights: dict[str, np.ndarray], published_at: float = 0.0) -> None:
        """Swap the weights, at any time: what is kept of the context is read anew, so versions never mix."""
        super().load_weights(version, weights, published_at)
        self._reader.forget()

    @torch.inference_mode()
    def act(self, observation: dict[str, Any], is_first: np.ndarray) -> Action:
        """Choose an action for every slot.

        Args:
            observation: by key, [E, *shape], or E strings for a text.
            is_first: bool [E]; these slots begin an episode and forget what came before.
        """
        begun = torch.from_numpy(np.asarray(is_first, bool))
        first = begun | self._begins
        self._begins = False
        self.context.observe(observation, first)
        elements, tail = self.task.action_tokens, self.agent.tail(self.task)
        lead = tail - elements  # return, if any, and separator
        # Where actions are hidden, all elements are predicted at once; else they are read one after the other.
        at_once = elements if self.context.hide else 1
        if self._tilts:
            self.context.set_return(self._tilted_return(self._reader.observe(first, 0)[:, 0]))
            hidden = self._reader.read(0, lead + at_once - 1)
        else:
            self.context.set_return(self._asked_return(begun))
            hidden = self._reader.observe(first, lead + at_once - 1)
        hidden = hidden[:, -at_once:]
        self._separator = hidden[:, 0]
        chosen, log_probs = [], []
        for element in range(elements):
            if element and at_once == 1:
                hidden = self._reader.read(lead + element - 1, lead + element)
            at = hidden[:, element if at_once > 1 else 0]
            scores = self._acting.logits(at, self._legal).float().cpu()
            value, log_prob = choose(scores, self.task.action, self.decoding, self._generator)
            chosen.append(value)
            log_probs.append(log_prob)
            self.context.set_element(element, value)
        self._chosen = torch.stack(chosen, dim=1)
        action = self._chosen.numpy().reshape(self.num_slots, *self.task.action.shape)
        return Action(action.astype(self.task.action.dtype), torch.stack(log_probs, dim=1).numpy())

    def asked_return(self) -> np.ndarray:
        """Return to come that is asked for at this step, float64 [E], to the bin it falls in; NaN where none is."""
        if self.agent.config.returns == "off":
            return np.full(self.num_slots, np.nan)
        bins = self.context.newest_return
        centres = return_centres(self.task, self.agent.config.return_bins).double()
        return torch.where(bins < 0, torch.nan, centres[bins.clamp(min=0)]).numpy()

    @torch.inference_mode()
    def action_value(self) -> np.ndarray:
        """What the critic says that the newest chosen actions are worth, discounted, float64 [E]; NaN without one."""
        task, hidden = self.task, self._separator
        if self.agent.action_values is None or task.value_range is None:
            return np.full(self.num_slots, np.nan)
        head = self.agent.values_of(task)
        action = (encode_action(self._chosen, task.action, self.agent.vocabulary) - self._legal.start).to(hidden.device)
        if weighed_at_once(task):
            worth = head.expected(head(hidden)).gather(1, action)[:, 0]
        else:
            worth = head.expected(head.of_taken(hidden, action, self._legal.count))
        low, high = task.value_range
        return (low + worth.double() * (high - low)).cpu().numpy()

    def asked(self) -> np.ndarray | None:
        """What is asked for at this step, as windows hold it, float32 [E, 3]: value, bin, mode; None for nothing."""
        if self.decoding.returns == "none":
            return None
        mode = {"target": 1.0, "tilted": 2.0}[self.decoding.returns]
        bins = self.context.newest_return.numpy().astype(np.float32)
        values = self.asked_return().astype(np.float32)
        return np.stack([values, bins, np.full(self.num_slots, mode, np.float32)], axis=1)

    def rewarded(self, reward: np.ndarray) -> None:
        """Say what reward, float [E], followed the action before; ``decoding.returns=target`` asks for it no more.

        Where the return to come is that of ``return_horizon`` steps, the same is asked for at each.
        """
        if self.task.return_horizon == 0:
            self._asked -= torch.from_numpy(np.asarray(reward, np.float64))

    def _asked_return(self, is_first: torch.Tensor) -> torch.Tensor:
        """Bins of the return that is asked for, int64 [E]; -1 where none is."""
        if self.agent.config.returns == "off" or self.decoding.returns == "none":
            return torch.full((self.num_slots,), -1)
        self._asked[is_first] = self.decoding.return_target
        return encode_return(self._asked, self.task, self.agent.config.return_bins)

    def _tilted_return(self, hidden: torch.Tensor) -> torch.Tensor:
        """Bins sampled from the model's prediction at ``hidden`` [E, d], tilted towards high returns, int64 [E]."""
        scores = self._acting.logits(hidden, self.agent.vocabulary.returns).float().cpu()
        scaled = (bin_centres(scores.shape[1]) + 1) / 2
        tilted = scores.log_softmax(-1) + self.decoding.kappa * scaled
        return torch.multinomial(tilted.softmax(-1), 1, generator=self._generator)[:, 0]

    @torch.inference_mode()
    def executed(self, action: np.ndarray) -> None:
        """Say what was executed, [E, *action shape], where it differs from what `act` chose."""
        self.context.set_action(action)
        self._reader.rewrite()


def make_policy(
    agent: Agent,
    task: TaskSpec,
    num_slots: int,
    decoding: DecodingConfig | None = None,
    seed: int = 0,
    prompt: Prompt | None = None,
) -> Policy | TextPolicy:
    """The policy of a task: `Policy`, or `TextPolicy` where its actions are texts, which takes no prompt."""
    if not task.says_text:
        return Policy(agent, task, num_slots, decoding, seed, prompt)
    policy = TextPolicy(agent, task, num_slots, decoding, seed)
    if prompt is not None:
        policy.read_first(prompt)
    return policy


def make_reader(context: Context, decoding: DecodingConfig) -> Reader:
    """The reader of `DecodingConfig.context`."""
    if decoding.context == "recompute":
        return Recompute(context)
    if decoding.context == "rolling":
        check_rolling(context.agent, context.task)
        return Cached(context, None)
    return Cached(context, decoding.kept)


def check_rolling(agent: Agent, task: TaskSpec) -> None:
    """Raise ValueError where the agent was not trained to do without what falls out of its window."""
    window = agent.config.attention_window
    trained = task.context_steps * (agent.observation.positions(task) + agent.tail(task))
    if window is None or 2 * window > trained:
        raise ValueError(
            f"decoding.context=rolling needs a model trained with agent.attention_window of at most half the context: "
            f"{trained // 2} of {task.name}'s {trained} tokens, not {window}; use decoding.context=reprefill"
        )
