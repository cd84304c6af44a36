"""The yardstick of `benchmarks.learner`: the decoder one would write by hand in PyTorch, and one update of it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class PlainBlock(nn.Module):
    """Pre-norm, causal attention by PyTorch's fused kernel, GEGLU; no biases."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp_norm = nn.LayerNorm(width, bias=False)
        self.mlp_in = nn.Linear(width, 2 * hidden, bias=False)
        self.mlp_out = nn.Linear(hidden, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[rows, length, width] to the same."""
        rows, length, width = x.shape
        q, k, v = (
            t.view(rows, length, self.heads, -1).transpose(1, 2)
            for t in self.qkv(self.attention_norm(x)).split(width, dim=-1)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(rows, length, width))
        value, gate = self.mlp_in(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.mlp_out(value * functional.gelu(gate))


class PlainDecoder(nn.Module):
    """Token and learned position embeddings, blocks, tied logits of the first ``ids`` ids at target positions only.

    Args:
        width, layers, heads: as in `agent.config.AgentConfig`.
        hidden: width of the feed-forward block behind its gate.
        vocabulary, length: rows of the token and the position table.
        ids: legal target ids.
    """

    def __init__(
        self, *, width: int, layers: int, heads: int, hidden: int, vocabulary: int, length: int, ids: int
    ) -> None:
        super().__init__()
        self.ids = ids
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.positions = nn.Embedding(length, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, tokens: torch.Tensor, targets_at: torch.Tensor) -> torch.Tensor:
        """Logits [rows, targets, ids] for tokens int64 [rows, length] at positions ``targets_at`` int64 [targets]."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, targets_at] @ self.tokens.weight[: self.ids].T


class PlainUpdate:
    """Updates on random tokens: forward, cross-entropy, backward, clipping, fused AdamW.

    Args:
        model: to train.
        rows, length: of a batch.
        targets: target positions in a row, evenly spread.
        autocast: in bf16.
    """

    def __init__(self, model: PlainDecoder, rows: int, length: int, targets: int, autocast: bool = False) -> None:
        self.model = model
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.1, betas=(0.9, 0.95), fused=True)
        self._shape = (rows, length)
        self._device = next(model.parameters()).device
        self._targets_at = torch.linspace(0, length - 1, targets).long().to(self._device)
        self._autocast = autocast

    def step(self) -> torch.Tensor:
        """The loss of one update, where it was computed: nothing waits for it."""
        tokens = torch.randint(self.model.tokens.num_embeddings, self._shape, device=self._device)
        targets = torch.randint(self.model.ids, (self._shape[0], len(self._targets_at)), device=self._device)
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._autocast):
            logits = self.model(tokens, self._targets_at)
            loss = functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        return loss.detach()
