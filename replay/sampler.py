"""`WindowSampler`: a thread that keeps decoded windows of one table ready."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import Any

import numpy as np

from agent.task import TaskSpec
from replay import reverb_client
from replay.config import ReplayConfig
from replay.native_thread import NativeThread
from replay.table_info import ReplayMonitor, TableInfo
from replay.tables import column_names, table_for
from replay.waiting import Waiting
from replay.window import OBSERVATION_PREFIX, Window, WindowMetadata, column_length


class SamplerError(RuntimeError):
    """The sampler's thread ended: the table does not exist, or holds what does not fit the task."""


class WindowSampler:
    """Draws windows uniformly from the table of a task and source, for ever.

    Reverb's own sampler has no deadline and cannot be closed, so it lives in a daemon thread and is opened only once
    the table holds something; `get` waits for that thread with a deadline. It survives a server that dies and comes
    back at the same address.

    Attributes:
        table: name of the table.
        windows: windows handed out.
    """

    def __init__(
        self, address: str, task: TaskSpec, source: str, config: ReplayConfig, monitor: ReplayMonitor | None = None
    ) -> None:
        """Start the thread; nothing waits here.

        Args:
            address: ``host:port`` of the replay server.
            task: of the table.
            source: of the table, see `replay.tables.SOURCES`.
            config: of replay.
            monitor: shared by all samplers of this process; None for one of its own.
        """
        self.table = table_for(task.name, source)
        self.windows = 0
        self._address = address
        self._config = config
        self._columns = column_names(task)
        self._task = task
        self._owns_monitor = monitor is None
        self._monitor = monitor or ReplayMonitor(address, config.poll_seconds, config.loader)
        self._queue: queue.Queue[Window] = queue.Queue(config.sampler_queue)
        self._error: Exception | None = None
        self._waiting = Waiting(f"replay server {address} to give windows of {self.table}")
        self._thread = NativeThread(self._run, f"sampler-{self.table}")

    def get(self, timeout: float) -> Window | None:
        """The next window; None after ``timeout`` seconds. SamplerError where none will ever come."""
        with self._waiting:
            try:
                window = self._queue.get(timeout=timeout) if timeout > 0 else self._queue.get_nowait()
            except queue.Empty:
                if self._error is not None:
                    raise SamplerError(f"{self.table} at {self._address}: {self._error}") from self._error
                self._waiting.in_vain()
                return None
        self.windows += 1
        return window

    def available(self) -> bool:
        """Whether a window is ready, or the table held some when last looked at."""
        return not self._queue.empty() or self.info().size > 0

    def info(self) -> TableInfo:
        """The table as last looked at, at most ``config.poll_seconds`` ago while the server answers."""
        return self._monitor.info().get(self.table, TableInfo(self.table))

    def close(self, timeout: float = 0.5) -> bool:
        """Stop, and wait up to ``timeout`` seconds for the thread; whether it ended.

        One that waits inside Reverb for an empty table stays there, without harm, until the process ends.
        """
        if self._owns_monitor:
            self._monitor.close()
        return self._thread.stop(timeout)

    def _run(self, stopping: threading.Event) -> None:
        try:
            while not self._monitor.wait_for(self.table, 1, self._config.poll_seconds):
                if stopping.is_set():
                    return
                known = self._monitor.info()
                if known and self.table not in known:
                    raise LookupError(f"the server has no such table; it has {', '.join(sorted(known))}")
            client = reverb_client.new_client(self._address, self._config.loader)
            sampler = client.NewSampler(self.table, -1, self._config.sampler_buffer)
            while not stopping.is_set():
                self._put(self._decode(sampler.GetNextTrajectory()), stopping)
        except Exception as error:
            self._error = error

    def _put(self, window: Window, stopping: threading.Event) -> None:
        while not stopping.is_set():
            with contextlib.suppress(queue.Full):
                return self._queue.put(window, timeout=0.2)

    def _decode(self, item: list[Any]) -> Window:
        """Reverb's flat item, five numbers about the item and then the columns in sorted order, as a `Window`."""
        columns: dict[str, np.ndarray] = dict(zip(self._columns, item[len(item) - len(self._columns) :]))
        metadata = WindowMetadata.decode(columns.pop("metadata"))
        for name, array in columns.items():
            columns[name] = array[: column_length(name, metadata.steps, metadata.tail_steps)]
        observation = {
            name.removeprefix(OBSERVATION_PREFIX): columns.pop(name)
            for name in self._columns
            if name.startswith(OBSERVATION_PREFIX)
        }
        return Window(observation=observation, metadata=metadata, **columns)
