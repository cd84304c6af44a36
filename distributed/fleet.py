"""`Fleet`: the Ray processes of a run, each with its reports, its deaths and the right to be started again.

A member is a Ray actor with three methods: ``build()`` does the slow imports, ``run(...)`` lasts as long as the process
has work and carries its exception, ``report()`` answers at once. So a death, an exception and an orderly end all
show as the end of ``run``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

import psutil
import ray

from distributed.cluster_config import ClusterConfig
from distributed.deaths import Deaths
from distributed.errors import ClowderError
from distributed.ray_state import actor_process, free_resources, machine, machines
from learner.learner import Diverged

log = logging.getLogger(__name__)

BUILDING = ("importing", "imported", "built")
"""Phases of a process that is not made yet (`distributed.processes`)."""
STARTING = (*BUILDING, "waiting for data", "waiting for weights")
"""Phases of one that does not do its work yet."""
STOOD_STILL_SECONDS = 5.0
"""Between two looks at the fleet; then this process stood still itself, and knows as long nothing of the others."""
FINAL = (Diverged,)
"""What would only come again: the run ends at once."""


class FleetFailure(ClowderError):
    """A process died more often than it may be started again."""

    exit_code = 1


class Starter(Protocol):
    """Makes one member's Ray actor."""

    def __call__(self) -> Any:
        """A handle of a new actor; called again for each restart."""
        ...


@dataclasses.dataclass
class Member:
    """One place in the fleet; the process in it may change.

    Attributes:
        name: ``<role>/<what>``, for messages and metrics.
        start: makes the Ray actor.
        arguments: makes what its ``run`` is given, at each start.
        kept: its process stays when ``run`` has returned, for further calls; else it ends then.
        ask: arguments of ``report``, made at each question.
        farewell: begins what is still to be had of a ``kept`` process, whose ``run`` has ended, before it moves to
            another machine; a reference to it.
        handle, running, asked: of the present process: the actor, its ``run``, and a report not yet answered.
        report: last one; empty for a process that has not answered yet.
        progressed_at: monotonic time at which its beat last changed.
        stuck: what it waits for was told in the log, and it still does.
        roomless_since: monotonic time since which it waits for room in the cluster, as far as is known.
        begun: one of its processes has answered.
        deaths: of its processes.
        works_since: monotonic time at which the present process began to do its work.
        answered_at: monotonic time of its last answer.
        died_at: monotonic time of the last sign of life before its last death, until it works again.
        lost: it died too often, and the run goes on without it.
        leaving: monotonic time until which it may end by itself; see `Fleet.retire`.
        moving: monotonic time until which it may end by itself, to start again elsewhere; see `Fleet.move`.
        parting: its ``run`` has ended, ``running`` is its farewell.
        finished: its ``run`` returned by itself; the value is in ``result``.
    """

    name: str
    start: Starter
    arguments: Callable[[], tuple[Any, ...]]
    kept: bool = False
    ask: Callable[[], tuple[Any, ...]] = tuple
    farewell: Callable[[], Any] | None = None
    handle: Any = None
    running: Any = None
    asked: Any = None
    asked_at: float = 0.0
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    progressed_at: float = 0.0
    stuck: bool = False
    roomless_since: float | None = None
    begun: bool = False
    deaths: Deaths = dataclasses.field(default_factory=Deaths)
    works_since: float = math.inf
    start_again_at: float | None = None
    answered_at: float = 0.0
    died_at: float | None = None
    lost: bool = False
    leaving: float | None = None
    moving: float | None = None
    parting: bool = False
    finished: bool = False
    result: Any = None

    @property
    def role(self) -> str:
        """The name's part before the slash."""
        return self.name.partition("/")[0]

    @property
    def alive(self) -> bool:
        """Has a process that answered at least once."""
        return self.running is not None and bool(self.report)

    @property
    def worked(self) -> float:
        """Seconds that the present process has worked, waits in which nothing went on left out."""
        return max(0.0, self.progressed_at - self.works_since)


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
        self._looked_at: float | None = None
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
            member.running = member.handle.run.remote(*member.arguments())

    def poll(self, timeout: float) -> None:
        """Wait at most ``timeout`` seconds for something to happen, and see to it.

        Raises `FleetFailure` where a member died too often.
        """
        self._look()
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
        self._look()
        for member in [] if self._stopping else list(self.members):
            self._check_progress(member)
            if member.moving is not None and time.monotonic() > member.moving:
                self._moved(member)
            if member.leaving is not None and (member.finished or time.monotonic() > member.leaving):
                self.dismiss([member])

    def _look(self) -> None:
        """Leave out of all deadlines what this process stood still."""
        now = time.monotonic()
        gap = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        if gap > STOOD_STILL_SECONDS:
            log.warning("the coordinator stood still for %.0f s; for as long it knows nothing of the others", gap)
            for member in self.members:
                member.progressed_at += gap
                member.asked_at += gap
                member.answered_at += gap

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

    def _check_progress(self, member: Member) -> None:
        if member.running is None or member.parting:
            return
        now = time.monotonic()
        asked = member.asked is not None and not ray.wait([member.asked], timeout=0)[0]
        unanswered = now - member.asked_at if asked else 0.0
        # While a process imports and builds, threads of its own wait for it longer than they do later.
        building = member.report.get("phase") in BUILDING
        deadline = self.config.start_deadline_seconds if building else self.config.answer_deadline_seconds
        if member.report and unanswered > deadline:
            kill_process(member.report)
            self._died(member, TimeoutError(f"no answer for {unanswered:.0f} s in phase {member.report.get('phase')}"))
            return
        silent = now - member.progressed_at
        if not member.report:
            if silent > self.config.start_deadline_seconds or member.roomless_since is not None:
                self._unheard(member, silent)
        elif silent > max(self.config.stall_deadline_seconds, deadline if building else 0.0):
            ray.kill(member.handle)
            self._died(member, TimeoutError(self._standstill(member, silent)))
        else:
            self._warn_of_waits(member, silent)

    def _unheard(self, member: Member, silent: float) -> None:
        """Of a process that should have answered by now: it hangs, or the cluster has had no room for it yet.

        For room is waited, and that is no death: without end where the run goes on without it, else as long as a
        process may be away; only what it begins with must have room at once.
        """
        if (process := actor_process(member.handle)) is not None:
            if silent < self.config.start_deadline_seconds:
                return  # it waited for room before
            pid, where = process
            if where == machine():
                kill_process({"pid": pid, "host": socket.gethostname()})
            limit = f"cluster.start_deadline_seconds={self.config.start_deadline_seconds:g}"
            self._died(member, TimeoutError(f"it did not start within {limit}"))
            return
        now, told = time.monotonic(), member.roomless_since is not None
        since = member.roomless_since = now - silent if member.roomless_since is None else member.roomless_since
        member.progressed_at = now  # once there is room it has as long again
        too_long = not member.begun or now - since > 60 * self.config.restart_minutes
        ends = too_long and not self._dispensable(member)
        if told and not ends:
            return
        why = f"{member.name} has waited {now - since:.0f} s for room in the cluster; free now: {free_resources()}"
        if ends:
            raise FleetFailure(f"{why}. Give it more room, or ask for less (cluster.*_cpus, num_actors)")
        self.tell(why)

    def _warn_of_waits(self, member: Member, silent: float) -> None:
        """Tell once what a member waits for when half of the stall deadline is over, beating or not."""
        longest = max([silent, *(seconds for _, seconds in member.report.get("waits", ()))])
        stuck = longest > 0.5 * self.config.stall_deadline_seconds
        if stuck and not member.stuck:
            log.warning("%s: %s", member.name, self._standstill(member, longest))
        elif member.stuck and not stuck:
            log.info("%s goes on", member.name)
        member.stuck = stuck

    def _standstill(self, member: Member, seconds: float) -> str:
        """Who waits for whom, and since when, in one clause."""
        unanswered = time.monotonic() - member.asked_at if member.asked is not None else 0.0
        waits = [f"waits for {what}, since {since:.0f} s" for what, since in member.report.get("waits", ())]
        known = ", and ".join(waits) or "waits for nothing that is known"
        text = f"no progress for {seconds:.0f} s in phase {member.report.get('phase')}"
        if unanswered > max(2.0, 3 * self.config.report_seconds):
            return (
                f"{text}: process {member.report.get('pid')} has not answered for {unanswered:.0f} s; then it {known}"
            )
        return f"{text}: it {known}"

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
        log.warning(what)
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


def kill_process(report: dict[str, Any]) -> bool:
    """Kill the process of a report by its id: a stopped one hears nothing of Ray. False for one of another machine."""
    if report.get("host") != socket.gethostname():
        return False
    with contextlib.suppress(psutil.Error, ProcessLookupError, KeyError):
        if "".join(psutil.Process(report["pid"]).cmdline()[:1]).startswith("ray::"):  # not another's, by the same id
            os.kill(report["pid"], signal.SIGKILL)
    return True


def root_cause(error: BaseException) -> str:
    """The message of what was raised inside a Ray process, without Ray's own wrapping, on one line."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, BaseException):
        error = cause
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    text = lines[-1] if "Traceback" in str(error) and lines else " ".join(lines[:3])
    return text if text.startswith(type(error).__name__) else f"{type(error).__name__}: {text}"
