"""`NativeThread`: a daemon thread that calls into Reverb and is out of it, where possible, when the process ends.

A thread that comes back from C++ while the interpreter shuts down is unwound by force, and that aborts the process
("terminate called without an active exception"). So at exit these threads are told to stop and waited for, for a
moment: one that waits inside Reverb for data that never comes does no harm.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable

_EXIT_SECONDS = 2.5
_alive: weakref.WeakSet[NativeThread] = weakref.WeakSet()


class NativeThread(threading.Thread):
    """Runs ``target(stop)`` until it returns; it should soon after ``stop`` is set."""

    def __init__(self, target: Callable[[threading.Event], None], name: str) -> None:
        super().__init__(name=name, daemon=True)
        self._work = target
        self.stopping = threading.Event()
        _alive.add(self)
        self.start()

    def run(self) -> None:
        """The thread's own part."""
        self._work(self.stopping)

    def stop(self, timeout: float) -> bool:
        """Tell it to stop and wait up to ``timeout`` seconds; whether it ended."""
        self.stopping.set()
        self.join(timeout)
        return not self.is_alive()


def _stop_all() -> None:
    threads = list(_alive)
    for thread in threads:
        thread.stopping.set()
    end = time.monotonic() + _EXIT_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


atexit.register(_stop_all)
