"""From tables to batches: the mixture, its fallbacks, and a thread that prepares batches ahead."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
import time
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from agent.agent import Agent
from agent.task import TaskSpec
from learner.batch import Batch, make_batch
from learner.config import LearnerConfig
from learner.crop import Crop, collate, last_crop, random_crop
from learner.mixture import Key, Mixture
from replay.waiting import Waiting
from replay.window import Window

DEMONSTRATIONS, GOOD, ONLINE, ENDS, BEST = "demonstrations", "good", "online", "ends", "best"
OWN = "own"
"""Key of `TaskSources.objectives` for the run's own windows, from whichever table."""
END_TRIES = 8
"""Windows drawn from ``ends``, which holds those of all sources, before a prompt is taken from elsewhere."""


LENGTH_TRIES = 8
"""Online windows drawn, each kept in proportion to its steps up to the context, before one is taken as it is."""


class WindowStream(Protocol):
    """Windows of one table, as `replay.sampler.WindowSampler` gives them."""

    def get(self, timeout: float) -> Window | None:
        """The next window, or None after ``timeout`` seconds."""
        ...

    def available(self) -> bool:
        """Whether the table holds windows."""
        ...


class NoData(RuntimeError):
    """A table gave no window in time."""


class RanDry(RuntimeError):
    """A table gave no window and holds none, and another source of its task does."""


@dataclasses.dataclass(frozen=True)
class TaskSources:
    """Where one task's windows come from.

    Attributes:
        task: its spec.
        weight: its share of a batch, relative to other tasks.
        online_share: part of that share asked from the run's own windows, at the first update and at the last.
        streams: by source: ``demonstrations``; ``good`` or, where all of the run's own windows are learned from,
            ``online``; ``best`` beside it; and ``ends`` for prompts.
        best_share: of the run's own windows, the part asked from ``best``.
        objectives: by which objective windows of ``demonstrations`` and the run's ``own`` are learned from, where one
            is chosen.
    """

    task: TaskSpec
    weight: float
    online_share: tuple[float, float]
    streams: Mapping[str, WindowStream]
    best_share: float = 0.0
    objectives: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def objective(self, source: str) -> str | None:
        """By which windows of a source are learned from; None: the learner's."""
        return self.objectives.get(DEMONSTRATIONS if source == DEMONSTRATIONS else OWN)

    @property
    def own(self) -> str:
        """Source of the run's own windows: ``good`` or ``online``."""
        return ONLINE if ONLINE in self.streams else GOOD

    def shares(self, progress: float) -> dict[Key, float]:
        """Relative weight of each of this task's sources after a part ``progress`` of the updates; what a task lacks
        for good goes to what it has."""
        first, last = self.online_share
        online = first + min(1.0, progress) * (last - first)
        asked = {
            DEMONSTRATIONS: 1.0 - online,
            self.own: online * (1.0 - self.best_share),
            BEST: online * self.best_share,
        }
        present = {source: share for source, share in asked.items() if source in self.streams}
        if not present:
            raise ValueError(f"{self.task.name}: neither demonstrations nor online windows to learn from")
        if sum(present.values()) == 0:
            raise ValueError(f"{self.task.name}: an online_share of {online:g} leaves no share to learn from")
        total = sum(present.values())
        return {(self.task.name, source): self.weight * share / total for source, share in present.items()}


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where one window of a batch came from; the version is the mean over its crop, None for demonstrations."""

    task: str
    source: str
    version: float | None
    published_at: float


@dataclasses.dataclass(frozen=True)
class SourcedBatch:
    """A batch, the origin of each of its windows, the split that was asked, how many windows have a prompt, and what
    the mixture carries over to the next batch."""

    batch: Batch
    origins: list[Origin]
    asked: dict[Key, int]
    actual: dict[Key, int]
    prompted: int
    carry: dict[Key, float]


class BatchSource:
    """Makes batches; reads streams with a deadline and raises NoData, naming the table, past it."""

    def __init__(
        self,
        agent: Agent,
        sources: Mapping[str, TaskSources],
        config: LearnerConfig,
        seed: int,
        first: int = 0,
        varied_lengths: bool = False,
    ) -> None:
        """``first``: number of the first batch; ``varied_lengths``: see `Objective`."""
        self._agent = agent
        self._sources = sources
        self._config = config
        self._seed = seed
        self._number = first
        self._varied_lengths = varied_lengths
        self.mixture = Mixture(self._shares())
        self._stop = threading.Event()
        self._ready: queue.Queue[SourcedBatch | BaseException] = queue.Queue(max(1, config.prefetch_batches))
        self._thread: threading.Thread | None = None
        self._waiting = Waiting("its own thread that prepares batches")

    def _shares(self) -> dict[Key, float]:
        """Of all tasks' sources, at the present batch."""
        progress = self._number / self._config.steps
        return {key: share for task in self._sources.values() for key, share in task.shares(progress).items()}

    def get(self) -> SourcedBatch:
        """The next batch."""
        if self._config.prefetch_batches == 0:
            return self.make()
        if self._thread is None:
            self._thread = threading.Thread(target=self._prefetch, name="batches", daemon=True)
            self._thread.start()
        # The maker has the data deadline itself; the rest is its own work on one batch.
        deadline = time.monotonic() + self._config.data_deadline + 60.0
        with self._waiting:
            while not self._stop.is_set():  # `close`, from another thread, ends the wait
                try:
                    item = self._ready.get(timeout=0.5)
                except queue.Empty:
                    if time.monotonic() > deadline:
                        raise NoData("the thread that prepares batches gave none in time") from None
                    continue
                if isinstance(item, BaseException):
                    raise item
                return item
        raise NoData("stopped")

    def close(self) -> None:
        """Stop the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)

    def _prefetch(self) -> None:
        while not self._stop.is_set():
            item: SourcedBatch | BaseException
            try:
                item = self.make()
            except Exception as error:
                item = error
            while not self._stop.is_set():
                try:
                    self._ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if isinstance(item, BaseException):
                return

    def make(self) -> SourcedBatch:
        """One batch, prepared here and now."""
        # Random numbers come from (seed, number), so that a resumed run goes on where it stopped.
        rng = np.random.default_rng((self._seed, self._number))
        self.mixture.change(self._shares())
        self._number += 1
        asked = self.mixture.split(self._config.windows_per_batch)
        actual = dict.fromkeys(asked, 0)
        groups, origins, prompted = [], [], 0
        for name, sources in self._sources.items():
            crops, task_origins = [], []
            for source in sources.streams:
                for _ in range(asked.get((name, source), 0)):
                    crop, drawn = self._draw(sources, source, rng)
                    actual[name, drawn] += 1
                    prompted += crop.prompt is not None
                    crops.append(dataclasses.replace(crop, objective=sources.objective(drawn)))
                    task_origins.append(origin(name, drawn, crop))
            if crops:
                groups.append(
                    collate(
                        sources.task,
                        crops,
                        self._agent.text,
                        rng,
                        self._config.past_action_dropout,
                        self._config.image_shift,
                        self._agent.config.return_bins if self._agent.config.returns != "off" else None,
                        self._config.return_dropout,
                    )
                )
                origins += task_origins
        batch = make_batch(self._agent, groups, self._config.tokens_per_row, self._config.reward_prediction)
        return SourcedBatch(batch, origins, asked, actual, prompted, dict(self.mixture.carry))

    def _draw(self, sources: TaskSources, source: str, rng: np.random.Generator) -> tuple[Crop, str]:
        """A crop of a source, or of the one that stands in for it, and which."""
        while True:
            drawn = self._present(sources, source)
            with contextlib.suppress(RanDry):  # as after a replay server has come back empty
                return self._crop(sources, drawn, rng), drawn

    def _present(self, sources: TaskSources, source: str) -> str:
        """While a task's table of own windows is empty, its share goes to its demonstrations, and the reverse."""
        streams, own = sources.streams, sources.own
        # Where a task has nothing yet, its demonstrations are waited for: they come first.
        order = [source, own, DEMONSTRATIONS] if source == BEST else [source, DEMONSTRATIONS, own]
        present = [other for other in order if other in streams and streams[other].available()]
        return present[0] if present else next(other for other in (DEMONSTRATIONS, own) if other in streams)

    def _crop(self, sources: TaskSources, source: str, rng: np.random.Generator) -> Crop:
        """A crop of the task's context, or one of half of it behind a prompt."""
        steps = sources.task.context_steps
        if self._varied_lengths and not sources.task.return_horizon:
            steps = int(rng.integers(max(2, steps // 2), steps + 1)) if steps > 1 else 1  # 1: episodes of one step
        window = self._window(sources, source)
        if source in (ONLINE, BEST):
            # A short episode has more windows a step than a long one: those cut by its beginning and its end.
            for _ in range(LENGTH_TRIES):
                if rng.random() * steps < window.length:
                    break
                window = self._window(sources, source)
        if steps < 2 or rng.random() >= self._config.prompt_share:
            return random_crop(window, steps, rng)
        prompt = self._prompt(sources, source, steps // 2, rng)
        return dataclasses.replace(random_crop(window, steps - prompt.length, rng), prompt=prompt)

    def _prompt(self, sources: TaskSources, source: str, steps: int, rng: np.random.Generator) -> Crop:
        """Steps of another window of the same source; of demonstrations, as often as not the last of an episode."""
        ends = sources.streams.get(ENDS)
        if source == DEMONSTRATIONS and ends is not None and rng.random() < 0.5 and ends.available():
            for _ in range(END_TRIES):
                window = ends.get(min(1.0, self._config.data_deadline))
                if window is None:
                    break
                if window.metadata.source == DEMONSTRATIONS:
                    return last_crop(window, steps)
        return random_crop(self._window(sources, source), steps, rng)

    def _window(self, sources: TaskSources, source: str) -> Window:
        deadline = time.monotonic() + self._config.data_deadline
        while not self._stop.is_set():
            window = sources.streams[source].get(min(1.0, self._config.data_deadline))
            if window is not None:
                return window
            if self._present(sources, source) != source:
                raise RanDry(f"{source}/{sources.task.name}")
            if time.monotonic() > deadline:
                raise NoData(
                    f"{source}/{sources.task.name} gave no window within {self._config.data_deadline:.0f} s; "
                    "are its actors or replayers alive, and does its demonstration set hold episodes?"
                )
        raise NoData("stopped")


def origin(task: str, source: str, crop: Crop) -> Origin:
    """Origin of one crop."""
    if source == DEMONSTRATIONS:
        return Origin(task, source, None, 0.0)
    versions = crop.window.policy_version[crop.start : crop.stop]
    return Origin(task, source, float(versions.mean()), crop.window.metadata.published_at)
