"""Which tables there are: one for each task and source, with its capacity, signature and estimated memory."""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.window import window_signature

SOURCES = ("online", "demonstrations", "good", "ends", "best")
"""``online``: all windows of the run's own policies. ``demonstrations``: of experts. ``good``: online windows of
episodes that pass Gato's filter (Reed et al. 2022, section 3.2). ``ends``: the last window of each episode. ``best``:
online windows of the episodes with the highest returns, where `ReplayConfig.best_capacity` gives it room."""

MAX_TABLES = 1600
"""A table costs the server two threads and 35 kB. 1,472, those of 368 tasks, were started and polled: 6.3 s, 2,986
threads, 119 MB; threads are what ends first where a machine allows no more."""

# Stored bytes for each raw byte, in chunks of one window. Measured on Boxing, BabyAI and cart-pole; random pixels do
# not compress at all, so this is an estimate and no bound.
_IMAGE_COMPRESSION = 0.12
_OTHER_COMPRESSION = 0.5
_BYTES_PER_COLUMN = 900  # keys, shapes and allocations of one chunk in the server


@dataclasses.dataclass(frozen=True)
class TableConfig:
    """One table, as plain data.

    Attributes:
        name: see `table_for`.
        capacity: windows; the oldest leave first, or those of the lowest priority where ``highest_stay``.
        samples_per_insert, insert_slack: where the former is set, inserts wait, see `ReplayConfig`.
        signature: dtype name and shape of every column; the time dimension is None.
    """

    name: str
    capacity: int
    samples_per_insert: float | None
    insert_slack: int
    signature: dict[str, tuple[str, tuple[int | None, ...]]]
    highest_stay: bool = False

    @property
    def limits(self) -> tuple[float, int, float, float]:
        """Reverb's limiter: samples per insert, items needed to sample, and the bounds of inserts * spi - samples.

        Inserts alone are ever held back: the lower bound is Reverb's own "never" (what its MinSize uses), so a task
        whose actors are gone cannot stop the learner.
        """
        never = sys.float_info.max
        if self.samples_per_insert is None:
            return 1.0, 1, -never, never
        return self.samples_per_insert, 1, -never, self.samples_per_insert * self.insert_slack

    def to_json(self) -> dict[str, Any]:
        """Plain-data form."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TableConfig:
        """Inverse of `to_json`."""
        signature = {key: (dtype, tuple(shape)) for key, (dtype, shape) in data["signature"].items()}
        return cls(**{**data, "signature": signature})


def table_for(task_name: str, source: str) -> str:
    """Name of the table of a task and source, such as ``online/atari/boxing``."""
    if source not in SOURCES:
        raise ValueError(f"a replay source is one of {', '.join(SOURCES)}, not {source!r}")
    return f"{source}/{task_name}"


def sources_of(config: ReplayConfig) -> tuple[str, ...]:
    """Those of `SOURCES` that have tables."""
    return tuple(source for source in SOURCES if config.capacity(source) > 0)


def column_names(task: TaskSpec) -> list[str]:
    """Columns in the order in which Reverb returns them: sorted."""
    return sorted(window_signature(task))


def metadata_bytes(task: TaskSpec) -> int:
    """Fixed size of the metadata column in bytes: room for the JSON and the task's texts, padded with spaces.

    Fixed, since the shape of a Reverb column may not change within a writer.
    """
    texts = sum(spec.max_bytes for spec in task.observation.values() if spec.kind == "text")
    return 1024 + len(task.name) + 6 * texts  # JSON may spell one byte as \u00xx


def table_configs(tasks: Sequence[TaskSpec], config: ReplayConfig) -> list[TableConfig]:
    """All tables of a run. More than `MAX_TABLES`, or a task twice, raises ValueError."""
    names = [task.name for task in tasks]
    if not names:
        raise ValueError("replay needs at least one task")
    if len(set(names)) < len(names):
        raise ValueError(f"task {next(n for n in names if names.count(n) > 1)} is given twice")
    sources = sources_of(config)
    if len(tasks) * len(sources) > MAX_TABLES:
        raise ValueError(
            f"{len(tasks)} tasks need {len(tasks) * len(sources)} tables ({len(sources)} each), and one replay server "
            f"holds at most {MAX_TABLES}: each costs it two threads. "
            f"Train at most {MAX_TABLES // len(sources)} tasks in one run"
        )
    tables = []
    for task in tasks:
        signature: dict[str, tuple[str, tuple[int | None, ...]]] = {
            name: (dtype.name, (None, *shape)) for name, (dtype, shape) in window_signature(task).items()
        }
        for source in sources:
            tables.append(
                TableConfig(
                    name=table_for(task.name, source),
                    capacity=config.capacity(source),
                    samples_per_insert=config.samples_per_insert if source == "online" else None,
                    insert_slack=config.insert_slack,
                    signature=signature,
                    highest_stay=source == "best",
                )
            )
    return tables


@dataclasses.dataclass(frozen=True)
class TableEstimate:
    """Estimated size of a full table: ``windows``, ``bytes`` in the server, ``raw_bytes`` before compression."""

    name: str
    windows: int
    bytes: int
    raw_bytes: int


def expected_windows(steps: int, episodes: int, span: tuple[int, int]) -> int:
    """Windows that episodes with so many steps in all are cut into, on average over the random phases; ``span`` is
    their length and stride (`ReplayConfig.span`)."""
    length, stride = span
    return math.ceil((steps + episodes * (length - 1)) / stride)


def estimate_memory(
    tasks: Sequence[TaskSpec], config: ReplayConfig, demonstration_windows: Mapping[str, int] | None = None
) -> list[TableEstimate]:
    """Estimated server memory of every table when full.

    Args:
        tasks: of the run.
        config: capacities and lengths.
        demonstration_windows: windows of each task's demonstrations where known (`expected_windows`); a task that is
            not named has none.
    """
    demonstration_windows = demonstration_windows or {}
    estimates = []
    for task in tasks:
        stored = raw = 0.0
        for name, (dtype, shape) in window_signature(task).items():
            rows = config.span(task)[0] + (1 if name.startswith("observation/") else 0)
            rows += task.return_horizon if name == "reward" else 0
            size = (
                metadata_bytes(task) if name == "metadata" else rows * dtype.itemsize * int(np.prod(shape, dtype=int))
            )
            image = dtype == np.uint8 and name.startswith("observation/")
            raw += size
            stored += size * (_IMAGE_COMPRESSION if image else _OTHER_COMPRESSION) + _BYTES_PER_COLUMN
        for source in sources_of(config):
            windows = config.capacity(source)
            if source == "demonstrations":
                windows = min(windows, demonstration_windows.get(task.name, 0))
            # `ends` shares the chunks of `online` while it holds them; counted in full, as it outlives it.
            estimates.append(
                TableEstimate(table_for(task.name, source), windows, int(windows * stored), int(windows * raw))
            )
    return estimates
