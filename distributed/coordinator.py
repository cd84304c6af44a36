"""`train`: starts the fleet of one run, watches it, stops it in order, and has what it learned evaluated.

The order of an end, so that nothing is lost and counts agree: actors, replayers and learner stop; the learner then
writes its last checkpoint with the actors' last counts; the fleet is let go, which frees its CPU; the evaluators play.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import time
from pathlib import Path
from typing import Any

import psutil
import ray

from distributed import ray_cluster
from distributed.config import TrainConfig
from distributed.console import Console
from distributed.errors import root_cause
from distributed.final_evaluation import evaluate_in_processes
from distributed.fleet import Fleet
from distributed.member import Member
from distributed.plan import RunPlan, make_plan
from distributed.process_environment import set_process_environment
from distributed.processes import (
    EnvironmentActorProcess,
    EvaluatorProcess,
    LearnerProcess,
    ReplayerProcess,
    spawn,
)
from distributed.ray_state import MachineWatch
from distributed.replay_supervisor import ReplaySupervisor
from distributed.reporter import Reporter
from distributed.result import Result
from distributed.run_folder import RunFolder
from distributed.run_log import run_log
from distributed.run_replay import replay_scalars
from distributed.start_up import StartUp
from distributed.stop_request import StopRequest
from distributed.store_supervisor import StoreSupervisor
from learner.checkpoint import latest_checkpoint

log = logging.getLogger(__name__)
MOVE_SECONDS = 120.0
"""That a process has at most to end in order, however long beforehand it is said that its machine is taken away."""


def train(config: TrainConfig, run: RunFolder, resume: bool, plan: RunPlan | None = None) -> Result:
    """Train to the first stop condition and evaluate the final checkpoint.

    Args:
        config: of the run.
        run: its folder, claimed by the caller.
        resume: go on from its newest checkpoint; a folder without one begins anew.
        plan: made from ``config`` already, or None.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint is written and no process is left.
        ClowderError: a process died too often, or the configuration cannot be used.
    """
    set_process_environment()
    plan = make_plan(config) if plan is None else dataclasses.replace(plan, config=config)
    if config.cluster.mode == "serial":
        from distributed.serial import train_serially

        return train_serially(plan, run)
    with StopRequest() as stop, Console(config) as console, run_log(run.log, config.logging.level, console.say):
        coordinator = Coordinator(plan, run, console, stop)
        try:
            return coordinator.run()
        finally:
            coordinator.close()


class Coordinator:
    """One run of the fleet in Ray."""

    def __init__(self, plan: RunPlan, run: RunFolder, console: Console, stop: StopRequest) -> None:
        self.plan, self.config, self.folder = plan, plan.config, run
        self.console, self.stop = console, stop
        self.reporter = Reporter(plan, run, console)
        self.progress = self.reporter.progress
        self.start_up = StartUp()
        self.fleet = Fleet(self.config.cluster, self._reported, console.say, self._dispensable)
        self.replay = ReplaySupervisor(plan, run, self.fleet)
        self._resized_at: int | None = None
        self.store: StoreSupervisor
        self.machines: MachineWatch | None = None
        self.learner: Member

    def run(self) -> Result:
        """Start, supervise, stop, evaluate."""
        self.reporter.phase("starting")
        self._start()
        try:
            why = self._supervise()
        except Exception:
            try:
                self._stop_fleet()  # what was learned until now stays
            except Exception as error:  # Ray itself may be what failed
                log.error("the fleet was not stopped in order: %s", root_cause(error))
            raise
        self.console.say(f"training ends: {why}")
        self.progress.end_clock()
        checkpoint = self._stop_fleet()
        for gap in self.progress.share_gaps():
            log.info(gap)
            self.console.say(gap)
        if self.stop.requested:
            raise KeyboardInterrupt
        self.reporter.phase("evaluating")
        return evaluate_in_processes(
            self.plan, self.progress, checkpoint, self.folder, self.reporter.metrics, self.stop
        )

    # Starting ---------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        """Replay server and Ray at the same time, then every process at once; they `run` once there is a server."""
        self.replay.begin(self.reporter.checkpoint)
        self.start_up.mark("ray.init")
        ray_cluster.join(self.plan)
        self.stop.install()  # Ray took SIGTERM for itself
        self.start_up.mark("Ray is up")
        self.machines = MachineWatch(self.config.cluster.report_seconds)
        self.store = StoreSupervisor(self.config.cluster, self.fleet)
        self._add_members()
        self.start_up.mark("processes are asked for")
        while not self.replay.arrived():
            if self.stop.requested:  # nothing is there yet that could be saved
                raise KeyboardInterrupt
            time.sleep(0.05)
        self.progress.replayers = self.replay.cursors
        self.start_up.mark("replay server is up")
        self.store.restart_clock()
        self.fleet.run(self.fleet.members)

    def _add_members(self) -> None:
        """The learner first, since it is waited for; then what it needs; then those that need it."""
        cluster, plan = self.config.cluster, self.plan
        self.learner = Member(
            "learner/0",
            start=lambda: spawn(
                LearnerProcess, plan, self.folder.checkpoints, cpus=cluster.learner_cpus, gpus=cluster.learner_gpus
            ),
            arguments=self._of_learner,
            kept=True,
            ask=lambda: (self.progress.state(),),
            farewell=lambda: self._save(MOVE_SECONDS),
        )
        self.fleet.add(self.learner)
        for name, found in plan.demonstrations.items():
            log.info("%s: %d of the set's %d demonstrations are replayed", name, found.episodes, found.in_set)
        for replayer in plan.replayers:
            self.fleet.add(self._replayer(replayer))
        for name, actor in self.config.actors.items():
            for number in range(actor.num_actors):
                self.fleet.add(self._environment_actor(name, number))
        if self.config.evaluation.every_seconds > 0 and self.config.evaluation.episodes > 0:
            self.fleet.add(
                Member(
                    "evaluator/0",
                    start=lambda: spawn(EvaluatorProcess, plan, cluster.nice, cpus=cluster.evaluator_cpus),
                    arguments=lambda: (self.store.handle,),
                )
            )

    def _of_learner(self) -> tuple[Any, ...]:
        """What the learner's `run` is given."""
        first = not self.progress.learner
        found = self.reporter.checkpoint if first else latest_checkpoint(self.folder.checkpoints)
        step = 0 if found is None else found.step
        return self._address, self.store.handle, self.progress.state(), self.progress.version, step

    def _replayer(self, replayer: str) -> Member:
        name, shard = self.plan.replayers[replayer]
        return Member(
            f"replayer/{replayer}",
            start=lambda: spawn(ReplayerProcess, self.plan, name, shard, cpus=self.config.cluster.replayer_cpus),
            arguments=lambda: (self._address, self.progress.replayers.get(replayer, [])),
        )

    def _environment_actor(self, name: str, number: int) -> Member:
        actor_id, task = f"{name}-{number}", self.plan.tasks[name].name

        def start() -> Any:
            incarnation = self.progress.counters.begin(task, actor_id)
            cpus = self.config.cluster.actor_cpus
            return spawn(EnvironmentActorProcess, self.plan, name, actor_id, incarnation, cpus=cpus)

        return Member(f"environment_actor/{actor_id}", start, lambda: (self._address, self.store.handle))

    @property
    def _address(self) -> str:
        assert self.replay.server is not None
        return self.replay.server.address

    # While it goes on -------------------------------------------------------------------------------------------------

    def _supervise(self) -> str:
        """The loop of the run; says why it ended."""
        while True:
            self.fleet.poll(timeout=0.2)
            self._check_server()
            self.store.check(() if self.machines is None else self.machines.announced)
            self._leave_machines()
            self._resize()
            if self.start_up.complete(self.fleet.members):
                self.reporter.phase("training")
            if self.start_up.done and self.reporter.due:
                self._point()
            if self.stop.requested:
                return "it was asked to stop"
            if self.learner.finished:
                return f"{self.progress.learner_steps:,} learner steps are done"
            if why := self.progress.limit_reached():
                return why

    def _point(self) -> None:
        tables = self.replay.monitor.info() if self.replay.monitor else {}
        values = self.start_up.scalars() | fleet_scalars(self.fleet)
        values |= replay_scalars(tables, self.config.replay.samples_per_insert)
        server = self.replay.server
        pids = {"coordinator": os.getpid()} | ({} if server is None else {"replay_server": server.pid})
        for name, pid in pids.items():
            with contextlib.suppress(psutil.Error):
                values[f"memory_mb/{name}/0"] = psutil.Process(pid).memory_info().rss / 2**20
        actors = self.fleet.of("environment_actor")
        self.progress.keep_actors(member.name.partition("/")[2] for member in actors if not member.lost)
        self.reporter.point(values)

    def _reported(self, member: Member) -> None:
        """Take the newest report of a member."""
        if member.role == "learner":
            self.progress.of_learner(member.report)
        elif member.role == "environment_actor":
            name = member.report["actor_id"].rpartition("-")[0]
            self.progress.of_actor(self.plan.tasks[name].name, member.report)
        elif member.role == "replayer" and not self.replay.starting:  # else it speaks of a server that is gone
            self.progress.of_replayer(member.name.partition("/")[2], member.report)
        elif member.role == "evaluator":
            self.progress.of_evaluator(member.report["rounds"])

    def _dispensable(self, member: Member) -> bool:
        """Whether the run can go on without it: another actor plays the same task, or nobody waits for it."""
        if member.role == "evaluator":
            return True
        if member.role != "environment_actor":
            return False
        short = member.name.partition("/")[2].rpartition("-")[0]
        return any(
            other is not member
            and other.alive
            and (other.leaving, other.moving) == (None, None)
            and other.name.startswith(f"environment_actor/{short}-")
            for other in self.fleet.of("environment_actor")
        )

    def _check_server(self) -> None:
        """See to the replay server; demonstrations go in again that were not in the contents of the one that comes."""
        was_starting = self.replay.starting
        came = self.replay.check()
        if self.replay.starting and not was_starting:
            # A checkpoint may be written when the next one is up: its contents must not be paired with cursors of what
            # was in this one.
            self.progress.replayers = {}
            if self.learner.handle is not None:
                self.learner.handle.take.remote(self.progress.state())
        if came:
            self.progress.replayers = self.replay.cursors
            for member in self.fleet.of("replayer"):
                self.fleet.begin_anew(member)

    def _leave_machines(self) -> None:
        """Let processes end in order, and start again elsewhere, whose machines are to be taken away."""
        going = {} if self.machines is None else self.machines.going
        for member in self.fleet.members:
            if member.alive and member.report["machine"] in going and (member.leaving, member.moving) == (None, None):
                notice = going[member.report["machine"]] - time.time()
                self.fleet.move(member, min(MOVE_SECONDS, max(notice, self.config.cluster.stop_deadline_seconds)))

    def _resize(self) -> None:
        """Add or let go of environment actors, as `clowder fleet` asks in the run's folder."""
        written = self.folder.fleet.stat().st_mtime_ns if self.folder.fleet.exists() else None
        if written == self._resized_at:
            return
        self._resized_at = written
        asked = {name: count for name, count in self.folder.read_fleet().items() if name in self.config.actors}
        for name, count in asked.items():
            numbered = {
                int(member.name.rpartition("-")[2]): member
                for member in self.fleet.of("environment_actor")
                if member.name.rpartition("-")[0] == f"environment_actor/{name}" and member.leaving is None
            }
            self.fleet.dismiss([member for member in numbered.values() if member.lost])  # to be tried anew
            numbered = {number: member for number, member in numbered.items() if not member.lost}
            new = [self._environment_actor(name, number) for number in range(count) if number not in numbered]
            gone = [member for number, member in numbered.items() if number >= count]
            for member in new:
                self.fleet.add(member)
            self.fleet.run(new)
            for member in gone:
                self.fleet.retire(member, self.config.cluster.stop_deadline_seconds)
            if new or gone:
                self.fleet.tell(f"actors.{name}: {len(new)} more, {len(gone)} fewer, now {count} are wanted")

    # Ending -----------------------------------------------------------------------------------------------------------

    def _stop_fleet(self) -> Path | None:
        """Stop everything in order; the last checkpoint, or None where learning never began."""
        deadline = self.config.cluster.stop_deadline_seconds
        late = self.fleet.stop(self.fleet.members, 0.5 * deadline)
        for member in late:
            log.warning("%s did not stop within %.1f s and is killed", member.name, 0.5 * deadline)
        saved = None
        try:
            if self.learner not in late and (saving := self._save(0.3 * deadline)) is not None:
                saved = ray.get(saving, timeout=0.3 * deadline + 1.0)
        except ray.exceptions.RayError as error:
            log.error("the last checkpoint was not written: %s", root_cause(error))
        if self.start_up.done:
            self._point()
        self.fleet.dismiss(list(self.fleet.members))
        if saved is None and (found := latest_checkpoint(self.folder.checkpoints)) is not None:
            saved = found.folder
        return saved

    def _save(self, deadline: float) -> Any:
        """A reference to the checkpoint that a learner, whose `run` has ended, writes now; None where it is dead."""
        handle = self.learner.handle
        return None if handle is None else handle.save.remote(self.progress.state(), deadline)

    def close(self) -> None:
        """Leave no process and no open file, whatever happened before."""
        if self.machines is not None:
            self.machines.close()
        ray_cluster.leave()
        self.replay.close()
        self.reporter.metrics.close()


def fleet_scalars(fleet: Fleet) -> dict[str, float]:
    """Processes wanted and alive, restarts, and resident memory by process."""
    wanted = [member for member in fleet.members if not member.finished]
    values = {
        "fleet/wanted": float(len(wanted)),
        "fleet/alive": float(sum(member.alive for member in wanted)),
        "fleet/restarts": float(fleet.restarts),
    }
    for role, seconds in fleet.recoveries:
        values[f"fleet/recovery_s/{role}"] = max(seconds, values.get(f"fleet/recovery_s/{role}", 0.0))
    fleet.recoveries.clear()
    return values | {f"memory_mb/{each.name}": each.report["rss_mb"] for each in fleet.members if each.report}
