"""How full the tables are: `poll` asks once, `ReplayMonitor` keeps asking in a thread of its own."""

from __future__ import annotations

import dataclasses
import logging
import struct
import threading
import time
from typing import Any

from replay import reverb_client
from replay.native_thread import NativeThread

log = logging.getLogger(__name__)

_POLL_DEADLINE = 2.0
_AGAIN_SECONDS = 0.2


class ReplayUnavailable(ConnectionError):
    """The replay server did not answer within the deadline."""


@dataclasses.dataclass(frozen=True)
class TableInfo:
    """One table at one moment.

    Attributes:
        name: see `replay.tables.table_for`.
        size, capacity: windows it holds and may hold.
        inserts: windows ever inserted.
        samples: windows ever sampled, those that samplers fetched ahead included.
        samples_per_insert, min_diff, max_diff: settings of its limiter.
    """

    name: str
    size: int = 0
    capacity: int = 0
    inserts: int = 0
    samples: int = 0
    samples_per_insert: float = 0.0
    min_diff: float = 0.0
    max_diff: float = 0.0

    @property
    def inserts_wait(self) -> bool:
        """Whether the next insert would wait for samples."""
        return (self.inserts + 1) * self.samples_per_insert - self.samples > self.max_diff


ReplayInfo = dict[str, TableInfo]
"""By table name."""


def poll(address: str, deadline: float = 5.0, loader: str = "auto") -> ReplayInfo:
    """All tables of the server at ``address``; ReplayUnavailable where it does not answer within ``deadline`` s.

    The first call after a server died and came back at its address may find the old connection closed: it is tried
    again.
    """
    client, end = reverb_client.new_client(address, loader), time.monotonic() + deadline
    while True:
        try:
            return poll_client(client, address, max(1.0, end - time.monotonic()))
        except ReplayUnavailable:
            if time.monotonic() > end - _AGAIN_SECONDS:
                raise
            time.sleep(_AGAIN_SECONDS)


def poll_client(client: Any, address: str, deadline: float) -> ReplayInfo:
    """`poll` over an existing client, which saves a connection."""
    try:
        messages = client.ServerInfo(max(1, round(deadline)))  # whole seconds; 0 would wait for ever
    except RuntimeError as error:
        raise ReplayUnavailable(
            f"replay server {address} did not answer within {deadline:.0f} s ({str(error)[:200]}); is it running?"
        ) from error
    tables = [_table_info(message) for message in messages]
    return {table.name: table for table in tables}


class ReplayMonitor:
    """Looks at all tables of a server every ``poll_seconds``, in a daemon thread; readers never wait.

    Attributes:
        failures: looks in a row that got no answer, or none that can be read; 0 while all is well.
        why: what was wrong at the last of them.
    """

    def __init__(self, address: str, poll_seconds: float = 1.0, loader: str = "auto") -> None:
        self.address = address
        self.failures, self.why = 0, ""
        self._poll_seconds = poll_seconds
        self._loader = loader
        self._info: ReplayInfo = {}
        self._at = 0.0
        self._news = threading.Condition()
        self._closed = False
        self._thread = NativeThread(self._run, f"replay-monitor-{address}")

    def info(self) -> ReplayInfo:
        """Tables as of the last answer; empty before the first."""
        return self._info

    @property
    def age(self) -> float:
        """Seconds since the last answer."""
        return time.monotonic() - self._at

    def wait_for(self, table: str, windows: int, timeout: float) -> bool:
        """Wait until ``table`` holds that many windows; False after ``timeout`` seconds."""
        with self._news:
            self._news.wait_for(lambda: self._closed or self._size(table) >= windows, timeout)
            return self._size(table) >= windows

    def close(self) -> None:
        """Stop looking; a call under way ends by its own deadline."""
        self._thread.stopping.set()
        with self._news:
            self._closed = True
            self._news.notify_all()

    def _size(self, table: str) -> int:
        return self._info[table].size if table in self._info else 0

    def _run(self, stopping: threading.Event) -> None:
        client = None
        while not stopping.is_set():
            try:
                client = client or reverb_client.new_client(self.address, self._loader)
                info = poll_client(client, self.address, _POLL_DEADLINE)
                self.failures = 0
            except Exception as error:  # without this thread nobody would see that the server hangs
                self.why = str(error) if isinstance(error, ReplayUnavailable) else f"{type(error).__name__}: {error}"
                self.failures += 1
                if self.failures == 1 and not isinstance(error, ReplayUnavailable):
                    log.warning("the look at the replay server %s failed: %s", self.address, self.why)
            else:
                with self._news:
                    self._info, self._at = info, time.monotonic()
                    self._news.notify_all()
            stopping.wait(self._poll_seconds)


def _table_info(message: bytes) -> TableInfo:
    """Parse reverb's ``TableInfo`` message (reverb/cc/schema.proto), whose Python class would import TensorFlow."""
    table = message_fields(message)
    limiter = message_fields(table.get(5, b""))
    return TableInfo(
        name=table[8].decode(),
        size=table.get(7, 0),
        capacity=table.get(3, 0),
        inserts=message_fields(limiter.get(5, b"")).get(2, 0),
        samples=message_fields(limiter.get(6, b"")).get(2, 0),
        samples_per_insert=limiter.get(1, 0.0),
        min_diff=limiter.get(2, 0.0),
        max_diff=limiter.get(3, 0.0),
    )


def message_fields(message: bytes) -> dict[int, Any]:
    """Protocol-buffer wire format: the last value of each field number; varints, doubles and bytes as they are."""
    fields: dict[int, Any] = {}
    position = 0

    def varint() -> int:
        nonlocal position
        value = shift = 0
        while True:
            byte = message[position]
            position += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    while position < len(message):
        number, kind = divmod(varint(), 8)
        if kind == 0:
            fields[number] = varint()
        elif kind == 1:
            fields[number] = struct.unpack_from("<d", message, position)[0]
            position += 8
        elif kind == 2:
            length = varint()
            fields[number] = message[position : position + length]
            position += length
        elif kind == 5:
            fields[number] = struct.unpack_from("<f", message, position)[0]
            position += 4
        else:
            raise ValueError(f"wire type {kind} in a message of Reverb; dm-reverb=={reverb_client.REVERB_VERSION}?")
    return fields
