"""The one seam for attention: `attention(q, k, v, layout, bias)`, its rule of who sees whom, and its backends."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch.nn import functional
from torch.nn.attention import flex_attention as flexible


@dataclasses.dataclass(frozen=True)
class Layout:
    """Which queries see which keys: those of their own segment that are not ahead of them, within the window.

    Attributes:
        positions: int64 [batch, queries], index of a token within its segment.
        segments: int [batch, queries], which segment a token belongs to; None where each row is one. Positions of
            padding may carry any number of their own.
        key_positions: int64 [batch, keys], the same of the keys where they are not the queries themselves but come
            from a cache (then each row is one segment); -1 where a column is empty.
        window: a token sees itself and the ``window - 1`` before it; None: all.
        pinned: bool [batch, keys], tokens that are seen from outside their window too (a prompt); None: none.
        private: bool [batch, keys], tokens that are seen from their own timestep only (a return); None: none.
        timesteps, key_timesteps: int64 [batch, queries] and [batch, keys], with ``private``: which timestep a token
            belongs to; the latter only where the keys are not the queries themselves.
        sink: one more key stands before all others, and every query sees it.
    """

    positions: torch.Tensor
    segments: torch.Tensor | None = None
    key_positions: torch.Tensor | None = None
    window: int | None = None
    pinned: torch.Tensor | None = None
    private: torch.Tensor | None = None
    timesteps: torch.Tensor | None = None
    key_timesteps: torch.Tensor | None = None
    sink: bool = False

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Layout:
        """The same with every tensor changed, such as moved to a device."""
        changed: dict[str, Any] = {
            field.name: change(value)
            for field in dataclasses.fields(self)
            if isinstance(value := getattr(self, field.name), torch.Tensor)
        }
        return dataclasses.replace(self, **changed)

    @property
    def keys(self) -> torch.Tensor:
        """Positions of the keys, int64 [batch, keys]."""
        return self.positions if self.key_positions is None else self.key_positions

    @functools.cached_property
    def mask(self) -> torch.Tensor | None:
        """Bool [batch, 1, queries, keys]; None where rows are whole segments, seen causally."""
        rules = (self.segments, self.key_positions, self.window, self.private)
        if all(rule is None for rule in rules) and not self.sink:
            return None
        distance = self.positions[:, :, None] - self.keys[:, None]
        visible = (distance >= 0) & (self.keys >= 0)[:, None]
        if self.window is not None:
            near = distance < self.window
            visible &= near if self.pinned is None else near | self.pinned[:, None]
        if self.segments is not None:
            visible = visible & (self.segments[:, :, None] == self.segments[:, None])
        if self.private is not None:
            visible = visible & (~self.private[:, None] | self._same_timestep)
        return functional.pad(visible, (1, 0), value=True)[:, None] if self.sink else visible[:, None]

    @property
    def _same_timestep(self) -> torch.Tensor:
        assert self.timesteps is not None
        keys = self.timesteps if self.key_timesteps is None else self.key_timesteps
        return self.timesteps[:, :, None] == keys[:, None]

    @functools.cached_property
    def whole_mask(self) -> torch.Tensor:
        """The mask, also where it is plainly causal."""
        if self.mask is not None:
            return self.mask
        length = self.positions.shape[1]
        return torch.ones(1, 1, length, length, dtype=torch.bool, device=self.positions.device).tril()

    @functools.cached_property
    def block_mask(self) -> flexible.BlockMask:
        """The same rule for the flexible backend, which skips blocks that hold nothing visible."""
        positions, segments, window, sink = self.positions, self.segments, self.window, int(self.sink)
        keys = functional.pad(self.keys, (sink, 0))
        pinned = None if self.pinned is None else functional.pad(self.pinned, (sink, 0))
        segments_of_keys = None if segments is None else functional.pad(segments, (sink, 0))
        seen_from = None
        if self.private is not None:
            seen_from = functional.pad(~self.private[:, None] | self._same_timestep, (sink, 0))

        def visible(row: torch.Tensor, _: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
            distance = positions[row, query] - keys[row, key]
            seen = (distance >= 0) & (keys[row, key] >= 0)
            if window is not None:
                near = distance < window
                seen = seen & (near if pinned is None else near | pinned[row, key])
            if segments is not None and segments_of_keys is not None:
                seen = seen & (segments[row, query] == segments_of_keys[row, key])
            if seen_from is not None:
                seen = seen & seen_from[row, query, key]
            return seen | (key < sink)

        rows, queries = positions.shape
        device = positions.device.type
        return flexible.create_block_mask(visible, rows, None, queries, keys.shape[1], device=device)


def dense_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """Reference: the formula, in full."""
    return _weights(q, k, layout, bias) @ v


def _weights(q: torch.Tensor, k: torch.Tensor, layout: Layout, bias: torch.Tensor | None) -> torch.Tensor:
    scores = (q @ k.transpose(-1, -2)) / math.sqrt(q.shape[-1])
    if bias is not None:
        scores = scores + bias
    return scores.masked_fill(~layout.whole_mask, -math.inf).softmax(-1)


def fused_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """PyTorch's fused kernels; without a mask they skip the upper triangle."""
    if bias is not None:
        return functional.scaled_dot_product_attention(q, k, v, bias.masked_fill(~layout.whole_mask, -math.inf))
    if layout.mask is None:
        return functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return functional.scaled_dot_product_attention(q, k, v, layout.mask)


@functools.cache
def _compiled_flexible() -> Callable[..., torch.Tensor]:
    return torch.compile(flexible.flex_attention, dynamic=True)


def flexible_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """PyTorch's flexible attention: compiled for CUDA, elsewhere its slow reference."""

    def add(
        score: torch.Tensor, row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor
    ) -> torch.Tensor:
        assert bias is not None
        return score + bias[row, head, query, key]

    run = cast(Callable[..., torch.Tensor], _compiled_flexible() if q.is_cuda else flexible.flex_attention)
    if bias is not None:
        bias = bias.expand(q.shape[0], -1, -1, -1)
    return run(q, k, v, score_mod=None if bias is None else add, block_mask=layout.block_mask)


BACKENDS = {"dense": dense_attention, "fused": fused_attention, "flexible": flexible_attention}


def attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    layout: Layout,
    bias: torch.Tensor | None = None,
    backend: str = "fused",
) -> torch.Tensor:
    """Masked attention, [batch, heads, queries, head width].

    Args:
        q: [batch, heads, queries, head width].
        k, v: [batch, heads, keys, head width].
        layout: who sees whom; every query sees at least one key.
        bias: float [batch or 1, heads, queries, keys], added to the scaled scores.
        backend: one of `BACKENDS`; all compute the same.
    """
    return BACKENDS[backend](q, k, v, layout, bias)


def attention_entropy(
    q: torch.Tensor, k: torch.Tensor, layout: Layout, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """How evenly tokens look at what they see: 1 at all alike, 0 at one alone. Float32 scalar.

    The entropy of the weights over the logarithm of the number of keys that are seen, a mean over heads and over the
    queries that see two or more; segment 0 is padding. Arguments as of `attention`.
    """
    seen = layout.whole_mask.sum(-1)  # [batch or 1, 1, queries]
    share = torch.special.entr(_weights(q, k, layout, bias).float()).sum(-1) / seen.log()
    counted = (seen >= 2).expand_as(share)
    if layout.segments is not None:
        counted = counted & (layout.segments != 0)[:, None]
    return share[counted].mean()


def rotary_angles(positions: torch.Tensor, head_width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines and sines, float32 [batch, 1, length, head width / 2], for integer positions [batch, length].

    Angles are taken in float64, so that positions of several hundred thousand stay exact (Su et al. 2021).
    """
    angles = positions.to(torch.float64)[:, None, :, None] * _frequencies(head_width, positions.device)
    return angles.cos().float(), angles.sin().float()


def rotate(x: torch.Tensor, angles: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Turn the two halves of each head by their position's angle; ``x`` [batch, heads, length, head width]."""
    cosine, sine = angles
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cosine - second * sine, first * sine + second * cosine), dim=-1).to(x.dtype)


def sinusoids(count: int, width: int, device: torch.device) -> torch.Tensor:
    """Fixed encoding of the distances 0 to ``count - 1``, float32 [count, width] (Dai et al. 2019, section 3.3)."""
    distance = torch.arange(count, dtype=torch.float64, device=device)[:, None]
    angles = distance * _frequencies(width, device)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).float()


def _frequencies(width: int, device: torch.device) -> torch.Tensor:
    exponent = torch.arange(0, width, 2, dtype=torch.float64, device=device) / width
    return 10000.0**-exponent
