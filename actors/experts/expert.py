"""The interface of an expert: it plays whole episodes with whatever access it declares."""

from __future__ import annotations

import time
from typing import Literal, Protocol

from actors.demonstrations.episode import ActionRecord

Sees = Literal["simulator state", "privileged information", "observations"]
"""What an expert may look at. *Simulator state*: it copies the state and tries actions in copies. *Privileged
information*: it reads values of the simulator that no observation shows, without trying actions. *Observations*: what
an agent is given, and nothing else."""

STEP_SECONDS = 60.0
"""Wall seconds that one step of an expert may take: some thousand times what any of ours needs."""


class Expert(Protocol):
    """Plays one task. What it returns is replayed through the task's own adapter, which makes the observations.

    Attributes:
        name: as `actors.experts.make.EXPERTS` lists it.
        sees: what it may look at.
    """

    name: str
    sees: Sees

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode from a reset with ``seed``.

        ``noise`` is the strength of disturbances injected into the executed action (labels stay the expert's own
        choice): a standard deviation for continuous actions, a probability of a random action for discrete ones
        (a standard deviation too where these are a grid of continuous ones).

        Raises:
            ExpertFailed: it has no sound action, or a step took longer than its deadline.
        """
        ...


class ExpertFailed(RuntimeError):
    """An expert gave no sound action in time; the message names the expert, the task, the seed and the step."""


class StepDeadline:
    """Deadline of each step of one episode.

    A long computation calls `check` between its parts, so that an expert that goes round for ever ends with an error
    that says who and where; `next_step` begins the next step.
    """

    def __init__(self, expert: str, task: str, seed: int, seconds: float = STEP_SECONDS) -> None:
        self.step = 0
        self._who = f"the expert {expert!r} on {task}, seed {seed}"
        self._seconds = seconds
        self._began = time.monotonic()

    def next_step(self) -> None:
        """The step was done in time (or raises); the next begins now."""
        self.check()
        self.step += 1
        self._began = time.monotonic()

    def check(self) -> None:
        """Raise `ExpertFailed` where this step has taken too long."""
        taken = time.monotonic() - self._began
        if taken > self._seconds:
            raise ExpertFailed(
                f"{self._who}: step {self.step} took {taken:.1f} s, more than the {self._seconds:g} s allowed; "
                "take smaller settings or leave this seed out"
            )

    def failed(self, why: str) -> ExpertFailed:
        """The error to raise where this step has no sound action."""
        return ExpertFailed(f"{self._who}: step {self.step}: {why}")
