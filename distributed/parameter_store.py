"""`ParameterStore`: the newest weights of the learner, with their version.

Invariants: versions only rise, also across a restart of the learner; a reader sees a version together with exactly the
weights that were published under it; whoever dies, the last published weights stay readable, because the store makes
its own copy of them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

FlatWeights = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Published:
    """One publication.

    Attributes:
        version: of the policy; rises with every publication.
        weights: what ``keep`` made of the flat weights: a handle in a cluster, the arrays themselves in serial mode.
        published_at: seconds since the epoch, on the learner's clock.
    """

    version: int
    weights: Any
    published_at: float


class ParameterStore:
    """Holds one publication, the newest. ``keep`` copies weights to where all readers can reach them."""

    def __init__(self, keep: Callable[[FlatWeights], Any]) -> None:
        self._keep = keep
        self._newest: Published | None = None

    @property
    def version(self) -> int:
        """Of the newest publication; -1 before the first."""
        return -1 if self._newest is None else self._newest.version

    def publish(self, version: int, weights: FlatWeights, published_at: float) -> bool:
        """Keep ``weights`` (by name, any shapes) as ``version``.

        Returns False, and changes nothing, for a version that is not above the newest one: it comes from a learner
        that was replaced.
        """
        if version <= self.version:
            return False
        # The old handle is dropped only after the new one exists: a reader always finds one.
        self._newest = Published(version, self._keep(weights), published_at)
        return True

    def newer_than(self, version: int) -> Published | None:
        """The newest publication if it is above ``version``, else None."""
        return self._newest if self._newest is not None and self._newest.version > version else None
