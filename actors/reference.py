"""Reference returns of every task: what random play and an expert reach. Measured, and shipped as data.

The table (``configs/reference/tasks.json``) also holds each task's spaces and example texts, so that the catalogue can
be listed without an environment library. ``clowder reference`` makes and continues it: one line a task, the whole file
written anew after each, so that a kill loses the task in hand and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST, ActionSet
from actors.demonstrations.demonstration_set import DemonstrationSet, library_versions
from actors.demonstrations.minari_set import MinariSet
from actors.demonstrations.open_set import find_set
from actors.demonstrations.whole_files import write_whole
from actors.environments.make import make_environment
from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import random_action
from agent.task import TaskSpec

SCHEMA = 1
UNENDING_STEPS = 1000
"""Where an episode of a task never ends by itself (DM Control's ``lqr``), random play is cut after as many steps."""
TEXT_SEEDS = 8
"""Resets from which the longest text is kept as an example."""
PLAYED_AS = {"dm_control_pixels": "dm_control"}
"""Domains whose returns are another's: random play does not look, and drawing takes most of the time."""


@dataclasses.dataclass(frozen=True)
class RandomScore:
    """Undiscounted, raw returns of uniform random actions.

    Attributes:
        episodes: number of them, with seeds 0, 1, ...
        mean, standard_error: of their returns; the latter is None of one episode.
        steps: in all of them.
        cut_at: steps after which each was cut, where the task has no end; else None.
    """

    episodes: int
    mean: float
    standard_error: float | None
    steps: int
    cut_at: int | None = None


@dataclasses.dataclass(frozen=True)
class ExpertScore:
    """Gato's expert return (`windowed_maximum`) of a demonstration set, without its noisy episodes.

    Attributes:
        expert: its name.
        source: name of the set's folder.
        episodes: number N of episodes.
        value: the expert return.
    """

    expert: str
    source: str
    episodes: int
    value: float


@dataclasses.dataclass(frozen=True)
class Reference:
    """One line of the table.

    Attributes:
        task: its spaces and limits as its adapter gives them, with default arguments.
        texts: by key of the observation, the longest text of the first few resets.
        versions: of the libraries that it was measured with.
        random: None where it was not measured.
        expert: None where there was no set.
    """

    task: TaskSpec
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    random: RandomScore | None = None
    expert: ExpertScore | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain-data form."""
        return dataclasses.asdict(dataclasses.replace(self, task=None)) | {"task": self.task.to_json()}  # type: ignore

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Reference:
        """Inverse of `to_json`; unknown or missing keys raise TypeError or KeyError."""
        return cls(
            TaskSpec.from_json(data["task"]),
            dict(data["texts"]),
            dict(data["versions"]),
            None if data["random"] is None else RandomScore(**data["random"]),
            None if data["expert"] is None else ExpertScore(**data["expert"]),
        )


def windowed_maximum(returns: Sequence[float] | np.ndarray) -> float:
    """Expert return by Gato's rule: the greatest mean of W returns in a row, W = min(1000, 0.1 N), at least 1.

    ``returns`` [N] in the order in which they were collected: Gato's sets are what an expert played while it learned,
    and its best stretch is what it is worth (Reed et al. 2022, appendix F; where the prose says "minimum of 1000", the
    formula is followed).

    Raises:
        ValueError: no returns, or some that are not finite.
    """
    values = np.asarray(returns, np.float64)
    if not len(values) or not np.isfinite(values).all():
        raise ValueError(f"an expert return needs finite returns of at least one episode, not {values.tolist()[:5]}")
    window = max(1, min(1000, len(values) // 10))
    totals = np.concatenate(([0.0], values.cumsum()))
    return float((totals[window:] - totals[:-window]).max() / window)


def expert_score(demonstrations: DemonstrationSet) -> ExpertScore:
    """The expert return of a set; ValueError where all of its episodes are noisy."""
    clean = demonstrations.returns[~demonstrations.noisy]
    return ExpertScore(demonstrations.settings.expert, demonstrations.folder.name, len(clean), windowed_maximum(clean))


def recorded(path_or_name: str | Path) -> DemonstrationSet:
    """A set of any task, for its returns: what it was recorded with is not compared with anything.

    Raises:
        DemonstrationSetError: there is none, or it cannot be read.
    """
    folder = find_set(path_or_name)
    if (folder / MANIFEST).exists():

        def no_environment() -> VectorEnvironment:
            raise RuntimeError(f"{folder} is open for its returns alone")

        return ActionSet(folder, no_environment)
    return MinariSet(folder)


def measure(task_name: str, episodes: int, seconds: float, known: Mapping[str, Reference] | None = None) -> Reference:
    """Spaces, example texts and random returns of a task.

    Args:
        task_name: a task of the catalogue, with the default arguments of its adapter.
        episodes: most episodes of random play.
        seconds: CPU time after which no further one begins; the first is always played, and each to its end.
        known: a table; what `PLAYED_AS` says is taken from it where it is there.

    Raises:
        what `make_environment` and the environment raise.
    """
    environment = make_environment(ActorConfig(task=task_name), 1)
    try:
        task, texts = environment.task, _longest_texts(environment)
    finally:
        environment.close()
    domain, _, name = task_name.partition("/")
    played = f"{PLAYED_AS.get(domain, domain)}/{name}"
    found = (known or {}).get(played) if played != task_name else None
    if found is not None and found.random is not None and found.versions == versions_of(task_name):
        return Reference(task, texts, found.versions, found.random)
    environment = make_environment(ActorConfig(task=played), 1)
    try:
        random = _random_play(environment, episodes, seconds)
    finally:
        environment.close()
    return Reference(task, texts, versions_of(played), random)


def versions_of(task_name: str) -> dict[str, str]:
    """Versions of the libraries that decide what happens in a task."""
    domain = task_name.partition("/")[0]
    versions = library_versions(PLAYED_AS.get(domain, domain))
    if domain == "gymnasium":
        versions["mujoco"] = importlib.metadata.version("mujoco")
    return versions


def _longest_texts(environment: VectorEnvironment) -> dict[str, str]:
    keys = [key for key, spec in environment.task.observation.items() if spec.kind == "text"]
    texts = dict.fromkeys(keys, "")
    for seed in range(TEXT_SEEDS if keys else 0):
        observation = environment.reset([0], [seed])
        texts = {key: max(texts[key], str(observation[key][0]), key=len) for key in keys}
    return texts


def _random_play(environment: VectorEnvironment, episodes: int, seconds: float) -> RandomScore:
    task, shape = environment.task, (1, *environment.task.action.shape)
    limit = None if task.max_episode_steps else UNENDING_STEPS
    returns: list[float] = []
    steps, began = 0, time.process_time()
    while len(returns) < episodes and (not returns or time.process_time() - began < seconds):
        generator = np.random.default_rng(len(returns))
        environment.reset([0], [len(returns)])
        total, length, ended = 0.0, 0, False
        while not ended and length != limit:
            step = environment.step(random_action(task, shape, generator))
            total, length, ended = total + float(step.reward[0]), length + 1, bool(step.done[0])
        returns.append(total)
        steps += length
    error = float(np.std(returns, ddof=1) / len(returns) ** 0.5) if len(returns) > 1 else None
    return RandomScore(len(returns), float(np.mean(returns)), error, steps, limit)


def shipped_table() -> Path:
    """The table that comes with Clowder."""
    return _folder() / "tasks.json"


def read_table(path: Path) -> dict[str, Reference]:
    """By task name; empty where there is no file. ValueError where it is not a table of this schema."""
    if not path.exists():
        return {}
    try:
        data = json.loads(path.read_text())
        if data["schema"] != SCHEMA:
            raise ValueError(f"its schema is {data['schema']}, this Clowder reads {SCHEMA}")
        return {name: Reference.from_json(entry) for name, entry in data["tasks"].items()}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is no table of `clowder reference` ({error}); name another --out") from error


def write_table(path: Path, table: Mapping[str, Reference]) -> None:
    """Whole or not at all, one task a line, sorted."""
    lines = [f" {json.dumps(name)}: {json.dumps(table[name].to_json(), sort_keys=True)}" for name in sorted(table)]
    head = f'{{"schema": {SCHEMA}, "command": "clowder reference", "tasks": {{\n'
    write_whole(path, (head + ",\n".join(lines) + "\n}}\n").encode())


@functools.cache
def references() -> dict[str, Reference]:
    """The shipped table."""
    return read_table(shipped_table())


@functools.cache
def atari_scores() -> dict[str, tuple[float, float]]:
    """Published scores of random play and of a human tester by game; their source is in the file."""
    games = json.loads((_folder() / "atari_human.json").read_text())["games"]
    return {game: (random, human) for game, (random, human) in games.items()}


def _folder() -> Path:
    found = importlib.util.find_spec("configs")
    assert found is not None and found.submodule_search_locations
    return Path(next(iter(found.submodule_search_locations))) / "reference"
