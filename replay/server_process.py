"""The replay server: one Reverb server in an OS process of its own (``python -P -m replay.server_process``).

Its parent writes one line of JSON to its stdin, reads one line of JSON from its stdout when it is ready, and holds
stdin open for as long as the server shall live: the server ends at the end of that stream, when its parent is gone, or
at SIGTERM. (PR_SET_PDEATHSIG would be the kernel's own way, but it fires when the *thread* of the parent ends that
started the child.) SIGINT is ignored, since Ctrl-C reaches the whole process group and the coordinator stops its server
in order.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from replay import reverb_client
from replay.listen_address import listen_on, listening_addresses
from replay.signature import encode_signature
from replay.tables import TableConfig

_WATCH_SECONDS = 0.5
_ORPHAN_SECONDS = 10.0
"""That a server has to end in order once its parent is gone."""


@dataclasses.dataclass(frozen=True)
class ServerOrder:
    """What the parent asks for.

    Attributes:
        tables: to hold.
        host: IPv4 address to listen on.
        port: to listen on, not 0.
        scratch: where Reverb writes the contents of its tables when it is asked to; None where it never is. What is in
            it is removed.
        restore: folder of contents (`replay.contents`) to begin with, or None.
        loader: see `replay.reverb_client`.
    """

    tables: list[TableConfig]
    host: str
    port: int
    scratch: str | None = None
    restore: str | None = None
    loader: str = "auto"

    def dumps(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def loads(cls, text: str) -> ServerOrder:
        """Inverse of `dumps`."""
        data = json.loads(text)
        return cls(**{**data, "tables": [TableConfig.from_json(table) for table in data["tables"]]})


def _watch_parent(parent: int, stop: threading.Event) -> None:
    """Set ``stop`` when the parent is gone or stdin ends. Who is too busy to see it after the former is ended."""

    def read_to_end() -> None:
        while sys.stdin.readline():
            pass
        stop.set()

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_WATCH_SECONDS)
        stop.set()
        time.sleep(_ORPHAN_SECONDS)
        os._exit(1)

    threading.Thread(target=read_to_end, daemon=True).start()
    threading.Thread(target=look, daemon=True).start()


def _tables_digest(tables: list[TableConfig]) -> str:
    return hashlib.sha256(json.dumps([t.to_json() for t in tables], sort_keys=True).encode()).hexdigest()[:16]


def _checkpointer(reverb: Any, order: ServerOrder) -> tuple[Any, bool]:
    """The checkpointer, and whether there are contents that it will restore.

    Restored contents bring their own table settings and override the asked ones silently (reverb issue 103). So the
    folder that they are in is named by a digest of all settings: other settings begin with empty tables.
    """
    if order.scratch is None:
        return None, False
    digest = _tables_digest(order.tables)
    scratch = Path(order.scratch) / digest
    shutil.rmtree(scratch, ignore_errors=True)  # Reverb would restore what it finds there
    scratch.mkdir(parents=True)
    contents = Path(order.restore) / digest if order.restore else None
    found = contents is not None and (contents / "DONE").is_file()
    return reverb.create_default_checkpointer(str(scratch), "", str(contents) if found else None), found


def _serve(order: ServerOrder) -> tuple[Any, bool]:
    """Start the server; returns it and whether it began with contents."""
    reverb = reverb_client.load(order.loader)
    listen_on(reverb, order.host)
    tables = [
        reverb.Table(
            name=table.name,
            sampler=reverb.UniformSelector(),
            remover=reverb.HeapSelector(True) if table.highest_stay else reverb.FifoSelector(),
            max_size=table.capacity,
            max_times_sampled=0,
            rate_limiter=reverb.RateLimiter(*table.limits),
            extensions=[],
            signature=encode_signature(table.signature),
        )
        for table in order.tables
    ]
    checkpointer, restored = _checkpointer(reverb, order)
    try:
        server = reverb.Server(tables, order.port, checkpointer)
    except ValueError as error:  # all that Reverb says is "Failed to BuildAndStart gRPC server"
        raise OSError(f"replay.port={order.port} on {order.host} could not be listened on ({error})") from error
    try:
        check_listens_on(order.host, order.port)
    except OSError:
        server.Stop()
        raise
    return server, restored


def check_listens_on(host: str, port: int) -> None:
    """Raise OSError unless the kernel's own list says that ``host`` is the one address that is listened on at ``port``.

    A list that does not name the port at all says nothing of who gets in, so that is refused too.
    """
    found = listening_addresses(port)
    if not found:
        raise OSError(
            f"the kernel's list of listening sockets (/proc/self/net/tcp and tcp6) does not name port {port}, so it is "
            f"not known whether Reverb listens on {host} alone; is /proc mounted here, and readable?"
        )
    if found != {host}:
        raise OSError(
            f"Reverb listens on {sorted(found)} rather than on {host} alone; "
            "set replay.host=0.0.0.0 and replay.allow_public=true if every interface is meant"
        )


def main() -> None:
    """Entry point of the process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print to stdout must not mix with the answers
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    parent = os.getppid()
    order = ServerOrder.loads(sys.stdin.readline())
    _watch_parent(parent, stop)
    try:
        server, restored = _serve(order)
    except Exception as error:
        answers.write(json.dumps({"error": f"{type(error).__name__}: {error}"}) + "\n")
        answers.flush()
        os._exit(1)
    answers.write(json.dumps({"pid": os.getpid(), "restored": restored}) + "\n")
    answers.flush()
    while not stop.wait(_WATCH_SECONDS):
        pass
    # Stopping waits for streams of clients that may never end; nothing here is worth waiting long for.
    stopper = threading.Thread(target=server.Stop, daemon=True)
    stopper.start()
    stopper.join(2.0)
    os._exit(0)


if __name__ == "__main__":
    main()
