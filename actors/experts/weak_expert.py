"""`WeakExpert`: an expert that errs, and whose errors are what there is to imitate."""

from __future__ import annotations

import dataclasses
import math

from actors.demonstrations.episode import ActionRecord
from actors.experts.expert import Expert

PREFIX = "weak:"
"""Of such an expert's name."""


class WeakExpert:
    """Plays as ``expert`` does under disturbances of strength ``level``, and calls what came of it its own choice.

    Unlike noise that is injected while recording, whose labels stay the expert's, this makes demonstrations that are
    worth less than the expert: what an agent improves on. Its failures are demonstrations too.

    Raises:
        ValueError: the level is not a positive number.
    """

    def __init__(self, expert: Expert, level: float) -> None:
        if not (level > 0 and math.isfinite(level)):
            raise ValueError(f"the level of a weak expert must be a positive number, not {level}")
        self.name, self.sees = f"{PREFIX}{level:g}:{expert.name}", expert.sees
        self._expert, self._level = expert, level

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """See `Expert`; ``noise`` must be 0, since the errors are there already."""
        if noise:
            raise ValueError(f"{self.name} errs as it is; record it without --noise")
        played = self._expert.play(seed, self._level)
        return dataclasses.replace(played, label=played.action, noisy=False)
