"""What an environment actor tells its owner: `ActorReport`."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class FinishedEpisode:
    """One online episode: raw undiscounted return, steps, the environment's word, Gato's filter, newest version."""

    episode_return: float
    length: int
    success: bool | None
    good: bool
    policy_version: int


@dataclasses.dataclass(frozen=True)
class ActorReport:
    """What an incarnation has done so far.

    Attributes:
        environment_steps, frames, episodes, windows, good_windows, failures: absolute counts of this incarnation; a
            frame is a simulator frame (steps times the task's action repeat), a failure made environments anew.
        finished: episodes that ended since the report before.
        seconds: absolute, by ``environment``, ``policy``, ``writer`` and ``blocked`` (the part of ``writer`` that
            replay made it wait).
        policy_version, policy_age: version acted with, and seconds since its publication (NaN before the first).
    """

    environment_steps: int
    frames: int
    episodes: int
    windows: int
    good_windows: int
    failures: int
    finished: tuple[FinishedEpisode, ...]
    seconds: dict[str, float]
    policy_version: int
    policy_age: float
