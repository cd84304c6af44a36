"""`ReplaySupervisor`: starts a run's replay server, and starts it again where it died or does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from distributed.deaths import Deaths, FleetFailure
from distributed.fleet import Fleet
from distributed.plan import RunPlan
from distributed.run_folder import RunFolder
from distributed.run_replay import start_run_replay
from distributed.stop_request import kill_descendants
from learner.checkpoint import Checkpoint, latest_checkpoint
from replay.server import ReplayServerError, ServerHandle
from replay.table_info import ReplayMonitor

Made = tuple[ServerHandle, dict[str, Any]]
"""A server, and the replayers' cursors that belong to what is in its tables."""


class _Start(threading.Thread):
    """One start under way, in a daemon thread, so that all others are watched meanwhile."""

    def __init__(self, make: Callable[[], Made], closing: threading.Event, delay: float = 0.0) -> None:
        super().__init__(name="replay-start", daemon=True)
        self._make, self._closing, self._delay = make, closing, delay
        self.began = time.monotonic()
        self.made: Made | None = None
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        """The thread's own part."""
        try:
            if self._closing.wait(self._delay):
                raise ReplayServerError("the run ends")
            made = self._make()
            if self._closing.is_set():
                made[0].kill()
            self.made = made
        except Exception as error:
            self.error = error


class ReplaySupervisor:
    """The replay server of one run; its clients go on by themselves when another takes its place, on the same port.

    Args:
        plan: of the run.
        folder: of the run.
        fleet: is told what happens.

    Attributes:
        server: the present one, or the one that died last; None before the first.
        cursors: of replayers, that belong to what is in the present server's tables.
        monitor: looks at its tables; None before the first.
    """

    def __init__(self, plan: RunPlan, folder: RunFolder, fleet: Fleet) -> None:
        self._plan, self._folder, self._fleet = plan, folder, fleet
        self._closing = threading.Event()
        self._deaths = Deaths()
        self._start: _Start | None = None
        self._died_at: float | None = None
        self._up_at = 0.0
        self.server: ServerHandle | None = None
        self.cursors: dict[str, Any] = {}
        self.monitor: ReplayMonitor | None = None

    @property
    def starting(self) -> bool:
        """A server is being started: what replayers report now is of the one before."""
        return self._start is not None

    def begin(self, checkpoint: Checkpoint | None) -> None:
        """Start the first server, with the contents of ``checkpoint`` where it has any; see `arrived`."""
        self._start = _Start(lambda: start_run_replay(self._plan, self._folder, checkpoint), self._closing)

    def arrived(self) -> bool:
        """Whether a server that was being started is up now; true once.

        Raises what hindered the first one, and FleetFailure where it takes too long.
        """
        if self._start is None:
            return False
        if self._start.is_alive():
            config = self._plan.config
            limit = config.checkpoint.deadline_seconds + 2 * config.replay.start_deadline
            if time.monotonic() - self._start.began > limit:
                raise FleetFailure(f"the replay server did not start within {limit:.0f} s; does the disk answer?")
            return False
        made, error = self._start.made, self._start.error
        self._start = None
        if made is None:
            assert error is not None
            if self.server is None:
                raise error
            self._fleet.tell(f"the replay server did not start: {error}")
            self._again(self.server, worked=0.0)
            return False
        self.server, self.cursors = made
        self._up_at = time.monotonic()
        self.monitor = self.monitor or ReplayMonitor(self.server.address, loader=self._plan.config.replay.loader)
        return True

    def check(self) -> bool:
        """See to a server that died, or that does not answer: another is started on its port, with the newest contents
        that were saved, or empty. Whether one has `arrived` in its place.

        Raises FleetFailure where it died too often.
        """
        if self._start is not None:
            return self.arrived()
        assert self.server is not None and self.monitor is not None
        now, deadline, age = time.monotonic(), self._plan.config.cluster.answer_deadline_seconds, 0.0
        # Where nobody looked, since this process stood still itself, nothing is known of the server.
        if self.monitor.info() and (self._died_at or self.monitor.failures):
            age = min(self.monitor.age, now - self._up_at)
        if self._died_at is not None and age < now - self._up_at:  # it answered since
            took, self._died_at = now - self._died_at, None
            self._fleet.recovered("replay_server", took)
        if self.server.alive() and age < (deadline if self._died_at is None else 2 * deadline):
            return False
        why = f"did not answer for {deadline:g} s" if self.server.alive() else "died"
        self._fleet.tell(f"the replay server {why}; it starts again on port {self.server.port}")
        self._died_at = now - age
        self._again(self.server, worked=now - age - self._up_at)
        return False

    def _again(self, former: ServerHandle, worked: float) -> None:
        """Start one in the place of another, which worked so many seconds."""
        config = self._plan.config
        former.kill()
        wait = self._deaths.add(config.cluster, worked)
        if wait is None:
            raise FleetFailure(f"the replay server {self._deaths.describe(config.cluster)}; replay.log may say why")

        def make() -> Made:
            asked = config.checkpoint.replay
            saved = latest_checkpoint(self._folder.checkpoints, with_replay=True) if asked else None
            return start_run_replay(self._plan, self._folder, saved, port=former.port, generation=former.generation + 1)

        self._start = _Start(make, self._closing, delay=0.0 if self._deaths.quick <= 1 else wait)

    def close(self) -> None:
        """End the server, and one that is being started."""
        self._closing.set()
        if self._start is not None:
            kill_descendants("replay.server_process")
        if self.monitor is not None:
            self.monitor.close()
        if self.server is not None:
            self.server.stop(2.0)
