"""Ray shells of the components: `LearnerProcess`, `EnvironmentActorProcess`, `ReplayerProcess`, `EvaluatorProcess` and
`ParameterStoreProcess`.

Each shell is thin: it sets its process up, builds its component from the run's plan, and drives the one loop that the
component has. ``build`` and ``run`` are called in threads of their own beside ``report`` and ``stop``, which answer at
any time. Nothing heavy is imported before the process has its niceness, so that the learner's imports come first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

import ray

from distributed.parameter_store import FlatWeights, ParameterStore, Published
from distributed.plan import RunPlan
from distributed.process_environment import be_nice, give_back_large_arrays
from distributed.ray_state import machine
from distributed.weight_exchange import Puller, RayWeightLink
from replay.waiting import Waiting, waits

LOOK_SECONDS = 0.25
"""Loops look at their stop flag and timers about so often."""


def spawn(kind: type, *arguments: Any, cpus: float, gpus: float = 0.0, threads: int = 4, restarts: int = 0) -> Any:
    """A Ray actor of one of the classes below: ``threads`` of its methods may run at the same time.

    Restarts are the coordinator's business, which gives each process a new incarnation, except where ``restarts`` says
    that Ray may do it by itself (-1: always).
    """
    made: Any = ray.remote(kind)
    options = made.options(num_cpus=cpus, num_gpus=gpus, max_concurrency=threads, max_restarts=restarts)
    return options.remote(*arguments)


class _Shell:
    """What all processes share: set-up, phases for the start-up timeline, a beat that shows progress."""

    def __init__(self, plan: RunPlan, nice: int, threads: int, accelerator: bool = False, urgent: bool = False) -> None:
        """``urgent``: it takes the place of one that is gone, and is nice only once it is built."""
        self.plan = plan
        self.phase = "importing"
        self.beat = 0
        self.marks = {"process": time.time()}
        self.stopping = threading.Event()
        self._build_lock = threading.Lock()
        self._parts: Any = None
        self._rss_at = 0.0
        self._rss = 0.0
        self._machine = machine()
        self._nice_later = nice if urgent else 0
        if not urgent:
            be_nice(nice)
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = str(threads)
        if not accelerator:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._threads = threads

    def build(self) -> None:
        """Import and construct what needs no address. Its exception comes again from `run`."""
        self.built()

    def built(self) -> Any:
        """What `make` made; made once, by whoever comes first."""
        with self._build_lock:
            if self._parts is None:
                import torch

                torch.set_num_threads(self._threads)
                self.mark("imported")
                self._parts = self.make()
                be_nice(self._nice_later)
                self.mark("built")
            return self._parts

    def make(self) -> Any:
        """Build the parts of this process."""
        raise NotImplementedError

    def mark(self, name: str) -> None:
        """Note the time of a step of the start-up, once."""
        self.marks.setdefault(name, time.time())
        self.phase = name

    def progressed(self) -> None:
        """Beat: something went on."""
        self.beat += 1

    def stop(self) -> None:
        """Ask the loop to end; `run` returns soon after."""
        self.stopping.set()

    def common(self) -> dict[str, Any]:
        """The part of a report that all processes have."""
        if time.monotonic() - self._rss_at > 5.0:
            import psutil

            self._rss, self._rss_at = psutil.Process().memory_info().rss / 2**20, time.monotonic()
        return {
            "phase": self.phase,
            "beat": self.beat,
            "waits": waits(),
            "marks": dict(self.marks),
            "rss_mb": self._rss,
            "pid": os.getpid(),
            "machine": self._machine,
        }


class ParameterStoreProcess:
    """Owns the newest weights in Ray's object store: it puts them itself, so that they outlive a learner."""

    def __init__(self) -> None:
        # A list around the reference, or Ray would resolve it on the way to the reader.
        self._store = ParameterStore(keep=lambda weights: [ray.put(weights)])
        self._machine = machine()

    def publish(self, version: int, weights: FlatWeights, published_at: float) -> bool:
        """See `ParameterStore.publish`; weights arrive through the object store without a copy."""
        return self._store.publish(version, weights, published_at)

    def newer_than(self, version: int) -> Published | None:
        """See `ParameterStore.newer_than`; ``weights`` is a list of one object reference."""
        return self._store.newer_than(version)

    def version(self) -> int:
        """Of the newest publication."""
        return self._store.version

    def report(self) -> dict[str, Any]:
        """Which process this is: the coordinator asks to see whether it answers."""
        return {"pid": os.getpid(), "machine": self._machine}


class LearnerProcess(_Shell):
    """Updates, publishes and checkpoints."""

    def __init__(self, plan: RunPlan, checkpoints: Path) -> None:
        super().__init__(plan, nice=0, threads=plan.config.cluster.learner_threads, accelerator=True)
        self._checkpoints = checkpoints
        self._extra: dict[str, Any] = {}
        self._loop: Any = None

    def make(self) -> Any:
        """The model."""
        from distributed.learner_loop import make_learner_parts

        return make_learner_parts(self.plan, self._checkpoints)

    def run(
        self, address: str, store: Any, extra: dict[str, Any], version: int = -1, step: int | None = None
    ) -> dict[str, Any]:
        """Learn until stopped or done. `save` writes the last checkpoint, once the actors' last counts are in.

        ``version`` and ``step``: see `LearnerLoop`.
        """
        from distributed.learner_loop import LearnerLoop

        self._extra = extra
        parts = self.built()
        link = RayWeightLink(store)
        self._loop = loop = LearnerLoop(parts, address, link, lambda: self._extra, version=version, step=step)
        self.mark("waiting for data")
        loop.begin(self.stopping, self.progressed)
        while not self.stopping.is_set() and not loop.done:
            try:
                loop.step()
            except Exception:
                if self.stopping.is_set():  # it was waiting for data when it was asked to stop
                    break
                raise
            self.progressed()
            self.mark("learning")
        loop.close()
        return self.report()

    def take(self, extra: dict[str, Any]) -> None:
        """What goes into the next checkpoint, where that cannot wait for the next `report`."""
        self._extra = extra

    def stop(self) -> None:
        """Ask the loop to end, also while it waits for data."""
        super().stop()
        if self._loop is not None:
            self._loop.interrupt()

    def report(self, extra: dict[str, Any] | None = None) -> dict[str, Any]:
        """Metrics since the last report. ``extra`` (counters, clock, cursors) goes into the next checkpoint."""
        if extra is not None:
            self._extra = extra
        return self.common() | ({} if self._loop is None else self._loop.report())

    def save(self, extra: dict[str, Any], deadline: float) -> Path | None:
        """Write a checkpoint, after `run` returned; its folder, or None where learning never began.

        Raises CheckpointFailed.
        """
        self._extra = extra
        return None if self._loop is None else self._loop.save(deadline)


class EnvironmentActorProcess(_Shell):
    """Plays one task with the newest weights."""

    def __init__(self, plan: RunPlan, name: str, actor_id: str, incarnation: int) -> None:
        cluster = plan.config.cluster
        super().__init__(plan, nice=cluster.nice, threads=cluster.actor_threads, urgent=incarnation > 0)
        give_back_large_arrays()
        self._name, self._actor_id, self._incarnation = name, actor_id, incarnation
        self._lock = threading.Lock()
        self._newest: dict[str, Any] = {}

    def make(self) -> Any:
        """Environments and policy."""
        from distributed.components import make_actor_parts

        return make_actor_parts(self.plan, self._name, self._actor_id, self._incarnation)

    def run(self, address: str, store: Any) -> dict[str, Any]:
        """Wait for first weights, then play until stopped."""
        from distributed.components import connect_actor

        parts = self.built()
        cluster = self.plan.config.cluster
        puller = Puller(RayWeightLink(store), parts.policy, cluster.pull_seconds)
        actor = connect_actor(self.plan, parts, address, self.stopping)
        self.mark("waiting for weights")
        with Waiting("the parameter store to give the learner's first weights"):
            while not self.stopping.is_set() and not puller.pull_if_due():
                self.progressed()
                time.sleep(0.1)
        steps = 1
        while not self.stopping.is_set():
            started = time.monotonic()
            actor.run(steps)
            # As many steps as fit: the stop flag and the timers are looked at between two calls.
            steps = max(1, min(256, int(steps * LOOK_SECONDS / max(time.monotonic() - started, 1e-3))))
            puller.pull_if_due()
            self._take(actor.report())
            self.progressed()
            self.mark("acting")
        actor.close(deadline=0.25 * cluster.stop_deadline_seconds)
        self._take(actor.report())
        return self.report()

    def _take(self, report: Any) -> None:
        """Keep the newest counts, and all finished episodes since they were last handed over."""
        with self._lock:
            finished = (*self._newest.get("finished", ()), *report.finished)
            self._newest = vars(report) | {"finished": finished}

    def report(self) -> dict[str, Any]:
        """The component's newest report; each finished episode is handed over once."""
        with self._lock:
            newest = dict(self._newest)
            if newest:
                self._newest["finished"] = ()
        return self.common() | {"actor_id": self._actor_id, "incarnation": self._incarnation} | newest


class ReplayerProcess(_Shell):
    """Streams one set of demonstrations, or a shard of it, into replay, then ends."""

    def __init__(self, plan: RunPlan, name: str, shard: int) -> None:
        # Half as nice as actors: the first updates wait for demonstrations, and a set is written only once.
        super().__init__(plan, nice=plan.config.cluster.nice // 2, threads=plan.config.cluster.actor_threads)
        self._name, self._shard = name, shard
        self._newest: dict[str, Any] = {}

    def make(self) -> Any:
        """The set, opened and checked."""
        from actors.demonstrations.open_set import open_set

        actor = self.plan.actor(self._name)
        # One environment: several finish their first episodes together, and the learner waits for the first.
        return open_set(actor.demonstrations or "", actor, num_envs=1)

    def run(self, address: str, cursor: list[int]) -> dict[str, Any]:
        """Write from the cursor to the end of the set."""
        from distributed.components import connect_replayer

        replayer = connect_replayer(self.plan, self._name, self.built(), address, cursor, self.stopping, self._shard)
        while not self.stopping.is_set() and not replayer.done:
            replayer.run(episodes=64, seconds=LOOK_SECONDS)
            self._newest = vars(replayer.report())
            self.progressed()
            self.mark("replaying")
        replayer.close(deadline=0.25 * self.plan.config.cluster.stop_deadline_seconds)
        self._newest = vars(replayer.report())
        self.mark("done")
        return self.report()

    def report(self) -> dict[str, Any]:
        """The component's newest report."""
        return self.common() | self._newest


class EvaluatorProcess(_Shell):
    """Plays evaluation episodes: rounds while training (`run`), or one task of the final evaluation (`evaluate`)."""

    def __init__(self, plan: RunPlan, nice: int) -> None:
        super().__init__(plan, nice=nice, threads=plan.config.cluster.actor_threads)
        give_back_large_arrays()
        self._rounds: list[Any] = []

    def make(self) -> Any:
        """The agent, with weights that are still to come."""
        from agent.agent import Agent

        return Agent(self.plan.config.agent, self.plan.specs)

    def evaluate(self, name: str, checkpoint: Path, version: int, seconds: float, video: Path | None) -> Any:
        """The reporting episodes of one task with a checkpoint's weights, in at most ``seconds``; a `Round`."""
        from agent.weights import load_weights, read_weights
        from distributed.evaluation import final_round

        started = time.monotonic()
        agent = self.built()
        load_weights(agent, read_weights(checkpoint))
        left = seconds - (time.monotonic() - started)
        return final_round(self.plan, name, agent, version, left, video)

    def run(self, store: Any) -> dict[str, Any]:
        """Monitoring rounds on a timer until stopped, each with the weights that are newest when it begins."""
        from distributed.evaluation import EvaluationStopped, monitoring_round

        def played_on() -> None:
            self.progressed()
            if self.stopping.is_set():
                raise EvaluationStopped

        link, agent, number = RayWeightLink(store), self.built(), 0
        due, version = time.monotonic() + self.plan.config.evaluation.every_seconds, -1
        while not self.stopping.wait(0.2):
            self.progressed()
            self.mark("waiting")
            if time.monotonic() < due or (published := link.newest(version)) is None:
                continue
            due = time.monotonic() + self.plan.config.evaluation.every_seconds
            version, number = published.version, number + 1
            for name in self.plan.tasks:
                with contextlib.suppress(EvaluationStopped):
                    played = monitoring_round(self.plan, name, agent, published, number, played_on)
                    self._rounds.append(played)  # looked up only now: `report` may have taken the former list
        return self.report()

    def report(self) -> dict[str, Any]:
        """Rounds that ended since the last report."""
        rounds, self._rounds = self._rounds, []
        return self.common() | {"rounds": rounds}
