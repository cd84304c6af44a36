"""Noise that is injected into executed continuous actions while demonstrations are recorded."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


def bursts(random: np.random.Generator, deviation: float) -> Iterator[float]:
    """Disturbance of each step: Ornstein-Uhlenbeck noise (20 steps) during bursts of 30 to 100 steps, 50 to 200 apart.

    It changes slowly within a burst, as a clone's errors do: white noise would average out over short steps.
    """
    value, active, remaining = 0.0, False, int(random.integers(100))
    decay = np.exp(-0.01 / 0.2)
    while True:
        if remaining == 0:
            active = not active
            remaining = int(random.integers(30, 100) if active else random.integers(50, 200))
            value = random.normal()
        value = decay * value + np.sqrt(1 - decay**2) * random.normal()
        remaining -= 1
        yield deviation * value if active else 0.0
