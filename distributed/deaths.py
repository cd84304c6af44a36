"""`Deaths`: how often a process died, against the budget of `ClusterConfig.restarts`."""

from __future__ import annotations

import dataclasses
from collections import deque

from distributed.cluster_config import ClusterConfig
from distributed.errors import ClowderError

HEALTHY_SECONDS = 30.0
"""A process that has worked so long is started again at once; the wait doubles for each that has not."""


class FleetFailure(ClowderError):
    """A process that the run cannot do without died more often than it may be started again, or does not start."""

    exit_code = 1


@dataclasses.dataclass
class Deaths:
    """Of one process, each forgotten after ``cluster.restart_minutes`` of its work. Of one that never comes to work
    none is forgotten, however slowly it dies.

    Attributes:
        at: those that count, in seconds of work.
        worked: seconds, so far.
        quick: deaths that came soon after a start, one after the other.
    """

    at: deque[float] = dataclasses.field(default_factory=deque)
    worked: float = 0.0
    quick: int = 0

    def add(self, config: ClusterConfig, worked: float, *, free: bool = False) -> float | None:
        """Seconds to wait before the next start, after one that worked so long; None where it died too often.

        ``free``: this death does not count.
        """
        self.worked += worked
        if not free:
            self.at.append(self.worked)
        while self.at and self.worked - self.at[0] > 60 * config.restart_minutes:
            self.at.popleft()
        if len(self.at) > config.restarts:
            return None
        self.quick = 0 if worked > HEALTHY_SECONDS else self.quick + 1
        return min(30.0, 0.5 * 2**self.quick)

    def describe(self, config: ClusterConfig) -> str:
        """How often, in words."""
        minutes = f"{config.restart_minutes:g} minutes of work"
        return f"died {len(self.at)} times in {minutes} (cluster.restarts={config.restarts})"
