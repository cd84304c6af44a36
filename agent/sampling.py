"""From scores of legal ids to ids: greedy, sampled, or the mean of the bins."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from agent.config import DecodingConfig
from agent.task import ArraySpec
from agent.tokenizer import bin_centres


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


def choose(
    logits: torch.Tensor, action: ArraySpec, decoding: DecodingConfig, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """One element of an action for each of E slots.

    Args:
        logits: float32 [E, legal ids].
        action: spec of the action.
        decoding: how to choose.
        generator: source of random numbers.

    Returns:
        Value of the element, [E]: an index for discrete actions, a float in [-1, 1] for continuous ones; and the
        log-probability, float32 [E], of the chosen bin under the distribution really sampled from (after temperature
        and top-p; NaN for choices that are not samples of one: ``greedy`` and ``mean``).
    """
    mode = getattr(decoding, action.kind)
    unknown = torch.full(logits.shape[:1], torch.nan)
    centres = bin_centres(logits.shape[1])
    if mode == "mean":
        return logits.softmax(-1) @ centres, unknown
    if mode == "greedy":
        index, log_prob = logits.argmax(-1), unknown
    else:
        log_probs = keep_top_p(logits / decoding.temperature, decoding.top_p).log_softmax(-1)
        index = torch.multinomial(log_probs.exp(), 1, generator=generator)[:, 0]
        log_prob = log_probs.gather(1, index[:, None])[:, 0]
    return (centres[index] if action.kind == "continuous" else index), log_prob


def keep_top_p(logits: torch.Tensor, top_p: float) -> torch.Tensor:
    """Scores with all but the smallest set of ids of probability ``top_p`` at minus infinity, [E, ids]."""
    if top_p >= 1.0:
        return logits
    ordered, order = logits.sort(-1, descending=True)
    probability = ordered.softmax(-1)
    beyond = probability.cumsum(-1) - probability >= top_p
    return logits.masked_fill(torch.zeros_like(beyond).scatter(1, order, beyond), -torch.inf)
