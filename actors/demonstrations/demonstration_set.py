"""`DemonstrationSet`: the interface of demonstrations on disk, and the settings every form of set carries.

Two forms stand behind it: `MinariSet` holds whole episodes, `ActionSet` only settings, seeds and actions, from which
the task's own adapter makes the episodes again. Neither unpickles anything nor names code to import.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from actors.demonstrations.episode import Episode
from agent.task import TaskSpec

SETTINGS_SCHEMA = 1
ROM = "rom "
"""Begins the names of emulated games among versions; their versions are MD5 sums."""
PHYSICS = ("mujoco", "dm-control")
"""Libraries whose every version computes other trajectories of the same actions."""

_LIBRARIES = {
    "dm_control": ("dm-control", "mujoco"),
    "dm_control_pixels": ("dm-control", "mujoco"),
    "atari": ("ale-py",),
    "babyai": ("minigrid", "gymnasium"),
    "metaworld": ("metaworld", "mujoco", "gymnasium"),
    "gymnasium": ("gymnasium",),
    "text": ("minigrid", "easy-vqa"),
}


class DemonstrationSetError(ValueError):
    """A set that cannot be used: of another task or other settings, truncated, empty or corrupt."""


class DemonstrationSet(Protocol):
    """Demonstrations of one task.

    Attributes:
        settings: what the set was recorded with.
        folder: where it lies; its name begins the episode ids in replay.
        num_episodes: N.
        seeds: of the resets, int64 [N].
        returns: undiscounted raw return of each episode, float64 [N].
        noisy: bool [N], where noise was injected into the executed actions.
        lengths: steps of each episode, int64 [N].
    """

    settings: SetSettings
    folder: Path
    num_episodes: int
    seeds: np.ndarray
    returns: np.ndarray
    noisy: np.ndarray
    lengths: np.ndarray

    @property
    def demonstrator_return(self) -> float:
        """Mean return of the episodes without injected noise."""
        ...

    def episode(self, index: int) -> Episode:
        """One whole episode."""
        ...

    def episodes(self, order: Sequence[int]) -> Iterator[tuple[int, Episode] | None]:
        """The episodes of ``order`` with their index, each once, in the order in which they are ready.

        Yields None about ten times a second while nothing is ready, so that the caller can do other work.
        """
        ...

    def close(self) -> None:
        """Free environments and files."""
        ...


@dataclasses.dataclass(frozen=True)
class SetSettings:
    """What a set was recorded with; the same JSON in both forms.

    Attributes:
        task: spaces and limits of the task when the set was recorded.
        arguments: of the adapter, with its defaults filled in.
        entry_point: of a user's own environment. Compared with the configuration, never imported from here.
        expert: name of the expert.
        versions: of the libraries that decide what happens in an episode, and the MD5 of an emulated game's ROM.
        random_return: mean return of uniform random actions, where it was measured.
        failed_episodes: episodes in which the expert failed; they are not in the set.
    """

    task: TaskSpec
    expert: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    entry_point: str | None = None
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    random_return: float | None = None
    failed_episodes: int = 0

    def __post_init__(self) -> None:
        for name in ("arguments", "versions"):
            if not isinstance(getattr(self, name), dict):
                raise TypeError(f"{name} must be an object")
        if not isinstance(self.expert, str) or not isinstance(self.entry_point, str | None):
            raise TypeError("expert and entry_point must be texts")
        if not isinstance(self.failed_episodes, int) or not all(isinstance(v, str) for v in self.versions.values()):
            raise TypeError("failed_episodes must be a number and versions texts")
        # As JSON has it, so that a tuple equals the list that was read back.
        object.__setattr__(self, "arguments", json.loads(json.dumps(self.arguments)))
        if self.random_return is not None:
            object.__setattr__(self, "random_return", float(self.random_return))

    def to_json(self) -> dict[str, Any]:
        """Plain-data form."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return data | {"task": self.task.to_json(), "schema": SETTINGS_SCHEMA}

    @classmethod
    def from_json(cls, data: Any, where: Path) -> SetSettings:
        """Inverse of `to_json`; another schema or a malformed form raises DemonstrationSetError."""
        if not isinstance(data, dict) or "task" not in data:
            raise DemonstrationSetError(f"{where} is not of a Clowder set: its settings are missing; record it anew")
        data = dict(data)
        schema = data.pop("schema", None)
        if schema != SETTINGS_SCHEMA:
            raise DemonstrationSetError(
                f"{where} has settings of schema {schema}, this Clowder reads {SETTINGS_SCHEMA}; record the set anew"
            )
        try:
            return cls(**data | {"task": TaskSpec.from_json(data["task"])})
        except (TypeError, ValueError, KeyError) as error:
            why = " ".join(str(error).split())  # it may quote a key with line breaks
            raise DemonstrationSetError(f"{where} has malformed settings ({why}); record the set anew") from error


def check_settings(recorded: SetSettings, wanted: SetSettings, where: Path, longest: int | None = None) -> None:
    """Raise DemonstrationSetError, naming the first difference, where a set is not of the task that is wanted.

    The expert, versions of libraries and returns may differ, and so may what belongs to a run instead of the task:
    context, return horizon, reference returns. Another ROM is another game. Where the ``longest`` episode is given, the
    limit of an episode's steps may differ too, if no episode came to either.
    """
    ours, theirs = wanted.task, recorded.task
    if theirs.name != ours.name:
        raise DemonstrationSetError(f"{where} is a set of {theirs.name}, not of {ours.name}; give it to its own task")
    hint = "change the actor config to match, or record a new set with `clowder record`"
    if recorded.entry_point != wanted.entry_point:
        raise DemonstrationSetError(
            f"{where}: {ours.name} was recorded with entry_point {recorded.entry_point!r}, the actor config says "
            f"{wanted.entry_point!r}; {hint}"
        )
    limits = [limit for limit in (theirs.max_episode_steps, ours.max_episode_steps) if limit]
    unlimited = longest is not None and all(longest < limit for limit in limits)
    free = {"max_episode_steps"} if unlimited else set()
    for key in sorted((recorded.arguments.keys() | wanted.arguments.keys()) - free):
        then, now = recorded.arguments.get(key, "(unset)"), wanted.arguments.get(key, "(unset)")
        if then != now:
            raise DemonstrationSetError(
                f"{where}: {ours.name} was recorded with {key}={then}, the actor config gives {key}={now}; {hint}"
            )
    for key in sorted(theirs.observation.keys() | ours.observation.keys()):
        if theirs.observation.get(key) != ours.observation.get(key):
            raise DemonstrationSetError(
                f"{where}: observation {key!r} of {ours.name} was {theirs.observation.get(key)} when recorded and is "
                f"{ours.observation.get(key)} now; {hint}"
            )
    for name in sorted({"action", "action_repeat", "max_episode_steps"} - free):
        then, now = getattr(theirs, name), getattr(ours, name)
        if then != now:
            raise DemonstrationSetError(
                f"{where}: {name} of {ours.name} was {then} when recorded and is {now} now; {hint}"
            )

    for name, then in recorded.versions.items():
        now = wanted.versions.get(name)
        if name.startswith(ROM) and now is not None and then != now:
            raise DemonstrationSetError(
                f"{where}: {ours.name} was recorded with {name.removeprefix(ROM)}.bin of MD5 {then}, the installed has "
                f"{now}; install the ale-py it came with ({describe_versions(recorded.versions)}), or record a new "
                "set"
            )


def check_simulated(recorded: SetSettings, where: Path) -> None:
    """Raise DemonstrationSetError where episodes that are to be simulated were recorded with other physics.

    Returns that are checked on reading would not find every difference; that of versions is certain.
    """
    for name in PHYSICS:
        now = library_versions(recorded.task.domain).get(name)
        then = recorded.versions.get(name)
        if None not in (then, now) and then != now:
            raise DemonstrationSetError(
                f"{where}: {recorded.task.name} was recorded as seeds and actions with {name} {then}, and {now} is "
                f"installed, which moves otherwise; install {name} {then}, or record the set anew with "
                "`clowder record --form minari`, which keeps whole episodes"
            )


def other_versions(recorded: SetSettings) -> str:
    """Libraries whose installed version is not the recorded one, in words; empty for none."""
    now = library_versions(recorded.task.domain)
    return ", ".join(
        f"{name} {then} (installed: {now[name]})"
        for name, then in sorted(recorded.versions.items())
        if name in now and now[name] != then
    )


def demonstrator_return(returns: np.ndarray, noisy: np.ndarray, where: Path) -> float:
    """Mean of ``returns`` [N] where not ``noisy`` [N]; a set without such an episode raises DemonstrationSetError."""
    if noisy.all():
        raise DemonstrationSetError(f"{where} has no episode without injected noise; record with a noise share below 1")
    return float(returns[~noisy].mean())


def library_versions(domain: str) -> dict[str, str]:
    """Installed versions of what simulates a domain, and NumPy's."""
    versions = {}
    for name in (*_LIBRARIES.get(domain, _LIBRARIES["gymnasium"]), "numpy"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return versions


def describe_versions(versions: dict[str, str]) -> str:
    """``name 1.2, other 3.4``."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) or "unknown versions"
