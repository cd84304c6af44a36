"""`CellKey`: screens that look alike at 8 x 11 points in 8 greys are one cell (Ecoffet et al. 2021, Methods)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from actors.explorer.emulator import SCREEN_HEIGHT, SCREEN_WIDTH

WIDTH, HEIGHT, GREYS = 8, 11, 8


class CellKey:
    """The grey screen, linearly resized to ``width`` x ``height`` and rounded down to ``greys`` levels.

    As OpenCV's INTER_LINEAR, so it looks at the four pixels around each point only: a small figure that moves changes
    the key, where the mean over an area would hardly change. About 10 microseconds, 2% of a step.

    The emulator gives colour indices quickly and grey screens slowly, so what each index looks like is learned when it
    is first seen. The key of a screen does not depend on what was seen before.
    """

    def __init__(self, width: int = WIDTH, height: int = HEIGHT, greys: int = GREYS) -> None:
        if not (1 <= width <= SCREEN_WIDTH and 1 <= height <= SCREEN_HEIGHT and 2 <= greys <= 256):
            raise ValueError(
                f"a key is at most {SCREEN_WIDTH} x {SCREEN_HEIGHT} points in 2 to 256 greys, "
                f"not {width} x {height} in {greys}"
            )
        self.width, self.height, self.greys = width, height, greys
        top, bottom, down = _neighbours(SCREEN_HEIGHT, height)
        left, right, across = _neighbours(SCREEN_WIDTH, width)
        corners = [(row, column) for row in (top, bottom) for column in (left, right)]
        self._places = np.stack([row[:, None] * SCREEN_WIDTH + column for row, column in corners]).reshape(4, -1)
        shares = [(y, x) for y in (1 - down, down) for x in (1 - across, across)]
        # Brightness b is in level floor(b * greys / 256): the factor is part of the weights.
        self._weights = np.stack([y[:, None] * x for y, x in shares]).reshape(4, -1) * (greys / 256)
        self._grey = np.full(256, -1e9)

    def __call__(self, screen: np.ndarray, see_grey: Callable[[], np.ndarray]) -> bytes:
        """Key of ``screen`` (colour indices, uint8 [210, 160]), one byte a point; ``see_grey`` gives its brightness."""
        levels = self._levels(screen)
        if levels.min() < 0:
            self._grey[screen] = see_grey()
            levels = self._levels(screen)
        return levels.astype(np.uint8).tobytes()

    def _levels(self, screen: np.ndarray) -> np.ndarray:
        """Unrounded levels, [points]; below 0 where a colour is not yet known."""
        seen = self._grey.take(screen.take(self._places))
        # As resizing rounds to a grey of 256 first: half a grey keeps whole sums from falling short.
        levels: np.ndarray = np.add.reduce(seen * self._weights, axis=0) + 0.5 * self.greys / 256
        return levels

    def picture(self, key: bytes) -> np.ndarray:
        """The key as an image, uint8 [height, width]: the middle of each level."""
        levels = np.frombuffer(key, np.uint8).reshape(self.height, self.width)
        return ((levels + 0.5) * 256 / self.greys).astype(np.uint8)


def _neighbours(size: int, points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For ``points`` equal parts of a side: pixels before and after each middle, and the weight of the one after."""
    middle = (np.arange(points) + 0.5) * size / points - 0.5
    before = np.clip(np.floor(middle).astype(np.int64), 0, size - 1)
    return before, np.minimum(before + 1, size - 1), np.clip(middle - before, 0.0, 1.0)
