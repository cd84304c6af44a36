"""`StopRequest`: Ctrl-C and SIGTERM ask for an orderly stop; a second one ends everything at once."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from types import FrameType
from typing import Any

INTERRUPTED = 130
"""Exit code of a run that was interrupted, by either signal: 128 + SIGINT, as shells have it."""


class StopRequest:
    """While it is entered, SIGINT and SIGTERM set `requested`; loops look at it. Only in the main thread.

    Ray installs a SIGTERM handler of its own in `ray.init`: call `install` again after it.

    Args:
        first: what is said to be done before the end.
    """

    def __init__(self, first: str = "a checkpoint is written first") -> None:
        self.requested = False
        self._message = f"\nstopping: {first}; once more to end at once\n".encode()
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._former[number] = signal.getsignal(number)
        self.install()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def install(self) -> None:
        """Take the two signals."""
        for number in self._former:
            signal.signal(number, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            kill_descendants()
            os._exit(INTERRUPTED)
        self.requested = True
        # Not `print`: a handler may run in the middle of one.
        os.write(sys.stderr.fileno(), self._message)


def kill_descendants(named: str = "") -> None:
    """Kill every process that this one started, and theirs; only those with ``named`` in their command line."""
    import psutil

    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if named in " ".join(process.cmdline()):
                process.kill()
