"""Imitation: cross-entropy on the logged actions and texts, no more (Reed et al. 2022, 2.3, equations 1 and 2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch.nn import functional

from agent.agent import Agent
from learner.batch import Batch, Targets, packed_hidden
from learner.config import LearnerConfig
from learner.objectives.objective import LossAndRecord

MEASURED = 256
"""Targets of an entry of a batch of which an entropy is taken, evenly spread; more would cost time and say the same."""


def cross_entropy(logits: torch.Tensor, targets: Targets, config: LearnerConfig) -> torch.Tensor:
    """Loss in nats of each target, float32 [M], against its bin or, with smoothing, a soft target around it."""
    logits = logits.float()
    if targets.kind in ("return", "reward", "text"):
        return functional.cross_entropy(logits, targets.id, reduction="none")
    if targets.kind == "discrete":
        return functional.cross_entropy(logits, targets.id, reduction="none", label_smoothing=config.label_smoothing)
    if config.bin_smoothing == 0:
        return functional.cross_entropy(logits, targets.id, reduction="none")
    bins = torch.arange(targets.legal.count, device=logits.device)
    distance = (bins - targets.id[:, None]) / config.bin_smoothing
    return functional.cross_entropy(logits, (-0.5 * distance.square()).softmax(-1), reduction="none")


def weights_of(batch: Batch, normalisation: str) -> list[torch.Tensor]:
    """Weight of each target so that the weighted sum is the loss: one tensor [M] for each entry of ``targets``.

    ``row``: every window weighs the same; ``task``: every task; ``token``: every target.
    """
    if normalisation == "token":
        total = sum(len(t.id) for t in batch.targets)
        return [torch.full((len(t.id),), 1.0 / max(total, 1), device=t.id.device) for t in batch.targets]
    if normalisation == "task":
        of_task: Counter[str] = Counter()  # a task may have targets of several kinds
        for t in batch.targets:
            of_task[t.task] += len(t.id)
        present = sum(count > 0 for count in of_task.values())
        shares = [1.0 / max(present * of_task[t.task], 1) for t in batch.targets]
        return [torch.full((len(t.id),), share, device=t.id.device) for t, share in zip(batch.targets, shares)]
    return [row_weights(targets, batch.windows) for targets in batch.targets]


def row_weights(targets: Targets, windows: int) -> torch.Tensor:
    """Weight of each target [M] where every window weighs the same."""
    one = torch.ones_like(targets.window)
    in_window = one.new_zeros(windows).index_add_(0, targets.window, one)  # `bincount` waits for the device
    return 1.0 / (in_window[targets.window] * windows)


@torch.no_grad()
def entropy_share(logits: torch.Tensor) -> torch.Tensor:
    """Mean entropy of distributions over legal values, logits [M, values], as a share of the greatest there can be."""
    some = logits[:: max(1, len(logits) // MEASURED)].float().log_softmax(-1)
    return -(some.exp() * some).sum(-1).mean() / math.log(max(2, some.shape[-1]))


class Imitation:
    """`imitation` as an `Objective`; it keeps nothing."""

    varied_lengths = False

    def __init__(self, config: LearnerConfig) -> None:
        self.config = config

    def loss(self, agent: Agent, batch: Batch) -> LossAndRecord:
        """See `imitation`."""
        return imitation(agent, batch, self.config)

    def updated(self, agent: Agent) -> None:
        """Nothing."""

    def acting(self, agent: Agent) -> Agent:
        """The agent itself."""
        return agent

    def tensors(self, agent: Agent) -> dict[str, torch.Tensor]:
        """None."""
        return {}

    def restore(self, agent: Agent, tensors: Mapping[str, torch.Tensor]) -> None:
        """Nothing; what another objective kept is no use here."""


def imitation(agent: Agent, batch: Batch, config: LearnerConfig) -> LossAndRecord:
    """Loss to minimise; for the record the mean nats of a target by task and by kind, entropies, and windows with loss.

    Logits are computed at target positions only, over the legal ids only.
    """
    hidden = packed_hidden(agent, batch)
    loss = hidden.new_zeros((), dtype=torch.float32)
    record: dict[str, torch.Tensor] = {}
    by_kind: dict[str, list[torch.Tensor]] = {}
    window_loss = torch.zeros(batch.windows, device=hidden.device)
    for targets, weight in zip(batch.targets, weights_of(batch, config.loss_normalisation)):
        if not len(targets.id):
            continue
        logits = agent.logits(hidden[targets.position], targets.legal)
        nats = cross_entropy(logits, targets, config)
        loss = loss + (nats * weight).sum()
        window_loss.index_add_(0, targets.window, nats.detach())
        if targets.kind not in ("return", "reward"):
            record[f"loss/{targets.task}"] = nats.detach().mean()
        if targets.kind in ("discrete", "continuous"):
            record[f"entropy/{targets.task}"] = entropy_share(logits)
        by_kind.setdefault(targets.kind, []).append(nats.detach())
    record |= {f"loss/{kind}": torch.cat(nats).mean() for kind, nats in by_kind.items()}
    record["loss"] = loss.detach()
    record["window_loss"] = window_loss
    return loss, record
