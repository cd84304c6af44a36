"""`LearnerLoop`: the learner with its clocks: publish, checkpoint, report. Runs in a Ray process or in serial mode."""

from __future__ import annotations

import dataclasses
import logging
import math
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.agent import Agent
from agent.weights import fitting_weights, flat_weights, load_weights
from distributed.components import make_sources, open_streams
from distributed.plan import RunPlan
from distributed.run_replay import scratch_of, table_counts
from distributed.weight_exchange import WeightLink
from learner.batch_source import NoData
from learner.checkpoint import latest_checkpoint, restore_checkpoint, whole_checkpoints
from learner.checkpoint_writer import CheckpointWriter
from learner.learner import Learner
from replay.contents import ContentsSaver
from replay.table_info import ReplayInfo, ReplayMonitor
from replay.waiting import Waiting

log = logging.getLogger(__name__)


@dataclasses.dataclass
class LearnerParts:
    """What a learner is made of before it knows where replay is."""

    plan: RunPlan
    checkpoints: Path
    agent: Agent


def make_learner_parts(plan: RunPlan, checkpoints: Path) -> LearnerParts:
    """The model, with fresh weights or those it starts from; the newest checkpoint is restored later."""
    import torch

    # The first optimiser of a process imports this, for seconds; here it costs none, since replay is not up yet.
    import torch._dynamo

    torch.manual_seed(plan.config.seed)
    agent = Agent(plan.config.agent, plan.specs)
    if plan.config.start_from is not None and not whole_checkpoints(checkpoints):
        weights = fitting_weights(agent, Path(plan.config.start_from))
        load_weights(agent, flat_weights(agent) | weights)
        fresh = len(agent.state_dict()) - len(weights)
        log.info("the learner begins with the weights of %s, and %d fresh tensors", plan.config.start_from, fresh)
    return LearnerParts(plan, checkpoints, agent)


class LearnerLoop:
    """One `step` is one update and whatever is due beside it.

    Args:
        parts: see `make_learner_parts`; the newest checkpoint in their folder is restored, if there is one.
        address: of the replay server.
        link: to the parameter store.
        extra: gives what goes into a checkpoint beside the learner's own state (counters, clock, cursors).
        version: highest one that the caller has seen, which may be in no checkpoint.
        step: of the checkpoint that the caller goes on from, 0 for none; None: the newest, whichever it is.

    Raises:
        ValueError: the newest whole checkpoint here is of another ``step``.
    """

    def __init__(
        self,
        parts: LearnerParts,
        address: str,
        link: WeightLink,
        extra: Callable[[], dict[str, Any]],
        *,
        version: int = -1,
        step: int | None = None,
    ) -> None:
        config = parts.plan.config
        self._config, self._link, self._extra = config, link, extra
        self._monitor = ReplayMonitor(address, config.replay.poll_seconds, config.replay.loader)
        self._streams = open_streams(parts.plan, address, self._monitor)
        self.learner = Learner(parts.agent, make_sources(parts.plan, self._streams), config.learner, config.seed)
        found = latest_checkpoint(parts.checkpoints)
        newest = 0 if found is None else found.step
        if step is not None and newest != step:
            raise ValueError(
                f"the run goes on from step {step}, and where the learner runs the newest whole checkpoint in "
                f"{parts.checkpoints} is of step {newest}: the run's folder must be the same on all machines"
            )
        if found is not None:
            restore_checkpoint(found, self.learner)
            log.info("restored %s", found.folder)
        # Continue above every version that anybody has seen: the checkpoint's, and what was published after it.
        self.learner.version = max(self.learner.version, link.version(), version)
        self._wanting: dict[str, int] = {}
        self._wanting_since = time.monotonic()
        self._lock = threading.Lock()
        self._points: list[tuple[int, dict[str, float]]] = []
        self._newest: dict[str, Any] = {}
        self._first_update_at: float | None = None
        saver = ContentsSaver(address, scratch_of(parts.checkpoints), config.replay.loader)
        self.checkpoints = CheckpointWriter(
            parts.checkpoints,
            config.checkpoint,
            (lambda *arguments: table_counts(saver.save(*arguments))) if config.checkpoint.replay else None,
        )
        self._pointed_at = self._saved_at = time.monotonic()
        self._pointed_step = self._saved_step = self.learner.step_count
        self._published_at = -math.inf
        self.point()

    def begin(self, stop: threading.Event, progressed: Callable[[], object] = lambda: None) -> None:
        """Wait until `ready`, and publish first weights; returns when ``stop``. ``progressed`` is told of new windows.

        Actors play once they have weights. Before the first update that would only slow the replayers down, so the
        first publication comes after the wait, unless it is the actors that are waited for.

        Raises NoData as `ready`.
        """
        if any(source != "demonstrations" for _, source in self._first_keys()):
            self._publish()
        with Waiting("") as waiting:
            since = self._wanting_since
            while not stop.is_set() and not self.ready():
                if self._wanting_since != since:
                    since = self._wanting_since
                    progressed()
                waiting.what = f"replay server {self._monitor.address} to hold windows of {', '.join(self._wanting)}"
                time.sleep(0.02)
        self.publish_if_due()

    def ready(self) -> bool:
        """Whether every task has ``learner.min_replay_size`` windows: demonstrations where it has them, or its own.

        Raises NoData, with the tables that hold fewer, where none came for ``learner.data_deadline`` seconds.
        """
        config, now = self._config.learner, time.monotonic()
        wanting = {}
        for key in self._first_keys():
            stream = self._streams[key]
            size = max(stream.info().size, int(stream.available()))
            if size < config.min_replay_size:
                wanting[stream.table] = size
        if wanting != self._wanting:
            self._wanting, self._wanting_since = wanting, now
        if wanting and now - self._wanting_since > config.data_deadline:
            held = ", ".join(f"{table} (which holds {size})" for table, size in wanting.items())
            raise NoData(
                f"no window came for learner.data_deadline={config.data_deadline:g} s into {held}, and learning begins "
                f"with learner.min_replay_size={config.min_replay_size} in each; are the replayers and actors of these "
                "tasks alive, and have their sets so many?"
            )
        return not wanting

    def _first_keys(self) -> list[tuple[str, str]]:
        """For each task the source that must hold something first: demonstrations where it has them."""
        names = dict.fromkeys(name for name, _ in self._streams)
        own = self._config.own_source
        return [(name, "demonstrations" if (name, "demonstrations") in self._streams else own) for name in names]

    @property
    def done(self) -> bool:
        """Training has reached its end."""
        return self.learner.finished or self.learner.step_count >= self._config.last_step

    def step(self) -> None:
        """One update. Raises what `Learner.step` raises, such as NoData with the name of the table that is empty."""
        self.learner.step()
        now = time.monotonic()
        if self._first_update_at is None:
            self._first_update_at = time.time()
        self.publish_if_due()
        if now - self._pointed_at >= self._config.cluster.report_seconds:
            self.point()
        if self._checkpoint_due() and self.checkpoints.begin(self.learner, self._extra()):
            self._saved_at, self._saved_step = now, self.learner.step_count

    def _checkpoint_due(self) -> bool:
        config = self._config.checkpoint
        milestone = config.milestone_steps or self._config.last_step + 1
        passed = self.learner.step_count // milestone > self._saved_step // milestone
        return passed or time.monotonic() - self._saved_at >= config.every_seconds

    def publish_if_due(self) -> None:
        """Publish where ``cluster.publish_seconds`` have passed and the publication before is no more in flight."""
        if time.monotonic() - self._published_at >= self._config.cluster.publish_seconds and self._link.ready():
            self._publish()

    def _publish(self) -> None:
        self._link.publish(*self.learner.next_version())
        self._published_at = time.monotonic()

    def point(self) -> None:
        """Take the metrics of the updates since the last point. Only here, in the learner's thread."""
        metrics, step = self.learner.metrics(), self.learner.step_count
        newest = {
            "learner_steps": step,
            "version": self.learner.version,
            "first_update_at": self._first_update_at,
            "counters": self.learner.counters(),
            "checkpoints": {
                "pause_ms": self.checkpoints.pause_ms,
                "write_s": self.checkpoints.write_seconds,
                "cpu_s": self.checkpoints.cpu_seconds,
                "failures": self.checkpoints.failures,
            },
            "checkpoint_failure": self.checkpoints.why,
            "publication_failures": self._link.failures,
            "publication_failure": self._link.why,
        }
        with self._lock:
            if step > self._pointed_step:
                self._points.append((step - self._pointed_step, metrics))
            self._newest, self._pointed_step = newest, step
        self._pointed_at = time.monotonic()

    def report(self) -> dict[str, Any]:
        """Newest step, version and counters, and metrics since the last report: pairs (updates, means over them)."""
        with self._lock:
            points, self._points = self._points, []
            return self._newest | {"points": points}

    def save(self, deadline: float) -> Path:
        """Write a checkpoint of this step and wait for it, see `CheckpointWriter.save`.

        Raises CheckpointFailed where it is not on disk after ``deadline`` seconds.
        """
        return self.checkpoints.save(self.learner, self._extra(), deadline)

    def tables(self) -> ReplayInfo:
        """Of replay, as last looked at."""
        return self._monitor.info()

    def interrupt(self) -> None:
        """End a wait for data in `step`, from another thread."""
        self.learner.close()

    def close(self) -> None:
        """Publish the last weights, so that the last checkpoint has a version of its own, and let go of replay."""
        self._publish()
        self.point()
        self.learner.close()
        self._monitor.close()
        for stream in self._streams.values():
            stream.close()
