"""`run_clowder`: a command of `clowder` in a process of its own, which ends in order with who waits for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from types import FrameType

GRACE_SECONDS = 300.0
"""That a command has to end in order, once asked to; a run writes a checkpoint in it."""


def run_clowder(words: Sequence[str], deadline: float) -> None:
    """Run ``clowder`` with ``words`` and wait for it. Only in the main thread.

    A Ctrl-C or SIGTERM here, or the deadline, asks it to stop, and it is waited for; a second signal has it end at once
    (`distributed.stop_request`). It has a process group of its own, so that a terminal's Ctrl-C comes to it once.

    Args:
        words: such as ``["train", "experiment=cartpole"]``.
        deadline: seconds.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than ``deadline`` seconds.
        KeyboardInterrupt, SystemExit: at Ctrl-C, and at SIGTERM; the command has ended.
    """
    command = [sys.executable, "-m", "distributed.cli", *words]
    former = signal.signal(signal.SIGTERM, _terminated)
    try:
        child = subprocess.Popen(command, process_group=0)
        try:
            code = child.wait(deadline)
        finally:
            while child.poll() is None:
                _end(child)
    finally:
        signal.signal(signal.SIGTERM, former)
    if code:
        raise subprocess.CalledProcessError(code, command)


def _terminated(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ask it to stop and wait; a signal meanwhile asks again, with the next call."""
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
    except (KeyboardInterrupt, SystemExit):
        return
