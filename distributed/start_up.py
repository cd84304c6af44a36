"""`StartUp`: the timeline from `ray.init` to the first update, by process, so that it can be seen and tuned."""

from __future__ import annotations

import logging
import time

from distributed.member import Member

log = logging.getLogger(__name__)


class StartUp:
    """Marks of the coordinator and of every process, in seconds since ``ray.init`` began."""

    def __init__(self) -> None:
        self._marks: dict[str, float] = {}
        self._first_update: float | None = None

    @property
    def done(self) -> bool:
        """The first update was made."""
        return self._first_update is not None

    def mark(self, name: str) -> None:
        """Note the time of a step of the coordinator."""
        self._marks.setdefault(name, time.time())

    def complete(self, members: list[Member]) -> bool:
        """True once, when the first update is known; the timeline then goes to the log."""
        if self.done:
            return False
        for member in members:
            if member.report.get("first_update_at"):
                self._first_update = member.report["first_update_at"] - self._marks["ray.init"]
                log.info("start-up, seconds since ray.init:\n%s", self.describe(members))
        return self.done

    def describe(self, members: list[Member]) -> str:
        """One line for the coordinator and for each process."""
        zero = self._marks["ray.init"]
        rows = {"coordinator": self._marks} | {member.name: member.report.get("marks", {}) for member in members}
        return "\n".join(
            f"  {name:<40}" + ", ".join(f"{mark} {at - zero:.1f}" for mark, at in marks.items())
            for name, marks in rows.items()
        )

    def scalars(self) -> dict[str, float]:
        """``system/time_to_first_update_s``, once it is known."""
        return {} if self._first_update is None else {"system/time_to_first_update_s": self._first_update}
