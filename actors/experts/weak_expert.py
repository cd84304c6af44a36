"""`WeakExpert`: an expert that errs, and whose errors are what there is to imitate."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from actors.demonstrations.episode import ActionRecord
from actors.experts.expert import Expert

PREFIX = "weak:"
"""Of such an expert's name."""
EPISODE_SEED = 5_003
"""Mixed with an episode's seed, to choose whether it errs there."""


class WeakExpert:
    """Plays as ``expert`` does under disturbances of strength ``level``, and calls what came of it its own choice.

    Unlike noise that is injected while recording, whose labels stay the expert's, this makes demonstrations that are
    worth less than the expert: what an agent improves on. Its failures are demonstrations too.

    Args:
        expert: that errs.
        level: of the disturbances.
        share: of the episodes that have any, chosen by their seeds.

    Raises:
        ValueError: the level is not a positive number, or the share is not above 0 and at most 1.
    """

    def __init__(self, expert: Expert, level: float, share: float = 1.0) -> None:
        if not (level > 0 and math.isfinite(level)):
            raise ValueError(f"the level of a weak expert must be a positive number, not {level}")
        if not 0 < share <= 1:
            raise ValueError(f"the share of episodes in which a weak expert errs is above 0 and at most 1, not {share}")
        errs = f"{level:g}" if share == 1 else f"{level:g}@{share:g}"
        self.name, self.sees = f"{PREFIX}{errs}:{expert.name}", expert.sees
        self._expert, self._level, self._share = expert, level, share

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """See `Expert`; ``noise`` must be 0, since the errors are there already."""
        if noise:
            raise ValueError(f"{self.name} errs as it is; record it without --noise")
        errs = np.random.default_rng([seed, EPISODE_SEED]).random() < self._share
        played = self._expert.play(seed, self._level if errs else 0.0)
        return dataclasses.replace(played, label=played.action, noisy=False)
