"""`record_in_processes`: an order recorded by several processes on Ray, into the very set that one process records.

The driver deals seeds out and writes; each process plays, plays again through the adapter, and encodes. A process that
dies, or lets the deadline of an episode pass, is named and replaced; a seed on which a second one dies is left out.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import ray

from actors.demonstrations.episode_maker import Attempt, problem_of
from actors.demonstrations.recording import Recording, RecordingFailed, RecordOrder, RecordReport
from distributed import ray_cluster
from distributed.cluster_config import ClusterConfig
from distributed.errors import root_cause
from distributed.process_environment import set_process_environment
from distributed.processes import spawn
from distributed.run_expert import expert_of
from distributed.stop_request import StopRequest

IN_HAND = 2
"""Seeds that a process has been given: one to play, and the next, so that it never waits for the driver."""
AHEAD = 8
"""Seeds a process that may be played beyond the one that is waited for; their episodes are in the driver's memory."""
GRACE_SECONDS = 10.0
"""A process interrupts its expert itself when the deadline is over; after so much more it is killed."""
MOST_DEATHS = 2
"""Processes that may die on one seed; then it is left out."""


class RecorderProcess:
    """Ray shell of an `EpisodeMaker`."""

    def __init__(self, order: RecordOrder, expert: str, config_dirs: Sequence[str]) -> None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = "1"
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        self._maker = order.maker(expert_of(expert, order.config, config_dirs))

    def ready(self) -> int:
        """Answers when the expert is there: the process's id."""
        return os.getpid()

    def make(self, seed: int, noise: float) -> Attempt:
        """See `EpisodeMaker.make`."""
        return self._maker.make(seed, noise)


@dataclasses.dataclass
class Job:
    """A seed that a process was given."""

    seed: int
    noise: float
    answer: Any = None


@dataclasses.dataclass
class Recorder:
    """One place in the crew; the process in it may change.

    Attributes:
        name: for messages.
        handle: of the Ray actor.
        starting: answer of ``ready``, until it came.
        pid: of the process; 0 until it answered.
        jobs: in the order in which they were given.
        since: monotonic time at which it began to start, or to play the first of its jobs.
    """

    name: str
    handle: Any = None
    starting: Any = None
    pid: int = 0
    jobs: deque[Job] = dataclasses.field(default_factory=deque)
    since: float = 0.0

    @property
    def waited_for(self) -> Any:
        """The reference that it answers next; None where it has nothing to do."""
        return self.starting if self.starting is not None else self.jobs[0].answer if self.jobs else None

    def give(self, job: Job) -> None:
        """Have it play a seed."""
        if not self.jobs:
            self.since = time.monotonic()
        job.answer = self.handle.make.remote(job.seed, job.noise)
        self.jobs.append(job)


class Crew:
    """The recording processes of one order: gives seeds, gathers answers, replaces the dead.

    Args:
        order, expert, config_dirs: what each process is told; ``expert`` as the user named it.
        processes: how many.
        start_deadline: seconds for a process to be ready.
        said: is told of deaths, in one line each.
    """

    def __init__(
        self,
        order: RecordOrder,
        expert: str,
        config_dirs: Sequence[str],
        processes: int,
        start_deadline: float,
        said: Callable[[str], None],
    ) -> None:
        self._order, self._expert, self._config_dirs = order, expert, list(config_dirs)
        self._start_deadline, self._said = start_deadline, said
        self._deaths: dict[int, int] = {}
        self._again: deque[Job] = deque()
        self.recorders = [Recorder(f"recorder/{number}") for number in range(processes)]
        for recorder in self.recorders:
            self._start(recorder)

    def _start(self, recorder: Recorder) -> None:
        recorder.handle = spawn(RecorderProcess, self._order, self._expert, self._config_dirs, cpus=1.0, threads=1)
        recorder.starting, recorder.pid, recorder.since = recorder.handle.ready.remote(), 0, time.monotonic()

    def free(self) -> Recorder | None:
        """The recorder with the fewest seeds in hand; None where all have enough."""
        least = min(self.recorders, key=lambda each: len(each.jobs))
        return least if len(least.jobs) < IN_HAND else None

    def give(self, seed: int, noise: float) -> None:
        """A seed for whoever is `free`."""
        recorder = self.free()
        assert recorder is not None
        recorder.give(Job(seed, noise))

    def gather(self, timeout: float) -> list[Attempt]:
        """Answers that came within ``timeout`` seconds.

        Raises RecordingFailed where a process cannot even start.
        """
        while self._again and (recorder := self.free()) is not None:
            recorder.give(self._again.popleft())
        waiting = {each.waited_for: each for each in self.recorders if each.waited_for is not None}
        ready, _ = ray.wait(list(waiting), num_returns=1, timeout=timeout)
        if ready:  # and whatever else is there already
            ready, _ = ray.wait(list(waiting), num_returns=len(waiting), timeout=0.0)
        answers = [answer for each in ready if (answer := self._answered(waiting[each], each)) is not None]
        for recorder in self.recorders:
            answers += self._overdue(recorder)
        return answers

    def _answered(self, recorder: Recorder, reference: Any) -> Attempt | None:
        try:
            answer = ray.get(reference, timeout=60.0)
        except ray.exceptions.RayError as error:
            if recorder.starting is not None:
                raise RecordingFailed(f"{recorder.name} could not start: {root_cause(error)}") from error
            return self._died(recorder, f"died ({_brief(error)})")
        recorder.since = time.monotonic()
        if recorder.starting is not None:
            recorder.starting, recorder.pid = None, int(answer)
            return None
        recorder.jobs.popleft()
        return answer

    def _overdue(self, recorder: Recorder) -> list[Attempt]:
        waited = time.monotonic() - recorder.since
        if recorder.starting is not None and waited > self._start_deadline:
            raise RecordingFailed(f"{recorder.name} was not ready within {self._start_deadline:g} s")
        limit = self._order.episode_deadline + GRACE_SECONDS
        if recorder.starting is not None or not recorder.jobs or waited <= limit:
            return []
        deadline = self._order.episode_deadline
        self._deaths[recorder.jobs[0].seed] = MOST_DEATHS  # a second process would not come back either
        answer = self._died(recorder, f"is killed: no episode within the deadline of {deadline:g} s")
        return [answer] if answer is not None else []

    def _died(self, recorder: Recorder, how: str) -> Attempt | None:
        """Replace a process; an answer where its seed is given up, else the seed is played again."""
        jobs, pid = list(recorder.jobs), recorder.pid
        recorder.jobs.clear()
        ray.kill(recorder.handle)
        first = jobs.pop(0)
        self._deaths[first.seed] = self._deaths.get(first.seed, 0) + 1
        given_up = self._deaths[first.seed] >= MOST_DEATHS
        self._said(f"{recorder.name} (process {pid}) {how} while it played seed {first.seed}; another takes its place")
        self._again.extend(jobs if given_up else [first, *jobs])
        self._start(recorder)
        if not given_up:
            return None
        task = self._order.config.task
        problem = problem_of(task, self._expert, first.seed, first.noise, f"its process {how}")
        return Attempt(first.seed, first.noise, problem=problem, error=True)


def record_in_processes(
    order: RecordOrder,
    expert: str,
    processes: int,
    *,
    config_dirs: Sequence[str] = (),
    cluster: ClusterConfig | None = None,
    progress: Callable[[RecordReport], None] = lambda report: None,
    said: Callable[[str], None] = lambda line: None,
    started: Callable[[Crew], None] = lambda crew: None,
) -> RecordReport:
    """Record ``order`` with ``processes`` processes; raises what `record` raises.

    Args:
        order: what to record.
        expert: as the user named it; made anew in every process.
        processes: recording processes, at least 1.
        config_dirs: for runs with an entry point of the user's.
        cluster: which Ray; its address and start deadline are used.
        progress: told whenever the set has grown.
        said: told of problems, a line each.
        started: given the crew once, when it was asked for.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the set holds what was written, and no process is left.
    """
    if processes < 1:
        raise ValueError(f"asked to record with {processes} processes; at least 1")
    cluster = cluster or ClusterConfig()
    player = expert_of(expert, order.config, config_dirs)  # refuses before any process starts
    recording = Recording(order, player, said)
    try:
        with StopRequest("the set keeps the episodes that are done") as stop:
            if recording.done:
                return recording.report()
            set_process_environment()
            ray_cluster.connect(cluster, processes)
            stop.install()
            crew = Crew(order, expert, config_dirs, processes, cluster.start_deadline_seconds, said)
            started(crew)
            while not recording.done and not stop.requested:
                while recording.wants and recording.waiting < AHEAD * processes and crew.free() is not None:
                    crew.give(*recording.deal())
                for attempt in crew.gather(timeout=0.2):
                    if recording.take(attempt):
                        progress(recording.report())
            if stop.requested:
                raise KeyboardInterrupt
        return recording.report()
    finally:
        ray_cluster.leave()
        recording.close()


def _brief(error: Exception) -> str:
    """The first sentence of what Ray says of a death."""
    return root_cause(error).split(". ")[0][:200]
