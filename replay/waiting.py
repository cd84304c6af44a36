"""`Waiting`: what a process waits for and since when, noted where it waits, so that a watchdog can name it.

It lies on this floor since all that wait on each other are above it.
"""

from __future__ import annotations

import threading
import time
import weakref

PAUSE_SECONDS = 5.0
"""A wait that was in vain goes on, as one wait, if it is taken up again within this time; else it was given up."""

_places: weakref.WeakSet[Waiting] = weakref.WeakSet()
_lock = threading.Lock()


class Waiting:
    """One place of one thread that waits for something: ``with waiting: ...``, as often as it does.

    A wait in slices, with other work between them, stays one wait: call `in_vain` in a slice that ended without what
    was waited for. Costs less than a microsecond, so it may be around every step of an environment.

    Attributes:
        what: is waited for, in words that follow "waits for"; may be changed.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self._since: float | None = None
        self._left: float | None = None
        self._in_vain = False
        with _lock:
            _places.add(self)

    def __enter__(self) -> Waiting:
        now = time.monotonic()
        if self._since is None or (self._left is not None and now - self._left > PAUSE_SECONDS):
            self._since = now
        self._left, self._in_vain = None, False
        return self

    def __exit__(self, *_: object) -> None:
        if self._in_vain:
            self._left = time.monotonic()
        else:
            self._since = None

    def in_vain(self) -> None:
        """This slice of the wait ends without what was waited for, and another will follow."""
        self._in_vain = True

    def seconds(self) -> float | None:
        """How long this wait has lasted; None where nothing is waited for."""
        since, left, now = self._since, self._left, time.monotonic()
        if since is None or (left is not None and now - left > PAUSE_SECONDS):
            return None
        return now - since


def waits() -> list[tuple[str, float]]:
    """What this process waits for now, in all its threads, and for how many seconds already; the longest first."""
    with _lock:
        places = list(_places)
    lasting = [(place.what, seconds) for place in places if (seconds := place.seconds()) is not None]
    return sorted(lasting, key=lambda wait: -wait[1])
