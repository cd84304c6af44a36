"""Decoder-only transformer: pre-norm, GEGLU, rotary positions, no biases (Reed et al. 2022, section 2.3, table 5)."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from agent.attention import attention, rotary_angles, rotate, segment_mask
from agent.config import AgentConfig


def drop_path(x: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Stochastic depth: drop a sub-layer's output for whole rows, keeping its expectation. ``x`` [batch, length, d].

    It multiplies instead of skipping, so that every parameter has a gradient in every step.
    """
    if not training or probability == 0.0:
        return x
    keep = 1.0 - probability
    return x * (torch.rand(x.shape[0], 1, 1, device=x.device) < keep).to(x.dtype) / keep


class Block(nn.Module):
    """Attention and gated feed-forward, each behind a layer norm."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.feedforward * config.width
        self.heads = config.heads
        self.stochastic_depth = config.stochastic_depth
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feedforward_norm = nn.LayerNorm(width, bias=False)
        self.feedforward_in = nn.Linear(width, hidden, bias=False)
        self.feedforward_out = nn.Linear(hidden // 2, width, bias=False)

    def forward(
        self, x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor], mask: torch.Tensor | None
    ) -> torch.Tensor:
        """[batch, length, d] to the same."""
        batch, length, width = x.shape
        q, k, v = self.query_key_value(self.attention_norm(x)).chunk(3, dim=-1)
        q, k, v = (t.reshape(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        mixed = attention(rotate(q, angles), rotate(k, angles), v, mask)
        mixed = self.attention_out(mixed.transpose(1, 2).reshape(batch, length, width))
        x = x + drop_path(mixed, self.stochastic_depth, self.training)
        value, gate = self.feedforward_in(self.feedforward_norm(x)).chunk(2, dim=-1)
        return x + drop_path(self.feedforward_out(value * functional.gelu(gate)), self.stochastic_depth, self.training)


class Transformer(nn.Module):
    """Blocks and a final norm over embedded sequences."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.head_width = config.width // config.heads
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, bias=False)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 2:
                scale = 1.0 / math.sqrt(2 * config.layers) if name.endswith("_out.weight") else 1.0
                nn.init.normal_(parameter, std=scale / math.sqrt(parameter.shape[1]))

    def forward(
        self, x: torch.Tensor, positions: torch.Tensor | None = None, segments: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Hidden states [batch, length, d].

        Args:
            x: embedded tokens [batch, length, d].
            positions: int [batch, length], index within the segment; None counts from the row's start.
            segments: int [batch, length], which segment a position belongs to; None where each row is one.
        """
        if positions is None:
            positions = torch.arange(x.shape[1], device=x.device)[None]
        angles = rotary_angles(positions, self.head_width)
        mask = None if segments is None else segment_mask(segments)
        for block in self.blocks:
            x = block(x, angles, mask)
        return self.final_norm(x)
