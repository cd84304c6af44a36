"""`KeyValueCache`: keys and values of what a batch of slots has read, each slot with its own length and resets."""

from __future__ import annotations

import dataclasses

import torch

from agent.attention import Layout
from agent.config import AgentConfig

GROWTH = 64
"""Columns are added in multiples of this."""


class KeyValueCache:
    """Columns of keys and values of every layer, by slot; column = position modulo their number.

    With an attention window the columns are a ring and old tokens are overwritten; without one they grow as needed. The
    first ``pinned`` tokens of every slot, a prompt, have columns of their own and stay.

    Attributes:
        positions: int64 [slots, columns + 1], which token of its slot a column holds, -1 where none. The last column
            takes what is not to be kept.
        pinned: tokens of the prompt, columns 0 to ``pinned - 1``.
        private, timesteps: bool and int64 [slots, columns + 1], see `Layout`; used where `append` is told.
        next: int64 [slots], position of the next token.
    """

    def __init__(self, config: AgentConfig, slots: int, device: torch.device, droppable: int = 0) -> None:
        """``droppable``: most tokens that `drop` is asked to forget at once."""
        self.window = config.attention_window
        self._droppable = droppable
        self._shape = (config.layers, slots), (config.heads, config.width // config.heads)
        self._device = device
        self.pinned = 0
        self.next = torch.zeros(slots, dtype=torch.int64, device=device)
        self._allocate(0)

    @property
    def columns(self) -> int:
        """Tokens that can be held for each slot."""
        return self.positions.shape[1] - 1

    def _allocate(self, columns: int) -> None:
        (layers, slots), head = self._shape
        self.positions = torch.full((slots, columns + 1), -1, dtype=torch.int64, device=self._device)
        self.private = torch.zeros_like(self.positions, dtype=torch.bool)
        self.timesteps = torch.zeros_like(self.positions)
        heads, width = head
        self.keys = torch.zeros(layers, slots, heads, columns + 1, width, device=self._device)
        self.values = torch.zeros_like(self.keys)

    def pin(self, tokens: int) -> None:
        """The first ``tokens`` that every slot will read are the prompt."""
        assert self.pinned == 0 and not bool(self.next.any())
        self.pinned = tokens

    def clear(self) -> None:
        """Forget everything, the prompt as well."""
        self.positions[:] = -1
        self.next[:] = 0
        self.pinned = 0

    def reset(self, slots: torch.Tensor) -> None:
        """Forget all of ``slots`` (int64 [m]) but the prompt."""
        self.positions[slots, self.pinned :] = -1
        self.next[slots] = self.pinned

    def drop(self, count: int) -> None:
        """Forget the newest ``count`` tokens of every slot."""
        self.next = (self.next - count).clamp(min=0)
        self.positions = torch.where(self.positions >= self.next[:, None], -1, self.positions)

    def append(
        self,
        slots: torch.Tensor | None,
        valid: torch.Tensor,
        private: torch.Tensor | None = None,
        timesteps: torch.Tensor | None = None,
    ) -> Extension:
        """Make room for new tokens.

        Args:
            slots: int64 [m], the slots that read them; None for all of them.
            valid: bool [m, n], which of the n tokens are real; at least one in each row.
            private: bool [n], which are seen from their own timestep only; None: none of all that come.
            timesteps: int64 [m, n], with ``private``: which timestep they belong to.
        """
        chosen = torch.arange(len(self.next), device=self._device) if slots is None else slots
        positions = self.next[chosen][:, None] + (valid.cumsum(1) - 1).clamp(min=0)
        self.next[chosen] = positions[:, -1] + 1
        needed = int(self.next.max())
        if self.window is not None:
            needed = min(needed, self.pinned + self.window + valid.shape[1] + self._droppable)
        if needed > self.columns:
            self._grow(-(-needed // GROWTH) * GROWTH)
        columns = torch.where(valid, self._column(positions), self.columns)
        self.positions[chosen[:, None], columns] = torch.where(valid, positions, -1)
        used = min(int(self.next.max()), self.columns)
        pinned = torch.arange(used, device=self._device)[None] < self.pinned if self.pinned else None
        layout = Layout(positions, key_positions=self.positions[chosen, :used], pinned=pinned)
        if private is not None and timesteps is not None:
            self.private[chosen[:, None], columns] = private.expand_as(valid)
            self.timesteps[chosen[:, None], columns] = timesteps
            layout = dataclasses.replace(
                layout,
                private=self.private[chosen, :used],
                timesteps=timesteps,
                key_timesteps=self.timesteps[chosen, :used],
            )
        return Extension(self, slots, chosen[:, None], columns, used, layout)

    def _column(self, positions: torch.Tensor) -> torch.Tensor:
        ring = self.pinned + (positions - self.pinned) % max(1, self.columns - self.pinned)
        return torch.where(positions < self.pinned, positions, ring)

    def _grow(self, columns: int) -> None:
        positions, keys, values, private, timesteps = (
            self.positions, self.keys, self.values, self.private, self.timesteps
        )  # fmt: skip
        self._allocate(columns)
        slot, column = torch.nonzero(positions >= 0, as_tuple=True)
        kept = positions[slot, column]
        place = self._column(kept)
        self.positions[slot, place] = kept
        self.private[slot, place] = private[slot, column]
        self.timesteps[slot, place] = timesteps[slot, column]
        self.keys[:, slot, :, place] = keys[:, slot, :, column]
        self.values[:, slot, :, place] = values[:, slot, :, column]


@dataclasses.dataclass(frozen=True)
class Extension:
    """New tokens of m slots on their way into a cache.

    Attributes:
        layout: what they see.
    """

    cache: KeyValueCache
    slots: torch.Tensor | None
    rows: torch.Tensor
    columns: torch.Tensor
    used: int
    layout: Layout

    def extend(self, layer: int, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keep keys and values [m, heads, n, head width] of one layer; give all that these slots hold."""
        both = []
        for kept, new in ((self.cache.keys[layer], k), (self.cache.values[layer], v)):
            kept[self.rows, :, self.columns] = new.transpose(1, 2).to(kept.dtype)
            held = kept[:, :, : self.used] if self.slots is None else kept[self.slots, :, : self.used]
            both.append(held.to(new.dtype))
        return both[0], both[1]
