"""The one seam for attention: `attention(q, k, v, segments)`, with a dense reference and PyTorch's fused kernels."""

from __future__ import annotations

import math

import torch
from torch.nn import functional


def segment_mask(segments: torch.Tensor) -> torch.Tensor:
    """Bool [batch, 1, length, length]: a position sees itself and what came before it in its own segment.

    ``segments`` is int [batch, length]; positions of padding may carry any number of their own.
    """
    length = segments.shape[1]
    same = segments[:, :, None] == segments[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool, device=segments.device).tril()
    return (same & causal)[:, None]


def dense_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Reference: the formula, in full. ``q, k, v`` [batch, heads, length, head width]; ``mask`` None is causal."""
    length = q.shape[2]
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=q.device).tril()
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, -math.inf).softmax(-1) @ v


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Fused causal attention; ``mask`` (bool [batch, 1, length, length]) where rows hold several segments.

    ``mask=None`` means one segment a row and lets the kernel skip the upper triangle.
    """
    if mask is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def rotary_angles(positions: torch.Tensor, head_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, float32 [batch, 1, length, head width / 2], for integer positions [batch, length].

    Angles are taken in float64, so that positions of several hundred thousand stay exact (Su et al. 2021).
    """
    exponent = torch.arange(0, head_width, 2, dtype=torch.float64, device=positions.device) / head_width
    angles = positions.to(torch.float64)[:, None, :, None] * (10000.0**-exponent)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the two halves of each head by their position's angle; ``x`` [batch, heads, length, head width]."""
    cosine, sine = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1).to(x.dtype)
