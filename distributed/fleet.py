"""`Fleet`: the Ray processes of a run: started, asked for reports, replaced, moved and stopped."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable

import ray

from distributed.cluster_config import ClusterConfig
from distributed.deaths import FleetFailure
from distributed.errors import root_cause
from distributed.member import STARTING, Member
from distributed.ray_state import machines
from distributed.watchdog import Watchdog
from learner.learner import Diverged

log = logging.getLogger(__name__)

FINAL = (Diverged,)
"""What would only come again: the run ends at once."""


class Fleet:
    """Starts, asks, replaces and stops members.

    Args:
        config: of the cluster.
        on_report: takes each report.
        say: tells people what happened to the fleet.
        dispensable: whether the run can go on without a member that died too often.

    Attributes:
        restarts: processes that were started again.
        recoveries: (role, seconds from the last sign of life of a process until the one in its place does its work)
            since they were last taken.
    """

    def __init__(
        self,
        config: ClusterConfig,
        on_report: Callable[[Member], None],
        say: Callable[[str], None],
        dispensable: Callable[[Member], bool],
    ) -> None:
        self.config = config
        self._say, self._dispensable = say, dispensable
        self.recoveries: list[tuple[str, float]] = []
        self.members: list[Member] = []
        self._on_report = on_report
        self._stopping = False
        self._watchdog = Watchdog(config, self.tell, dispensable)
        self.restarts = 0

    def add(self, member: Member) -> Member:
        """Make a member's process and let it import and build; `run` it when what it connects to is up."""
        self.members.append(member)
        self._spawn(member)
        return member

    def _spawn(self, member: Member) -> None:
        member.handle = member.start()
        member.handle.build.remote()
        member.report, member.asked, member.start_again_at = {}, None, None
        member.stuck, member.roomless_since = False, None
        member.moving, member.parting, member.works_since = None, False, math.inf
        member.progressed_at = member.answered_at = time.monotonic()

    def run(self, members: Iterable[Member]) -> None:
        """Begin the work of members that were added."""
        for member in members:
            member.progressed_at = member.answered_at = time.monotonic()  # what it waited for is no time of its own
            member.running = member.handle.run.remote(*member.arguments())

    def poll(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for something to happen, and see to it.

        Raises `FleetFailure` where a member died too often.
        """
        self._watchdog.look(self.members)
        now = time.monotonic()
        for member in self.members:
            if member.start_again_at is not None and now >= member.start_again_at and not self._stopping:
                self._spawn(member)
                self.run([member])
                self.restarts += 1
            due = now - member.asked_at >= self.config.report_seconds
            if member.running is not None and member.asked is None and due and not member.parting:
                member.asked, member.asked_at = member.handle.report.remote(*member.ask()), now
        waiting = {}
        for member in self.members:
            for reference in (member.running, member.asked):
                if reference is not None:
                    waiting[reference] = member
        if not waiting:
            time.sleep(min(timeout, 0.1))
            return
        ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0.0)
        if not ready:
            ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout)
        # Reports first: the last counts of a process that ended are not lost.
        for reference in sorted(ready, key=lambda each: each == waiting[each].running):
            member = waiting[reference]
            if reference == member.running:
                self._ended(member)
            elif reference == member.asked:
                self._answered(member)
        self._watchdog.look(self.members)
        if self._stopping:
            return
        for member in list(self.members):
            if (why := self._watchdog.overdue(member)) is not None:
                self._died(member, why)
            if member.moving is not None and time.monotonic() > member.moving:
                self._moved(member)
            if member.leaving is not None and (member.finished or time.monotonic() > member.leaving):
                self.dismiss([member])

    def _answered(self, member: Member) -> None:
        try:
            report = ray.get(member.asked, timeout=1.0)
        except Exception as error:  # the end of `run` tells why
            log.debug("%s did not report: %s", member.name, error)
            report = None
        member.asked = None
        if report is None:
            return
        member.answered_at, member.begun = time.monotonic(), True
        if member.died_at is not None and report["phase"] not in STARTING:
            took, member.died_at = time.monotonic() - member.died_at, None
            self.recoveries.append((member.role, took))
            self.tell(f"{member.name} is back after {took:.1f} s")
        if report["phase"] not in STARTING:
            member.works_since = min(member.works_since, time.monotonic())
        if report.get("beat") != member.report.get("beat"):
            member.progressed_at = time.monotonic()
        member.report = report
        self._on_report(member)

    def _ended(self, member: Member) -> None:
        try:
            member.result = ray.get(member.running, timeout=5.0)
        except Exception as error:
            if member.parting:
                log.error("%s moves without its farewell: %s", member.name, root_cause(error))
                self._moved(member)
            else:
                self._died(member, error)
            return
        if member.parting:
            self._moved(member)
            return
        member.report = member.result
        self._on_report(member)
        if member.moving is not None:
            if member.farewell is None:
                self._moved(member)
            else:
                member.parting, member.running = True, member.farewell()
            return
        member.running, member.finished = None, True
        if not member.kept:
            self._kill(member)

    def _died(self, member: Member, error: Exception) -> None:
        member.running = member.asked = None
        if self._stopping or member.leaving is not None:
            member.finished = True
            return
        if not machines():
            raise FleetFailure(
                f"Ray has no machine any more, since its own processes died; go on with clowder train --resume: "
                f"{root_cause(error)}"
            )
        if isinstance(getattr(error, "cause", None), FINAL):
            raise FleetFailure(f"{member.name} ended the run: {root_cause(error)}") from error
        member.died_at = member.answered_at if member.died_at is None else member.died_at
        # Ray's word for a machine that was taken away
        free = member.moving is not None or getattr(error, "preempted", False)
        wait = member.deaths.add(self.config, member.worked, free=free)
        member.moving, member.parting = None, False
        self._kill(member)
        if wait is None:
            why = f"{member.name} {member.deaths.describe(self.config)}; the last time: {root_cause(error)}"
            if not self._dispensable(member):
                raise FleetFailure(why) from error
            member.lost = True
            self.tell(f"{why}. The run goes on without it")
            return
        self.tell(f"{member.name} died and starts again in {wait:.1f} s: {root_cause(error)}")
        member.start_again_at = time.monotonic() + wait

    def tell(self, what: str) -> None:
        """Something that happened to the fleet: into the log, and to people."""
        log.warning(what, extra={"told": True})
        self._say(what)

    def recovered(self, role: str, seconds: float) -> None:
        """What is no member (replay server, parameter store) is back, so long after its last sign of life."""
        self.restarts += 1
        self.recoveries.append((role, seconds))
        self.tell(f"the {role.replace('_', ' ')} is back after {seconds:.1f} s")

    def retire(self, member: Member, deadline: float) -> None:
        """Let a member end by itself, or be killed after ``deadline`` seconds, and forget it."""
        member.leaving, member.start_again_at, member.moving = time.monotonic() + deadline, None, None
        if member.running is None:
            member.finished = True
        else:
            member.handle.stop.remote()

    def move(self, member: Member, deadline: float) -> None:
        """Let a member end by itself, or be killed after ``deadline`` seconds, and start again elsewhere: its machine
        is to be taken away. That is no death."""
        member.moving = time.monotonic() + deadline
        member.handle.stop.remote()
        self.tell(f"{member.name} moves: its machine is to be taken away")

    def _moved(self, member: Member) -> None:
        if self._stopping:
            member.running, member.parting, member.finished = None, False, True
            return
        member.died_at = member.answered_at
        self.begin_anew(member)
        self.restarts += 1

    def begin_anew(self, member: Member) -> None:
        """Begin a member's work anew in a new process, whatever it was doing; its deaths are not counted up."""
        self._kill(member)
        member.running, member.finished = None, False
        self._spawn(member)
        self.run([member])

    def stop(self, members: list[Member], deadline: float) -> list[Member]:
        """Ask members to end and take their last reports; returns those that did not within ``deadline`` seconds.

        Processes of members that are ``kept`` stay for further calls, see `dismiss`.
        """
        end = time.monotonic() + deadline
        self._stopping = True
        for member in members:
            member.start_again_at = member.moving = None
            if member.running is None or member.parting:
                continue
            if member.report:
                member.handle.stop.remote()
            else:  # it has done nothing yet
                member.running, member.finished = None, True
                self._kill(member)
        while any(member.running is not None for member in members) and time.monotonic() < end:
            self.poll(min(0.2, max(0.0, end - time.monotonic())))
        self._stopping = False
        return [member for member in members if member.running is not None]

    def dismiss(self, members: list[Member]) -> None:
        """Kill what is left of members and forget them."""
        for member in members:
            self._kill(member)
            self.members.remove(member)

    def _kill(self, member: Member) -> None:
        member.asked = None
        if member.handle is not None:
            ray.kill(member.handle)
            member.handle = None

    def of(self, role: str) -> list[Member]:
        """Members of one role."""
        return [member for member in self.members if member.role == role]
