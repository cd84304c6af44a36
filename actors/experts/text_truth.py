"""Says what is right: the expert of all text tasks, which knows the truth."""

from __future__ import annotations

from typing import Any

import numpy as np

from actors.demonstrations.episode import ActionRecord
from actors.environments.text import make_source
from actors.experts.expert import Sees
from agent.task import text_bytes


class TextTruth:
    """See `actors.experts.expert.Expert`."""

    name = "text-truth"
    sees: Sees = "privileged information"

    def __init__(self, task_name: str, arguments: dict[str, Any]):
        self._source = make_source(task_name, arguments)

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """The right text. Texts cannot be disturbed: noise raises ValueError."""
        if noise:
            raise ValueError("text-truth takes no noise: a text has no disturbed form; leave --noise out")
        said = text_bytes(self._source.pair(seed).said, self._source.max_bytes)[None]
        return ActionRecord(seed=seed, action=said, label=said, label_mask=np.ones(1, bool), episode_return=1.0)
