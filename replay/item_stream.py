"""`ItemStream`: one stream of windows into the replay server, with deadlines on everything that can wait.

A window's column is stored as one Reverb cell of shape [rows, ...], a chunk of its own, rather than as one cell for
each step. Overlapping windows then share no chunks, which takes about twice the memory at a stride of half a window;
but a step costs the writer a third to the whole of the CPU time, and a window costs the reader half, since no chunk is
unpacked for the sake of a part of it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from replay import reverb_client
from replay.config import ReplayConfig
from replay.table_info import ReplayUnavailable, poll_client
from replay.waiting import Waiting

_SLICE_MS = 500  # a wait looks at its stop flag this often

Cell = Any
"""Reverb's weak reference to a stored cell."""


class UnknownTable(LookupError):
    """The server has no such table."""


class ItemStream:
    """Stores cells and makes items of them.

    Attributes:
        blocked_seconds: seconds spent waiting for the server or for a limited table.
    """

    def __init__(
        self,
        address: str,
        config: ReplayConfig,
        tables: Sequence[str],
        keep_alive: int,
        stop: threading.Event | None = None,
    ) -> None:
        """Args:

            address: ``host:port`` of the server.
            config: of replay.
            tables: names of the tables that will be written.
            keep_alive: how many cells of a column stay usable for new items. Each item's message names them all, and
                the server pays for that: about 2 ms an item at 200 windows of 15 columns, so keep it small.
            stop: when set, waits end at once.

        Raises:
            ReplayUnavailable: no answer within ``config.write_deadline`` seconds.
            UnknownTable: naming the tables that there are.
        """
        self.address = address
        self.blocked_seconds = 0.0
        self._deadline = config.write_deadline
        self._pending_windows = config.pending_windows
        self._tables = list(tables)
        self._stop = stop or threading.Event()
        self._waiting = Waiting(f"replay server {address} to take windows for {', '.join(tables)}")
        self._reverb = reverb_client.load(config.loader)
        self._client = self._reverb.Client(address)
        with self._waiting:
            self._check_tables()
        options = self._reverb.ConstantChunkerOptions(1, keep_alive)
        # Validating items would fetch signatures without a deadline; the writer checks shapes and dtypes itself.
        self._writer = self._client.NewTrajectoryWriter(options, False)
        self._columns: dict[str, int] = {}
        self._sending = False

    def store(self, cells: Mapping[str, np.ndarray]) -> dict[str, Cell]:
        """Store one cell for each column; arrays may be reused afterwards.

        The first item fixes which columns there are: Reverb's sending thread walks over them without a lock, and one
        more among them would crash the process. A column's shape is fixed by its first cell.
        """
        for name in cells:
            if name not in self._columns:
                if self._sending:
                    raise ValueError(f"{', '.join(self._tables)}: column {name!r} is new after the first item")
                self._columns[name] = len(self._columns)
        row: list[np.ndarray | None] = [None] * len(self._columns)
        for name, array in cells.items():
            row[self._columns[name]] = array
        references = self._writer.Append(row)
        return {name: references[self._columns[name]] for name in cells}

    def add(self, table: str, cells: Mapping[str, Cell], priority: float = 1.0) -> None:
        """Make an item of stored cells, columns in sorted order; waits while too many items are unconfirmed."""
        self._sending = True
        columns = [[cells[name]] for name in sorted(cells)]
        self._writer.CreateItem(table, priority, columns, [True] * len(columns))
        self.settle(self._pending_windows, self._deadline, required=True)

    def settle(self, pending: int, timeout: float, *, required: bool = False, stoppable: bool = True) -> bool:
        """Wait until at most ``pending`` items are unconfirmed.

        Returns False after ``timeout`` seconds or, where ``stoppable``, when told to stop; where ``required``, the
        timeout raises ReplayUnavailable instead. Unconfirmed items are kept and sent again over a new connection when
        the server comes back at its address.
        """
        begin = time.monotonic()
        try:
            with self._waiting:
                while True:
                    stopped = stoppable and self._stop.is_set()
                    left = 0.0 if stopped else timeout - (time.monotonic() - begin)
                    try:
                        self._writer.Flush(pending, max(1, min(_SLICE_MS, int(left * 1000))))
                        return True
                    except RuntimeError as error:
                        if "Timeout exceeded" not in str(error):
                            raise ReplayUnavailable(
                                f"replay server {self.address} refused windows for {', '.join(self._tables)}: {error}"
                            ) from error
                    if stopped:
                        return False
                    if left <= 0:
                        if required:
                            raise ReplayUnavailable(self._why_blocked(timeout))
                        self._waiting.in_vain()
                        return False
        finally:
            self.blocked_seconds += time.monotonic() - begin

    def forget(self) -> None:
        """Let go of all stored cells; items made of them that are not confirmed yet keep theirs."""
        with contextlib.suppress(RuntimeError):  # at its timeout Reverb lets go all the same, and goes on sending
            self._writer.EndEpisode(True, 1)

    def close(self, deadline: float) -> bool:
        """Confirm what is unconfirmed, within ``deadline`` seconds, and end; False where windows were dropped."""
        try:
            settled = self.settle(0, deadline, stoppable=False)
        except ReplayUnavailable:
            settled = False
        self._writer.Close()
        return settled

    def _check_tables(self) -> None:
        begin = time.monotonic()
        while True:
            try:
                known = poll_client(self._client, self.address, 2.0)
                break
            except ReplayUnavailable:
                if time.monotonic() - begin > self._deadline or self._stop.wait(0.2):
                    raise
        for table in self._tables:
            if table not in known:
                names = ", ".join(sorted(known))
                raise UnknownTable(f"replay server {self.address} has no table {table}; it has {names}")

    def _why_blocked(self, timeout: float) -> str:
        """What to tell whoever waited in vain."""
        try:
            known = poll_client(self._client, self.address, 2.0)
        except ReplayUnavailable as error:
            return f"windows were not taken for {timeout:.0f} s (replay.write_deadline): {error}"
        full = [table for table in self._tables if table in known and known[table].inserts_wait]
        return (
            f"windows were not taken for {timeout:.0f} s (replay.write_deadline) by replay server {self.address}: "
            + (
                f"{', '.join(full)} waits to be sampled (replay.samples_per_insert)"
                if full
                else f"{', '.join(self._tables)} do not answer"
            )
        )
