"""Environment variables of every process of a run: what keeps libraries quiet and off what is not theirs."""

from __future__ import annotations

import os

PROCESS_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "SDL_VIDEODRIVER": "dummy",  # pictures are made in memory; without a screen SDL complains
    "PYTHONFAULTHANDLER": "1",
    "MALLOC_ARENA_MAX": "2",  # an arena a thread keeps tens of megabytes in every process, for gRPC's threads
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # we hide accelerators ourselves; silences a warning about it
}


def set_process_environment() -> None:
    """Set them here, for this process and those that it starts; what the user has set stays."""
    for name, value in PROCESS_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
