"""`Member`: one place in the fleet, and what is known of the process in it.

The process is a Ray actor with three methods: ``build()`` does the slow imports, ``run(...)`` lasts as long as it has
work and carries its exception, ``report()`` answers at once. So a death, an exception and an orderly end all show as
the end of ``run``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from distributed.deaths import Deaths

BUILDING = ("importing", "imported", "built")
"""Phases of a process that is not made yet (`distributed.processes`)."""
STARTING = (*BUILDING, "waiting for data", "waiting for weights")
"""Phases of one that does not do its work yet."""


@dataclasses.dataclass
class Member:
    """One place in the fleet; the process in it may change.

    Attributes:
        name: ``<role>/<what>``, for messages and metrics.
        start: makes the Ray actor, anew for each restart.
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
    start: Callable[[], Any]
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
