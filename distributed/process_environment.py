"""Environment variables of every process of a run: what keeps libraries quiet and off what is not theirs."""

from __future__ import annotations

import contextlib
import ctypes
import os

PROCESS_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_VIDEODRIVER": "dummy",  # pictures are made in memory; without a screen SDL complains
    "PYTHONFAULTHANDLER": "1",
    "RAY_worker_niceness": "0",  # Ray's own 15 would leave `cluster.nice` no room below the learner
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_task_events_report_interval_ms": "0",  # a record of every call, of which Ray's control store keeps 100,000
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # we hide accelerators ourselves; silences a warning about it
}


def set_process_environment() -> None:
    """Set them here, for this process and those that it starts; what the user has set stays."""
    for name, value in PROCESS_ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def leave_arrow_out() -> None:
    """Keep Ray from importing pyarrow: a worker's set-up hook.

    Ray imports it wherever it is installed, to register serialisers for tables that Clowder never sends; it takes about
    30 MB of every process.
    """
    from ray._private import arrow_serialization

    if hasattr(arrow_serialization, "_register_custom_datasets_serializers"):  # another Ray has its own ways
        arrow_serialization._register_custom_datasets_serializers = lambda context: None


WORKER_SETUP_HOOK = f"{__name__}.{leave_arrow_out.__name__}"
"""Name of the above, for Ray's ``runtime_env``."""

_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1 << 17


def give_back_large_arrays() -> None:
    """Have every array of 128 KiB or more mapped by itself, so that its memory goes back when it is freed.

    By default glibc raises that bound to the largest array it has freed, up to 32 MiB. Environment actors and
    evaluators free frames and whole sets of weights between small things that stay, and an actor's heap grew to a
    gigabyte of holes. The price, a page fault a page, is small beside an environment's step; a learner would feel it.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library has its own ways
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def be_nice(increment: int) -> None:
    """Add to the niceness of this process: of all threads that it has, for on Linux each has its own."""
    threads = [int(each) for each in os.listdir("/proc/self/task")] if os.path.isdir("/proc/self/task") else [0]
    for thread in threads:
        with contextlib.suppress(ProcessLookupError):  # it has ended since
            present = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(19, present + increment))
