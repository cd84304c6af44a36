"""What can go wrong with an environment. Every message names the task and what to do about it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnknownTask(ValueError):
    """No adapter or library knows this task."""

    def __init__(self, task_name: str, known: Iterable[str], what: str = "task"):
        known = sorted(known)
        name = task_name.rpartition("/")[2]
        # Names are compared without case first: babyai/gotolocal means babyai/GoToLocal.
        by_lower = {candidate.lower(): candidate for candidate in known}
        lowered = difflib.get_close_matches(task_name.lower(), by_lower, n=3, cutoff=0.5)
        lowered = lowered or difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.5)
        nearest = [by_lower[candidate] for candidate in lowered]
        hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known[:12])}"
        super().__init__(f"unknown {what} {task_name!r}; {hint}")


class LibraryMissing(ValueError):
    """The library of a domain is not installed; the message has the command that installs it."""


class SpaceNotSupported(ValueError):
    """An observation or action space that cannot be turned into tokens."""


class EnvironmentFailed(RuntimeError):
    """An environment raised; the message names task, slot and call, and the cause is attached."""


class InvalidEnvironmentOutput(ValueError):
    """An environment returned what its task does not allow: another shape, other keys, a changed text."""


class NotFinite(InvalidEnvironmentOutput):
    """An environment returned NaN or an infinite number: it may not again, as when a simulation of physics diverged."""
