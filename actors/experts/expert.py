"""The interface of an expert: it plays whole episodes with whatever privileged access it needs."""

from __future__ import annotations

from typing import Protocol

from actors.demonstrations.episode import ActionRecord


class Expert(Protocol):
    """Plays one task. What it returns is replayed through the task's own adapter, which makes the observations."""

    name: str

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode from a reset with ``seed``.

        ``noise`` is the strength of disturbances injected into the executed action (labels stay the expert's own
        choice): a standard deviation for continuous actions, a probability of a random action for discrete ones.
        """
        ...
