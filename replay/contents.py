"""Contents of all tables on disk: `save_contents` has Reverb write them and takes them out of its hands.

Reverb keeps its newest checkpoint only, in a folder of its own, and deletes the others. So each one is written into a
scratch folder and moved away when it is whole; a server that shall begin with it is told its place (`replay.server`).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import threading
import time
import zlib
from pathlib import Path

from replay import reverb_client
from replay.native_thread import NativeThread
from replay.table_info import ReplayInfo, TableInfo, message_fields

_LOOK_SECONDS = 0.05


class ContentsNotSaved(RuntimeError):
    """Reverb wrote no checkpoint, or not in time; the message says why."""


class ContentsSaver:
    """Saves the tables of one server, one save at a time.

    Args:
        address: ``host:port`` of the server.
        scratch: the folder that the server was started with, as this machine sees it; what is in it is removed.
        loader: see `replay.reverb_client`.
    """

    def __init__(self, address: str, scratch: Path, loader: str = "auto") -> None:
        self._address, self._scratch, self._loader = address, scratch, loader
        self._call: NativeThread | None = None

    def save(self, into: Path, deadline: float, give_up: threading.Event | None = None) -> ReplayInfo:
        """Write all tables to the folder ``into``, about a minute a gigabyte; returns what was written.

        Inserts and samples go on meanwhile. Each table is as it was when the call began; tables are copied one after
        another, so that windows which arrived in between are in some and not in others.

        Reverb's call cannot be bounded, so it runs in a thread of its own, which stays behind where ``deadline``
        seconds pass or ``give_up`` is set.

        Raises:
            ContentsNotSaved: the server is gone, its disk is full, the deadline passed, or a call that was given up
                still lasts. Nothing is left of what was written.
            OSError: the contents cannot be moved.
        """
        if self._call is not None and self._call.is_alive():
            raise ContentsNotSaved(f"replay server {self._address} is still busy with a save that was given up")
        self._tidy()
        written: list[str] = []
        errors: list[Exception] = []

        def call(_: threading.Event) -> None:
            try:
                written.append(reverb_client.new_client(self._address, self._loader).Checkpoint())
            except Exception as error:  # its kinds are those of absl::Status, of which IndexError is "disk full"
                errors.append(error)

        end = time.monotonic() + deadline
        self._call = NativeThread(call, f"save-contents-{self._address}")
        while self._call.is_alive() and time.monotonic() < end and not (give_up and give_up.is_set()):
            self._call.join(_LOOK_SECONDS)
        if self._call.is_alive():
            why = f"{deadline:.0f} s were not enough" if time.monotonic() >= end else "it was given up"
            raise ContentsNotSaved(f"contents of replay server {self._address} were not saved: {why}")
        if errors:
            self._tidy()
            raise ContentsNotSaved(f"replay server {self._address} could not save its contents: {errors[0]}")
        source = Path(written[0])
        if not source.is_dir():
            raise ContentsNotSaved(
                f"replay server {self._address} saved its contents to {source}, which is not to be seen from here; "
                "the run folder must be on a disk that all machines share"
            )
        contents = read_contents(source)
        into.mkdir(parents=True)
        os.replace(source, into / source.parent.name)
        return contents

    def _tidy(self) -> None:
        """Remove what saves that failed or were given up left behind."""
        for settings in self._scratch.glob("*"):
            for left in settings.glob("*"):
                with contextlib.suppress(OSError):
                    shutil.rmtree(left)


def read_contents(folder: Path) -> ReplayInfo:
    """Sizes and counts of the tables in a checkpoint of Reverb, from its ``tables.tfrecord``.

    That file is compressed TFRecords of ``PriorityTableCheckpoint`` (reverb/cc/checkpointing/checkpoint.proto).
    """
    data = zlib.decompress((folder / "tables.tfrecord").read_bytes())
    tables: ReplayInfo = {}
    position = 0
    while position < len(data):
        (length,) = struct.unpack_from("<Q", data, position)
        position += 8 + 4  # the length, and a checksum of it
        table = message_fields(data[position : position + length])
        position += length + 4
        limiter = message_fields(table.get(3, b""))
        inserts, deletes = limiter.get(7, 0), limiter.get(8, 0)
        name = table[1].decode()
        tables[name] = TableInfo(name, inserts - deletes, table.get(6, 0), inserts, limiter.get(6, 0))
    return tables
