"""Decoder-only transformer: pre-norm, GEGLU, no biases (Reed et al. 2022, section 2.3, table 5)."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from agent.attention import Layout, attention, attention_entropy, rotary_angles, rotate, sinusoids
from agent.cache import Extension
from agent.config import AgentConfig


def drop_path(x: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Stochastic depth: drop a sub-layer's output for whole rows, keeping its expectation. ``x`` [batch, length, d].

    It multiplies instead of skipping, so that every parameter has a gradient in every step.
    """
    if not training or probability == 0.0:
        return x
    keep = 1.0 - probability
    return x * (torch.rand(x.shape[0], 1, 1, device=x.device) < keep).to(x.dtype) / keep


class RelativeProjection(nn.Module):
    """Transformer-XL's scores of distances (Dai et al. 2019, section 3.3): a projection and two biases a layer."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.project = nn.Linear(config.width, config.width, bias=False)
        shape = (config.heads, 1, config.width // config.heads)
        self.content_bias = nn.Parameter(torch.zeros(shape))
        self.position_bias = nn.Parameter(torch.zeros(shape))

    def forward(self, q: torch.Tensor, encoded: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
        """Scaled scores [batch, heads, queries, keys].

        Args:
            q: queries [batch, heads, queries, head width].
            encoded: sinusoids of the distances 0 to D - 1, [D, d].
            distance: int64 [batch or 1, queries, keys] in [0, D).
        """
        projected = self.project(encoded).unflatten(-1, (self.heads, -1)).permute(1, 2, 0)  # [heads, head width, D]
        by_distance = (q + self.position_bias) @ projected / math.sqrt(q.shape[-1])
        return by_distance.gather(-1, distance[:, None].expand(q.shape[0], self.heads, -1, -1))


class Sink(nn.Module):
    """A learned key and value that every token sees, so that a window may leave out the first tokens
    (Xiao et al. 2024, section 3.3). The key is compared before rotation: it is equally far from everything."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        shape = (config.heads, 1, config.width // config.heads)
        self.key = nn.Parameter(torch.randn(shape) / math.sqrt(shape[-1]))
        self.value = nn.Parameter(torch.zeros(shape))


@dataclasses.dataclass(frozen=True)
class Shared:
    """What all blocks use in one forward.

    Attributes:
        layout: who sees whom.
        extension: the cache that is appended to, if any.
        angles: of the rotary positions; None with ``positions: xl``.
        encoded, distance: sinusoids of distances [D, d], and the distance of each query and key; None with rotary ones.
    """

    layout: Layout
    extension: Extension | None = None
    angles: tuple[torch.Tensor, torch.Tensor] | None = None
    encoded: torch.Tensor | None = None
    distance: torch.Tensor | None = None


class Block(nn.Module):
    """Attention and gated feed-forward, each behind a layer norm."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        width, hidden = config.width, config.feedforward * config.width
        self.heads = config.heads
        self.stochastic_depth = config.stochastic_depth
        self.backend = config.attention
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query_key_value = nn.Linear(width, 3 * width, bias=False)
        self.attention_out = nn.Linear(width, width, bias=False)
        self.feedforward_norm = nn.LayerNorm(width, bias=False)
        self.feedforward_in = nn.Linear(width, hidden, bias=False)
        self.feedforward_out = nn.Linear(hidden // 2, width, bias=False)
        self.relative = RelativeProjection(config) if config.positions == "xl" else None
        self.sink = Sink(config) if config.attention_window is not None else None

    def forward(self, x: torch.Tensor, shared: Shared, layer: int = 0) -> torch.Tensor:
        """[batch, length, d] to the same."""
        x = x + drop_path(self._attend(self.attention_norm(x), shared, layer), self.stochastic_depth, self.training)
        value, gate = self.feedforward_in(self.feedforward_norm(x)).chunk(2, dim=-1)
        mixed = self.feedforward_out(value * functional.gelu(gate))
        return x + drop_path(mixed, self.stochastic_depth, self.training)

    def _attend(self, x: torch.Tensor, shared: Shared, layer: int) -> torch.Tensor:
        q, k, v, bias = self._compared(x, shared, layer)
        mixed = attention(q, k, v, shared.layout, bias, self.backend)
        return self.attention_out(mixed.transpose(1, 2).flatten(2))

    def attention_entropy(self, x: torch.Tensor, shared: Shared) -> torch.Tensor:
        """Of what is attended to in a forward of ``x`` [batch, length, d]; see `agent.attention.attention_entropy`."""
        q, k, _, bias = self._compared(self.attention_norm(x), shared, 0)
        return attention_entropy(q, k, shared.layout, bias)

    def _compared(
        self, x: torch.Tensor, shared: Shared, layer: int
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
        """Queries, keys and values [batch, heads, length, head width], and what is added to the scores, if anything."""
        batch, length, _ = x.shape
        q, k, v = self.query_key_value(x).chunk(3, dim=-1)
        q, k, v = (t.reshape(batch, length, self.heads, -1).transpose(1, 2) for t in (q, k, v))
        bias = None if self.sink is None else q @ self.sink.key.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if shared.angles is not None:
            q, k = rotate(q, shared.angles), rotate(k, shared.angles)
        if shared.extension is not None:
            k, v = shared.extension.extend(layer, k, v)
        if self.relative is not None:
            assert shared.encoded is not None and shared.distance is not None
            scores = self.relative(q, shared.encoded, shared.distance)
            bias = scores if bias is None else torch.cat((bias, scores), dim=-1)
            q = q + self.relative.content_bias
        elif bias is not None:
            bias = functional.pad(bias, (0, k.shape[2]))
        if self.sink is not None:
            k = torch.cat((torch.zeros_like(k[:, :, :1]), k), dim=2)
            v = torch.cat((self.sink.value.to(v.dtype).expand(len(v), -1, -1, -1), v), dim=2)
        return q, k, v, None if bias is None else bias.to(q.dtype)


class Transformer(nn.Module):
    """Blocks and a final norm over embedded sequences.

    Attributes:
        recompute: whether training keeps only each block's input and computes the rest again backward (Chen et al.
            2016): less memory, a third more work.
    """

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.width, self.head_width = config.width, config.width // config.heads
        self.window = config.attention_window
        self.rotary = config.positions == "rotary"
        self.recompute = False
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width, bias=False)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                scale = 1.0 / math.sqrt(2 * config.layers) if name.endswith("_out") else 1.0
                nn.init.normal_(module.weight, std=scale / math.sqrt(module.in_features))

    def forward(
        self, x: torch.Tensor, layout: Layout | None = None, extension: Extension | None = None
    ) -> torch.Tensor:
        """Hidden states [batch, length, d].

        Args:
            x: embedded tokens [batch, length, d].
            layout: positions of the tokens and who sees whom; None where every row is one segment from its start. The
                model's own window and sink come to it here.
            extension: the cache that these tokens are appended to; its layout is taken.
        """
        if extension is not None:
            layout = extension.layout
        elif layout is None:
            layout = Layout(torch.arange(x.shape[1], device=x.device)[None])
        shared = self._shared(layout, extension, x.device)
        for number, block in enumerate(self.blocks):
            if self.recompute and torch.is_grad_enabled():
                x = checkpoint(block, x, shared, number, use_reentrant=False)
            else:
                x = block(x, shared, number)
        return self.final_norm(x)

    @torch.no_grad()
    def attention_entropy(self, x: torch.Tensor, layout: Layout) -> torch.Tensor:
        """Of each layer, float32 [layers], in a forward of embedded tokens [batch, length, d]; see
        `agent.attention.attention_entropy`."""
        shared, entropies = self._shared(layout, None, x.device), []
        for number, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            entropies.append(block.attention_entropy(x, shared))
            x = block(x, shared, number)
        return torch.stack(entropies)

    def _shared(self, layout: Layout, extension: Extension | None, device: torch.device) -> Shared:
        layout = dataclasses.replace(layout, window=self.window, sink=self.window is not None)
        if self.rotary:
            return Shared(layout, extension, angles=rotary_angles(layout.positions, self.head_width))
        distance = (layout.positions[:, :, None] - layout.keys[:, None]).clamp(min=0)
        encoded = sinusoids(int(distance.max()) + 1, self.width, device)
        return Shared(layout, extension, encoded=encoded, distance=distance)
