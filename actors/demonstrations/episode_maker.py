"""`EpisodeMaker`: one episode of an expert, played again by the task's own adapter.

An expert is code that may raise, loop for ever or return nonsense. None of that ends a recording: the `Attempt` says
what happened, with task, expert and seed, and the recording goes on with the next seed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pyarrow as pa

from actors.demonstrations.action_set import conform
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.minari_form import encode_episode
from actors.demonstrations.simulation import simulate
from actors.environments.vector_environment import VectorEnvironment
from actors.experts.expert import Expert
from actors.experts.weak_expert import PREFIX


@dataclasses.dataclass(frozen=True)
class Attempt:
    """What came of one seed.

    Attributes:
        seed, noise: that were asked for.
        record: seed and actions of the episode, with the return that the adapter gave; None where there is none.
        rows: the episode as Minari's table, for sets of that form.
        facts: `Episode.facts` of it.
        problem: why it is not in the set; empty where it may be.
        error: the expert did not just fail at the task: it raised, took too long, or what it returned is no episode.
    """

    seed: int
    noise: float
    record: ActionRecord | None = None
    rows: pa.RecordBatch | None = None
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    problem: str = ""
    error: bool = False


class EpisodeMaker:
    """Makes episodes one after another.

    Args:
        expert: who plays.
        environment: one copy of the task, in which the episode is played again; closed by `close`.
        rows: whether to make Minari's tables.
        deadline: seconds that one episode may take; needs the main thread (elsewhere nobody can interrupt it).

    Episodes that the environment calls failed are not demonstrations, except a `WeakExpert`'s.
    """

    def __init__(self, expert: Expert, environment: VectorEnvironment, rows: bool, deadline: float) -> None:
        self._expert, self._environment, self._rows, self._deadline = expert, environment, rows, deadline

    def make(self, seed: int, noise: float) -> Attempt:
        """One episode; never raises for what the expert does."""
        task = self._environment.task
        try:
            with time_limit(self._deadline):
                played = conform(self._expert.play(seed, noise), task)
                if played.seed != seed:
                    raise ValueError(f"it returned an episode of seed {played.seed}")
                again = (item[1] for item in simulate(self._environment, lambda _: played, [0]) if item is not None)
                episode = next(again)
                again.close()
        except TimeLimitReached:
            return self.refused(seed, noise, f"no episode within the deadline of {self._deadline:g} s")
        except Exception as error:
            return self.refused(seed, noise, f"{type(error).__name__}: {' '.join(str(error).split()) or 'no message'}")
        if episode.success is False and not self._expert.name.startswith(PREFIX):
            return Attempt(seed, noise, problem=self._says(seed, noise, "it failed"))
        return Attempt(
            seed,
            noise,
            record=dataclasses.replace(played, episode_return=episode.episode_return),
            rows=encode_episode(episode, task, 0) if self._rows else None,
            facts=episode.facts(),
        )

    def refused(self, seed: int, noise: float, what: str) -> Attempt:
        """The answer for an expert that did what no expert may."""
        return Attempt(seed, noise, problem=self._says(seed, noise, what), error=True)

    def _says(self, seed: int, noise: float, what: str) -> str:
        return problem_of(self._environment.task.name, self._expert.name, seed, noise, what)

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()


def problem_of(task: str, expert: str, seed: int, noise: float, what: str) -> str:
    """One line that names task, expert and seed."""
    disturbed = f", noise {noise:g}" if noise else ""
    return f"{task}, expert {expert}, seed {seed}{disturbed}: {what}"


class TimeLimitReached(BaseException):
    """No Exception: experts that catch those of their libraries must not catch this one."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise `TimeLimitReached` in the body once it has taken ``seconds``, and each second again until it has left.

    By a signal, so it interrupts Python and waits, not a library that never returns to Python: whoever plays such an
    expert gives it a process of its own, which can be killed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    until = time.monotonic() + seconds

    def ring(number: int, frame: FrameType | None) -> None:
        if time.monotonic() >= until:
            raise TimeLimitReached

    former = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, former)
