"""`cluster.mode=serial`: the components of a run in one process, taking turns, for breakpoints and fast tests.

Only the replay server is a process of its own. Each turn every replayer does a little, every environment actor makes
``cluster.serial_steps`` vector steps with the newest weights published, and the learner makes one update, so a debugger
steps through the whole walk of one number.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from distributed.components import connect_actor, connect_replayer, make_actor_parts
from distributed.console import Console
from distributed.evaluation import EvaluationStopped, Round, final_round, monitoring_round
from distributed.final_evaluation import longest_first, make_result, video_path
from distributed.learner_loop import LearnerLoop, make_learner_parts
from distributed.parameter_store import ParameterStore
from distributed.plan import RunPlan
from distributed.reporter import Reporter
from distributed.result import Result
from distributed.run_folder import RunFolder
from distributed.run_log import run_log
from distributed.run_replay import replay_scalars, start_run_replay
from distributed.stop_request import StopRequest
from distributed.weight_exchange import LocalWeightLink, Puller
from learner.checkpoint_writer import CheckpointFailed

log = logging.getLogger(__name__)

REPLAYING_SECONDS_A_TURN = 0.05
"""Of each replayer, until its set is in replay."""


def train_serially(plan: RunPlan, run: RunFolder) -> Result:
    """`distributed.coordinator.train` in this process; it raises the same, and what a component raises."""
    with (
        StopRequest() as stop,
        Console(plan.config) as console,
        run_log(run.log, plan.config.logging.level, console.say),
    ):
        serial = SerialRun(plan, run, console, stop)
        try:
            return serial.run()
        finally:
            serial.close()


class SerialRun:
    """All components of one run, and the one loop that gives them turns."""

    def __init__(self, plan: RunPlan, run: RunFolder, console: Console, stop: StopRequest) -> None:
        import torch

        torch.set_num_threads(plan.config.cluster.learner_threads)
        self.plan, self.config, self.folder, self.console, self.stop = plan, plan.config, run, console, stop
        self.reporter = Reporter(plan, run, console)
        self.progress = self.reporter.progress
        # The learner writes into its weights in place; what is published must stay as it was.
        self.store = ParameterStore(keep=lambda weights: {name: value.copy() for name, value in weights.items()})
        self.stopping = threading.Event()
        self.server, self.progress.replayers = start_run_replay(plan, run, self.reporter.checkpoint)
        try:
            self._build()
        except BaseException:
            self.server.stop(2.0)
            raise
        self._monitored_at, self._monitored_step, self._monitored_for = time.monotonic(), 0, 0.0
        self._rounds = 0

    def _build(self) -> None:
        plan, address = self.plan, self.server.address
        parts = make_learner_parts(plan, self.folder.checkpoints)
        self.learner = LearnerLoop(parts, address, LocalWeightLink(self.store), self._state)
        self.replayers = {key: self._replayer(key, *place) for key, place in plan.replayers.items()}
        self.actors = [
            self._actor(name, number)
            for name, actor in self.config.actors.items()
            for number in range(actor.num_actors)
        ]

    def _replayer(self, key: str, name: str, shard: int) -> Any:
        from actors.demonstrations.open_set import open_set

        actor = self.plan.actor(name)
        opened = open_set(actor.demonstrations or "", actor, num_envs=1)
        cursor = self.progress.replayers.get(key, [])
        return connect_replayer(self.plan, name, opened, self.server.address, cursor, self.stopping, shard)

    def _actor(self, name: str, number: int) -> tuple[str, Any, Puller]:
        task, actor_id = self.plan.tasks[name].name, f"{name}-{number}"
        parts = make_actor_parts(self.plan, name, actor_id, self.progress.counters.begin(task, actor_id))
        puller = Puller(LocalWeightLink(self.store), parts.policy, seconds=0.0)
        return task, connect_actor(self.plan, parts, self.server.address, self.stopping), puller

    def run(self) -> Result:
        """Take turns to the first stop condition, then evaluate."""
        self.reporter.phase("training")
        while not (why := self._end()):
            self.turn()
        self.console.say(f"training ends: {why}")
        self.progress.end_clock()
        self.learner.close()
        for _, actor, _ in self.actors:
            actor.close(2.0)
        for replayer in self.replayers.values():
            replayer.close(2.0)
        self._collect()
        try:
            self.learner.save(self.config.checkpoint.deadline_seconds)
        except CheckpointFailed as error:
            log.error("the last checkpoint was not written: %s", error)
        self._point()
        if self.stop.requested:
            raise KeyboardInterrupt
        self.reporter.phase("evaluating")
        version = self.learner.learner.version
        return make_result(self.plan, self.progress, version, self._evaluate(), self.reporter.metrics)

    def _point(self) -> None:
        self.reporter.point(replay_scalars(self.learner.tables(), self.config.replay.samples_per_insert))

    def turn(self) -> None:
        """A little of every component."""
        for replayer in self.replayers.values():
            if not replayer.done:
                replayer.run(episodes=1, seconds=REPLAYING_SECONDS_A_TURN)
        if self.store.version < 0:  # the actors' first weights; later ones follow updates
            self.learner.publish_if_due()
        for _, actor, puller in self.actors:
            puller.pull_if_due()
            actor.run(self.config.cluster.serial_steps)
        if self.learner.ready():
            self.learner.step()
        if self.reporter.due:
            self._collect()
            self._point()
        if self._monitoring_due():
            self._monitor()

    def _end(self) -> str:
        if self.stop.requested:
            return "it was asked to stop"
        if self.learner.done:
            return "the learner has made its last step"
        return self.progress.limit_reached()

    def _state(self) -> dict[str, Any]:
        """What goes into a checkpoint beside the learner: everything as it is at this very step."""
        self._collect()
        return self.progress.state()

    def _collect(self) -> None:
        self.progress.of_learner(self.learner.report())
        for key, replayer in self.replayers.items():
            self.progress.of_replayer(key, vars(replayer.report()))
        for task, actor, _ in self.actors:
            identity = {"actor_id": actor.identity.actor_id, "incarnation": actor.identity.incarnation}
            self.progress.of_actor(task, vars(actor.report()) | identity)

    def _monitoring_due(self) -> bool:
        config, step = self.config.evaluation, self.learner.learner.step_count
        if config.every_steps:
            return step % config.every_steps == 0 and step > self._monitored_step
        # Training waits meanwhile: it has at least as long as the last round took.
        between = max(config.every_seconds, self._monitored_for)
        return config.every_seconds > 0 and time.monotonic() - self._monitored_at >= between

    def _unless_stopped(self) -> None:
        if self.stop.requested:
            raise EvaluationStopped

    def _monitor(self) -> None:
        began, self._monitored_step = time.monotonic(), self.learner.learner.step_count
        published = self.store.newer_than(-1)
        assert published is not None  # the learner publishes before its first step
        try:
            rounds = [
                monitoring_round(self.plan, name, self._agent(), published, self._rounds, self._unless_stopped)
                for name in self.plan.tasks
            ]
        except EvaluationStopped:
            return
        self._rounds += 1
        self.progress.of_evaluator(rounds)
        if self.config.evaluation.every_steps:  # a point of its own, at this very step
            self.learner.point()
            self._collect()
            self._point()
        self._monitored_at = time.monotonic()
        self._monitored_for = self._monitored_at - began

    def _evaluate(self) -> list[Round]:
        agent, version = self._agent(), self.learner.learner.version
        agent.load_state_dict(self.learner.learner.acting.state_dict())
        end = time.monotonic() + 60 * self.config.evaluation.final_minutes
        rounds = []
        for name in longest_first(self.plan):
            video = video_path(self.folder, self.plan, name) if self.config.evaluation.videos else None
            left = max(1.0, end - time.monotonic())
            try:
                rounds.append(final_round(self.plan, name, agent, version, left, video, self._unless_stopped))
            except EvaluationStopped:
                raise KeyboardInterrupt from None
        return rounds

    def _agent(self) -> Any:
        """An agent of its own for evaluation, so that the learner's stays in training mode."""
        from agent.agent import Agent

        return Agent(self.config.agent, self.plan.specs)

    def close(self) -> None:
        """Free what is held, whatever happened before."""
        self.stopping.set()
        self.learner.interrupt()
        self.reporter.metrics.close()
        self.server.stop(2.0)
