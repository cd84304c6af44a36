"""`Watchdog`: judges members of the fleet by their silence, and tells who waits for whom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable

import ray

from distributed.cluster_config import ClusterConfig
from distributed.deaths import FleetFailure
from distributed.member import BUILDING, Member
from distributed.ray_state import actor_process, free_resources, kill_by_id

log = logging.getLogger(__name__)

STOOD_STILL_SECONDS = 5.0
"""Between two looks at the fleet; then this process stood still itself, and knows as long nothing of the others."""


class Watchdog:
    """Holds members to the deadlines of ``cluster.*``.

    Args:
        config: of the cluster.
        tell: tells people what happened to the fleet.
        dispensable: whether the run can go on without a member.
    """

    def __init__(
        self, config: ClusterConfig, tell: Callable[[str], None], dispensable: Callable[[Member], bool]
    ) -> None:
        self._config, self._tell, self._dispensable = config, tell, dispensable
        self._looked_at: float | None = None

    def look(self, members: Iterable[Member]) -> None:
        """Leave out of all deadlines what this process stood still; called more often than `STOOD_STILL_SECONDS`."""
        now = time.monotonic()
        gap = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if gap > STOOD_STILL_SECONDS:
            log.warning("the coordinator stood still for %.0f s; for as long it knows nothing of the others", gap)
            for member in members:
                member.progressed_at += gap
                member.asked_at += gap
                member.answered_at += gap

    def overdue(self, member: Member) -> TimeoutError | None:
        """Why a member is to be given up, or None; one that hears nothing of Ray is killed by its id.

        Raises FleetFailure where the cluster has no room for one that the run cannot do without.
        """
        if member.running is None or member.parting:
            return None
        now = time.monotonic()
        silent = now - member.progressed_at
        if not member.report:
            due = silent > self._config.start_deadline_seconds or member.roomless_since is not None
            return self._unheard(member, silent) if due else None
        asked = member.asked is not None and not ray.wait([member.asked], timeout=0)[0]
        unanswered = now - member.asked_at if asked else 0.0
        # While a process imports and builds, threads of its own wait for it longer than they do later.
        building = member.report["phase"] in BUILDING
        deadline = self._config.start_deadline_seconds if building else self._config.answer_deadline_seconds
        if unanswered > deadline:
            kill_by_id(member.report["pid"], member.report["machine"])
            return TimeoutError(f"no answer for {unanswered:.0f} s in phase {member.report['phase']}")
        if silent > max(self._config.stall_deadline_seconds, deadline if building else 0.0):
            return TimeoutError(self._standstill(member, silent))
        self._warn_of_waits(member, silent)
        return None

    def _unheard(self, member: Member, silent: float) -> TimeoutError | None:
        """Of a process that should have answered by now: it hangs, or the cluster has had no room for it yet.

        For room is waited, and that is no death: without end where the run goes on without it, else as long as a
        process may be away; only what it begins with must have room at once.
        """
        limit = self._config.start_deadline_seconds
        if (process := actor_process(member.handle)) is not None:
            if silent < limit:
                return None  # it waited for room before
            kill_by_id(*process)
            return TimeoutError(f"it did not start within cluster.start_deadline_seconds={limit:g}")
        now, told = time.monotonic(), member.roomless_since is not None
        since = member.roomless_since = now - silent if member.roomless_since is None else member.roomless_since
        member.progressed_at = now  # once there is room it has as long again
        too_long = not member.begun or now - since > 60 * self._config.restart_minutes
        ends = too_long and not self._dispensable(member)
        if told and not ends:
            return None
        why = f"{member.name} has waited {now - since:.0f} s for room in the cluster; free now: {free_resources()}"
        if ends:
            raise FleetFailure(f"{why}. Give it more room, or ask for less (cluster.*_cpus, num_actors)")
        self._tell(why)
        return None

    def _warn_of_waits(self, member: Member, silent: float) -> None:
        """Tell once what a member waits for when half of the stall deadline is over, beating or not."""
        longest = max([silent, *(seconds for _, seconds in member.report.get("waits", ()))])
        stuck = longest > 0.5 * self._config.stall_deadline_seconds
        if stuck and not member.stuck:
            log.warning("%s: %s", member.name, self._standstill(member, longest))
        elif member.stuck and not stuck:
            log.info("%s goes on", member.name)
        member.stuck = stuck

    def _standstill(self, member: Member, seconds: float) -> str:
        """Who waits for whom, and since when, in one clause."""
        report = member.report
        unanswered = time.monotonic() - member.asked_at if member.asked is not None else 0.0
        waits = [f"waits for {what}, since {since:.0f} s" for what, since in report.get("waits", ())]
        known = ", and ".join(waits) or "waits for nothing that is known"
        text = f"no progress for {seconds:.0f} s in phase {report['phase']}"
        if unanswered > max(2.0, 3 * self._config.report_seconds):
            return f"{text}: process {report['pid']} has not answered for {unanswered:.0f} s; then it {known}"
        return f"{text}: it {known}"
