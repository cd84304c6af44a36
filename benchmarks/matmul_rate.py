"""What the machine can do: matrix products of a decoder's own shapes, and the work of one update."""

from __future__ import annotations

import dataclasses
import statistics
import time

import torch


@dataclasses.dataclass(frozen=True)
class DecoderShape:
    """Sizes of a decoder and its batch.

    Attributes:
        width, layers: of the model.
        hidden: width of the feed-forward block behind its gate.
        rows, length: of a batch, in tokens.
        targets: target positions in the whole batch.
        ids: logits computed at each of them.
    """

    width: int
    layers: int
    hidden: int
    rows: int
    length: int
    targets: int
    ids: int

    @property
    def products(self) -> list[tuple[int, int, int]]:
        """(m, k, n) of the five kinds of products of a forward pass: q k v, attention out, gated in, out, logits."""
        tokens, width = self.rows * self.length, self.width
        return [
            (tokens, width, 3 * width),
            (tokens, width, width),
            (tokens, width, 2 * self.hidden),
            (tokens, self.hidden, width),
            (self.targets, width, self.ids),
        ]

    def update_flops(self, non_embedding_parameters: int, segment_length: int) -> float:
        """Floating-point operations of forward and backward.

        6 x non-embedding parameters x tokens, plus causal attention within segments of ``segment_length`` tokens (the
        lower triangle only), plus the logits that are computed. Nothing is counted for embeddings and the optimiser.
        """
        tokens = self.rows * self.length
        attention = 6.0 * self.layers * segment_length * self.width * tokens
        return 6.0 * non_embedding_parameters * tokens + attention + 6.0 * self.width * self.ids * self.targets


def settle(device: torch.device) -> None:
    """Wait until the device has done all that it was asked."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class MatmulRate:
    """Times each of the five products in turn; `rate` is the median over them.

    Args:
        shape: of the products.
        device, dtype: where and in what they are computed.
    """

    def __init__(
        self, shape: DecoderShape, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._device = torch.device(device)
        self._pairs = [
            (torch.randn(m, k, device=device, dtype=dtype), torch.randn(k, n, device=device, dtype=dtype))
            for m, k, n in shape.products
        ]
        self._rates: list[list[float]] = [[] for _ in self._pairs]

    def measure(self, seconds: float = 0.05) -> None:
        """One more sample of each product, of about so many seconds."""
        for (a, b), rates in zip(self._pairs, self._rates):
            flops, count = 2.0 * a.shape[0] * a.shape[1] * b.shape[1], 0
            settle(self._device)
            started = time.perf_counter()
            while time.perf_counter() - started < seconds:
                torch.mm(a, b)
                count += 1
            settle(self._device)
            rates.append(count * flops / (time.perf_counter() - started))

    def rate(self) -> float:
        """Floating-point operations a second: the median over the products of their medians."""
        return statistics.median(statistics.median(rates) for rates in self._rates)
