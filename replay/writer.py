"""`EpisodeWriter`: cuts episodes into windows and writes them to the tables they belong to."""

from __future__ import annotations

import collections
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.item_stream import Cell, ItemStream
from replay.step_buffer import StepBuffer
from replay.tables import metadata_bytes, table_for
from replay.whole_episode import episode_columns
from replay.window import OBSERVATION_PREFIX, WindowMetadata, column_length


@dataclasses.dataclass
class _StoredWindow:
    """A window whose steps [start, stop) are stored, and what is needed to make items of it."""

    start: int
    stop: int
    cells: dict[str, Cell]


@dataclasses.dataclass(frozen=True)
class _End:
    """How an episode ended, and its return."""

    terminated: bool
    success: bool | None
    whole: float


def window_spans(steps: int, phase: int, length: int, stride: int) -> Iterator[tuple[int, int]]:
    """[start, stop) of each window of an episode: starts at ``phase`` modulo ``stride``, clipped to the episode.

    Windows begin before the episode and run past its end, so that every step is in ``length / stride`` of them.
    """
    for start in range(phase - length, steps, stride):
        if start + length > 0:
            yield max(0, start), min(steps, start + length)


class EpisodeWriter:
    """Writes the episodes of one environment slot (or of a demonstration set, one episode at a time).

    A window goes out `TaskSpec.return_horizon` steps after its last step or when its episode ends. An episode that
    ``is_good`` or ``is_best`` says yes to is written once more, into the ``good`` or the ``best`` table, when it ends.
    Until then its windows wait here, compressed (`ReplayConfig.keep_alive_windows`), in a stream of their own: a stream
    that kept an episode's chunks while it sends would cost the server milliseconds a window (see `ItemStream`).

    Attributes:
        windows_written, good_windows_written, best_windows_written: windows made so far in the source's own table, in
            ``good`` and in ``best``.
        episodes_written, good_episodes: episodes ended.
        steps_written: steps of all episodes.
    """

    def __init__(
        self,
        address: str,
        task: TaskSpec,
        source: str,
        config: ReplayConfig,
        *,
        is_good: Callable[[float], bool] | None = None,
        is_best: Callable[[float], bool] | None = None,
        metadata: Mapping[str, Any] | None = None,
        seed: int = 0,
        stop: threading.Event | None = None,
    ) -> None:
        """Connect; fails within ``config.write_deadline`` seconds where there is no server or no such table.

        Args:
            address: ``host:port`` of the replay server.
            task: whose windows these are.
            source: ``online`` or ``demonstrations``.
            config: of replay.
            is_good, is_best: given an episode's undiscounted return, whether its windows go into ``good`` and
                ``best`` too; each is asked once for every episode.
            metadata: fields of `WindowMetadata` that hold for all windows (actor_id, incarnation, expert, ...).
            seed: of the random phases.
            stop: when set, nothing waits any more.
        """
        if source not in ("online", "demonstrations"):
            raise ValueError(f"an EpisodeWriter writes online or demonstrations, not {source!r}")
        self.task = task
        self.windows_written = self.good_windows_written = self.best_windows_written = 0
        self.episodes_written = self.good_episodes = self.steps_written = 0
        self._config = config
        self._source = source
        self._is_good, self._is_best = is_good, is_best
        self._fields: dict[str, Any] = dict(metadata or {})
        self._random = np.random.default_rng(seed)
        self._metadata_bytes = metadata_bytes(task)
        self._tables = {name: table_for(task.name, name) for name in (source, "good", "best", "ends")}
        used = [self._tables[name] for name in ([source, "ends"] if config.ends else [source])]
        self._length, self._stride = config.span(task)
        waiting = (task.return_horizon + self._length) // self._stride + 3
        self._stream = ItemStream(address, config, used, waiting, stop)
        self._kept: collections.deque[_StoredWindow] = collections.deque(maxlen=self._windows_to_keep())
        chosen = [self._tables[name] for name, asked in (("good", is_good), ("best", is_best)) if asked]
        self._chosen_stream = ItemStream(address, config, chosen, self._windows_to_keep(), stop) if chosen else None
        self._buffer = StepBuffer(task, 4 * self._length)
        self._open = False

    @property
    def blocked_seconds(self) -> float:
        """Seconds spent waiting for the server or for a limited table."""
        return self._stream.blocked_seconds + (self._chosen_stream.blocked_seconds if self._chosen_stream else 0.0)

    def ready(self, timeout: float = 0.0) -> bool:
        """Whether nearly all windows so far were taken, so that another episode may start; waits ``timeout`` s."""
        return self._stream.settle(min(4, self._config.pending_windows), timeout)

    def settle(self, timeout: float) -> bool:
        """Whether all windows so far were taken, those in ``good`` and ``best`` too; waits ``timeout`` seconds."""
        streams = [stream for stream in (self._stream, self._chosen_stream) if stream is not None]
        return all(stream.settle(0, timeout) for stream in streams)

    def begin(
        self,
        observation: Mapping[str, Any],
        texts: Mapping[str, str] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Begin an episode. An episode that is under way is forgotten, except for windows that went out already.

        Args:
            observation: first observation, by key, [*shape]; texts in it are ignored.
            texts: value of each text observation.
            metadata: fields of `WindowMetadata` for this episode, at least ``episode_id``.
        """
        self._start_episode(texts, metadata)
        self._buffer.begin(observation)
        self._rewards: list[float] = []
        self._open = True

    def step(
        self,
        action: np.ndarray,
        reward: float,
        terminated: bool,
        truncated: bool,
        next_observation: Mapping[str, Any],
        *,
        label: np.ndarray | None = None,
        label_mask: bool = True,
        policy_version: int = -1,
        log_prob: np.ndarray | None = None,
        return_asked: np.ndarray | None = None,
        published_at: float = 0.0,
        prompt_episode_id: str | None = None,
        success: bool | None = None,
    ) -> None:
        """Add one step; `terminated` or `truncated` ends the episode and writes the rest of it.

        Args:
            action: executed, [*action shape], in the dtype of the spec.
            reward: raw.
            terminated, truncated: of this step.
            next_observation: what followed, also at the end.
            label: action to imitate; None for ``action``.
            label_mask: whether the label may be learned from.
            policy_version: that chose the action.
            log_prob: float32 [action tokens]; None for NaN.
            return_asked: float32 [3], see `Window`; None for zeros.
            published_at: when that policy version was published, seconds since the epoch.
            prompt_episode_id: of the episode that the policy had read before this one.
            success: the environment's own word, at the last step.

        Raises:
            ValueError: a shape or dtype is not the task's, naming the column and the step.
            ReplayUnavailable: no window was taken for ``config.write_deadline`` seconds.
        """
        if not self._open:
            raise RuntimeError(f"{self.task.name}: step() before begin()")
        self._rewards.append(float(reward))
        self._buffer.step(
            next_observation,
            {
                "action": action,
                "label": action if label is None else label,
                "label_mask": label_mask,
                "reward": reward,
                "terminated": terminated,
                "truncated": truncated,
                "policy_version": policy_version,
                "log_prob": np.nan if log_prob is None else log_prob,
                "return_asked": 0.0 if return_asked is None else return_asked,
            },
        )
        self._episode["published_at"] = max(self._episode.get("published_at", 0.0), published_at)
        self._episode["prompt_episode_id"] = prompt_episode_id
        steps = self._buffer.steps
        length, stride = self._length, self._stride
        over = terminated or truncated
        if (steps - length - self._phase) % stride == 0 or over:
            first = steps - length  # the window that would just end here, or the first of those cut by the end
            first += (self._phase - first) % stride
            for start in range(first, steps if over else first + 1, stride):
                self._close(max(0, start), steps, self._buffer.rows)
        if over:
            self._open = False
            rewards = np.asarray(self._rewards, np.float32)
            self._finish(rewards, _End(terminated, success, float(rewards.sum(dtype=np.float64))))
        else:
            while self._waiting and self._waiting[0].stop + self.task.return_horizon <= steps:
                self._emit(self._waiting.popleft(), self._rewards)

    def write_episode(
        self,
        *,
        observation: Mapping[str, np.ndarray],
        action: np.ndarray,
        reward: np.ndarray,
        terminated: bool,
        truncated: bool,
        texts: Mapping[str, str] | None = None,
        label: np.ndarray | None = None,
        label_mask: np.ndarray | None = None,
        policy_version: np.ndarray | None = None,
        log_prob: np.ndarray | None = None,
        success: bool | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """Write one whole episode of T steps, much faster than step by step.

        Args:
            observation: by key, [T + 1, *shape], dtypes as in the task's spec.
            action, label: [T, *action shape]; label None for ``action``.
            reward: float32 [T], raw.
            terminated, truncated: of the last step.
            texts, success, metadata: as in `begin` and `step`.
            label_mask: bool [T]; None for all True.
            policy_version: int64 [T]; None for -1.
            log_prob: float32 [T, action tokens]; None for NaN.

        Raises:
            ValueError, ReplayUnavailable: as `step`.
        """
        columns = episode_columns(
            self.task,
            observation,
            {
                "action": action,
                "label": action if label is None else label,
                "label_mask": label_mask,
                "reward": reward,
                "policy_version": policy_version,
                "log_prob": log_prob,
            },
            terminated,
            truncated,
        )
        steps = len(reward)

        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            return {
                name: column[start : stop + name.startswith(OBSERVATION_PREFIX)]
                for name, column in columns.items()
                if name != "reward"
            }

        self._start_episode(texts, metadata)
        self._open = False
        end = _End(terminated, success, float(columns["reward"].sum(dtype=np.float64)))
        for start, stop in window_spans(steps, self._phase, self._length, self._stride):
            self._close(start, stop, rows)
            if stop < steps:  # what ends with the episode is written by `_finish`, which knows the last window
                self._emit(self._waiting.popleft(), columns["reward"], end)
        self._finish(columns["reward"], end)

    def close(self, deadline: float = 10.0) -> bool:
        """Wait until all windows were taken, and end; False where some were dropped after ``deadline`` seconds."""
        end = time.monotonic() + deadline
        kept = self._stream.close(deadline)
        return (self._chosen_stream is None or self._chosen_stream.close(max(0.0, end - time.monotonic()))) and kept

    def _windows_to_keep(self) -> int:
        """How many windows of an episode can become good: all, where the longest episode is known and fits."""
        longest = self.task.max_episode_steps
        whole = (longest + self._length) // self._stride + 2
        return min(whole, self._config.keep_alive_windows) if longest else self._config.keep_alive_windows

    def _start_episode(self, texts: Mapping[str, str] | None, metadata: Mapping[str, Any] | None) -> None:
        self._phase = int(self._random.integers(self._stride))
        self._episode: dict[str, Any] = {
            "episode_id": "",
            "texts": dict(texts or {}),
            **self._fields,
            **(metadata or {}),
        }
        self._waiting: collections.deque[_StoredWindow] = collections.deque()
        if self._kept:  # of an episode that was given up
            self._forget_kept()

    def _close(self, start: int, stop: int, rows: Callable[[int, int], dict[str, np.ndarray]]) -> None:
        """Store the steps of a window; its items are made later, when its tail is known."""
        columns = {name: self._filled(name, values) for name, values in rows(start, stop).items()}
        self._waiting.append(_StoredWindow(start, stop, self._stream.store(columns)))
        if self._chosen_stream is not None:
            self._kept.append(_StoredWindow(start, stop, self._chosen_stream.store(columns)))

    def _filled(self, name: str, values: np.ndarray) -> np.ndarray:
        """A column with zeros behind it, as long as those of the longest window: Reverb's columns have one shape."""
        filled = np.zeros(
            (column_length(name, self._length, self.task.return_horizon), *values.shape[1:]), values.dtype
        )
        filled[: len(values)] = values
        return filled

    def _complete(self, stream: ItemStream, window: _StoredWindow, rewards: Any, end: _End | None) -> dict[str, Cell]:
        """All cells of a window, its rewards and metadata stored too. ``rewards`` are those of the episode so far,
        which is over where there is an ``end``."""
        tail = min(window.stop + self.task.return_horizon, len(rewards)) - window.stop
        reward = np.asarray(rewards[window.start : window.stop + tail], np.float32)
        over = end is not None and end.terminated and window.stop + tail == len(rewards)
        metadata = self._metadata(window, tail, tail > 0 and bool(over), end)
        return {**window.cells, **stream.store({"reward": self._filled("reward", reward), "metadata": metadata})}

    def _emit(self, window: _StoredWindow, rewards: Any, end: _End | None = None) -> dict[str, Cell]:
        """Make the item of the source's own table, and return its cells."""
        cells = self._complete(self._stream, window, rewards, end)
        self._stream.add(self._tables[self._source], cells)
        self.windows_written += 1
        return cells

    def _forget_kept(self) -> None:
        self._kept.clear()
        if self._chosen_stream is not None:
            self._chosen_stream.forget()

    def _finish(self, rewards: np.ndarray, end: _End) -> None:
        """Write what waits for the end of the episode, then ``ends`` and ``good``."""
        last: dict[str, Cell] | None = None  # the longest of those that the end cuts is the first of them
        while self._waiting:
            window = self._waiting.popleft()
            cells = self._emit(window, rewards, end)
            if window.stop == len(rewards) and last is None:
                last = cells
        if self._config.ends and last is not None:
            self._stream.add(self._tables["ends"], last)
        if self._chosen_stream is not None:
            good = self._is_good is not None and self._is_good(end.whole)
            best = self._is_best is not None and self._is_best(end.whole)
            for window in self._kept if good or best else ():
                cells = self._complete(self._chosen_stream, window, rewards, end)
                if good:
                    self._chosen_stream.add(self._tables["good"], cells)
                if best:
                    self._chosen_stream.add(self._tables["best"], cells, priority=end.whole)
            self.good_windows_written += good * len(self._kept)
            self.best_windows_written += best * len(self._kept)
            self.good_episodes += good
            self._forget_kept()
        self.episodes_written += 1
        self.steps_written += len(rewards)

    def _metadata(self, window: _StoredWindow, tail: int, tail_terminated: bool, end: _End | None) -> np.ndarray:
        """Uint8 [metadata bytes]: the JSON, padded with spaces, which JSON ignores."""
        data = WindowMetadata(
            task=self.task.name,
            source=self._source,
            start_step=window.start,
            steps=window.stop - window.start,
            episode_return=None if end is None else end.whole,
            success=None if end is None else end.success,
            tail_steps=tail,
            tail_terminated=tail_terminated,
            **self._episode,
        ).encode()
        if len(data) > self._metadata_bytes:
            raise ValueError(
                f"{self.task.name}: metadata of an episode takes {len(data)} bytes of at most {self._metadata_bytes}; "
                "a text is longer than its spec's max_bytes, or an id is very long"
            )
        padded = np.full(self._metadata_bytes, ord(" "), np.uint8)
        padded[: len(data)] = data
        return padded
