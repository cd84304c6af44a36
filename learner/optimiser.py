"""AdamW with linear warm-up and cosine decay (Reed et al. 2022, appendix)."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from agent.embedding import ImageEncoder, PatchEncoder
from agent.transformer import RelativeProjection, Sink
from learner.config import LearnerConfig


def make_optimiser(model: nn.Module, config: LearnerConfig) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices alone, not on norms, biases, sinks; each group has its ``scale`` of the rate."""
    images = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, (ImageEncoder, PatchEncoder))
        for parameter in module.parameters()
    }
    by_head = {  # vectors, though of three dimensions
        id(parameter)
        for module in model.modules()
        if isinstance(module, (RelativeProjection, Sink))
        for parameter in module.parameters(recurse=False)
    }
    groups: list[dict[str, Any]] = []
    for scale, of_images in ((1.0, False), (config.image_learning_rate, True)):
        chosen = [p for p in model.parameters() if p.requires_grad and (id(p) in images) == of_images]
        matrices = [p for p in chosen if p.ndim >= 2 and id(p) not in by_head]
        others = [p for p in chosen if p.ndim < 2 or id(p) in by_head]
        groups += [
            {"params": matrices, "weight_decay": config.weight_decay, "scale": scale},
            {"params": others, "weight_decay": 0.0, "scale": scale},
        ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.epsilon, fused=True
    )


def learning_rate(step: int, progress: float, config: LearnerConfig) -> float:
    """Rate of update number ``step`` (from 0), ``progress`` in [0, 1] of the way through training."""
    if step < config.warmup_steps:
        return config.learning_rate * (step + 1) / config.warmup_steps
    floor = config.final_learning_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))
