"""`Guardian`: a small process that ends what this one started, should this one be killed.

Ray's own processes notice the death of a driver, but some of its agents live on for more than a minute. The guardian
looks every few seconds which processes descend from its parent; when the parent dies without a word, it gives them a
grace period and kills, by their ids and start times, those that are left.
"""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time

import psutil

LOOK_SECONDS = 3.0
GRACE_SECONDS = 8.0
DONE = b"done\n"


class Guardian:
    """Starts with its making; `dismiss` ends it."""

    def __init__(self) -> None:
        # By its file and with -P: it needs none of our packages, and nothing is imported from the current folder.
        self._process = subprocess.Popen(
            [sys.executable, "-P", __file__], stdin=subprocess.PIPE, start_new_session=True
        )

    def dismiss(self) -> None:
        """The parent ended everything itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.write(DONE)
            self._process.stdin.close()
        try:
            self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5.0)


def main() -> None:
    """Entry point of the process: watch until told that all is done, or until the parent is gone."""
    parent, me = psutil.Process().parent(), psutil.Process().pid
    known: dict[int, psutil.Process] = {}
    told: list[object] = []
    while parent is not None and not (told := select.select([sys.stdin], [], [], LOOK_SECONDS)[0]):
        with contextlib.suppress(psutil.Error):
            known |= {child.pid: child for child in parent.children(recursive=True) if child.pid != me}
    if told and os.read(sys.stdin.fileno(), len(DONE)) == DONE:  # nothing is read where the parent is gone
        return
    time.sleep(GRACE_SECONDS)
    left = [process for process in known.values() if process.is_running()]  # a reused id is not the same process
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=5.0)


if __name__ == "__main__":
    main()
