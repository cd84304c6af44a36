"""What Ray says of its actors and machines; and an end, by its id, to a process that hears nothing of Ray."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from typing import Any

import psutil
import ray
from ray._private import state

from replay.native_thread import NativeThread

log = logging.getLogger(__name__)


def machine() -> str:
    """Id of the machine that this process is on, as Ray names it."""
    return str(ray.get_runtime_context().get_node_id())


def machines() -> int:
    """Machines that Ray has, this one among them."""
    return sum(bool(node["Alive"]) for node in ray.nodes())


def free_resources() -> dict[str, float]:
    """Cores and accelerators that nobody has taken."""
    return {key: value for key, value in ray.available_resources().items() if key in ("CPU", "GPU")}


def actor_process(handle: Any) -> tuple[int, str] | None:
    """Process id and machine of an actor; None while it waits for room, and once it is dead."""
    found = state.actors(handle._actor_id.hex())
    if not found.get("Pid") or found["State"] == "DEAD":
        return None
    return int(found["Pid"]), str(found["Address"]["NodeID"])


def kill_by_id(pid: int, where: str) -> bool:
    """Kill a process of Ray's: a stopped one hears nothing of `ray.kill`. False for one of another machine."""
    if where != machine():
        return False
    with contextlib.suppress(psutil.Error, ProcessLookupError):
        if "".join(psutil.Process(pid).cmdline()[:1]).startswith("ray::"):  # not another's, by the same id
            os.kill(pid, signal.SIGKILL)
    return True


class MachineWatch:
    """Asks Ray every few seconds, in a thread of its own, which machines are to be taken away.

    Attributes:
        going: machines whose owner has said so (Ray: draining), by id, and the seconds since the epoch at which that
            will be, 0 for unknown; nothing new is put there.
        announced: all that were ever among them.
    """

    def __init__(self, seconds: float) -> None:
        self.going: dict[str, float] = {}
        self.announced: frozenset[str] = frozenset()
        self._seconds = seconds
        self._thread = NativeThread(self._run, "machine-watch")

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(self._seconds):
            try:
                self.going = {name: at / 1000 for name, at in state.state.get_draining_nodes().items()}
                self.announced |= self.going.keys()
            except Exception as error:  # Ray's control store is gone; what follows of that is seen elsewhere
                log.debug("Ray does not say which machines are to be taken away: %s", error)

    def close(self) -> None:
        """Stop asking; a question that Ray does not answer is left to itself."""
        self._thread.stop(0.5)
