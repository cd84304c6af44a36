"""`StoreSupervisor`: starts a run's parameter store, and has it started again where it does not answer."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection
from typing import Any

import ray

from distributed.cluster_config import ClusterConfig
from distributed.deaths import Deaths, FleetFailure
from distributed.fleet import Fleet
from distributed.processes import ParameterStoreProcess, spawn
from distributed.ray_state import free_resources, kill_by_id


class StoreSupervisor:
    """The parameter store of one run. Ray starts it again when it dies, empty, and the learner publishes anew.

    Attributes:
        handle: for the learner, actors and evaluators; it outlives the process.
        report: its newest; empty until it has answered.
    """

    def __init__(self, cluster: ClusterConfig, fleet: Fleet) -> None:
        self._cluster, self._fleet = cluster, fleet
        self._deaths = Deaths()
        self._asked: Any = None
        self.report: dict[str, Any] = {}
        self.restart_clock()
        self.handle = spawn(ParameterStoreProcess, cpus=0.0, threads=1, restarts=-1)

    def restart_clock(self) -> None:
        """It was not asked until now."""
        self._asked_at = self._answered_at = self._up_at = time.monotonic()

    def check(self, announced: Collection[str] = ()) -> None:
        """Ask it each ``cluster.report_seconds``; kill it where it does not answer.

        ``announced``: machines that are or were to be taken away; what dies there does not count. Raises FleetFailure
        where it died too often, or does not come (back).
        """
        now = time.monotonic()
        if self._asked is None:
            if now - self._asked_at >= self._cluster.report_seconds:
                self._asked, self._asked_at = self.handle.report.remote(), now
            return
        if ray.wait([self._asked], timeout=0)[0]:
            with contextlib.suppress(ray.exceptions.RayError):  # it died: Ray starts it again
                self._answered(ray.get(self._asked, timeout=1.0), now, announced)
            self._asked = None
            return
        first = not self.report
        limit = self._cluster.start_deadline_seconds if first else 60 * self._cluster.restart_minutes
        if now - self._answered_at > limit:
            raise FleetFailure(f"the parameter store did not start within {limit:g} s; free now: {free_resources()}")
        deadline = self._cluster.answer_deadline_seconds
        if not first and now - self._asked_at > deadline:
            self._fleet.tell(f"the parameter store did not answer for {deadline:g} s; it is killed")
            if not kill_by_id(self.report["pid"], self.report["machine"]):
                ray.kill(self.handle, no_restart=False)
            self._asked, self._asked_at = None, now

    def _answered(self, report: dict[str, Any], now: float, announced: Collection[str]) -> None:
        if self.report and report["pid"] != self.report["pid"]:
            free = self.report["machine"] in announced
            if self._deaths.add(self._cluster, self._answered_at - self._up_at, free=free) is None:
                raise FleetFailure(f"the parameter store {self._deaths.describe(self._cluster)}")
            self._up_at = now
            self._fleet.recovered("parameter_store", now - self._answered_at)
        self.report, self._answered_at = report, now
