"""`start_replay_server`: start the server's process, wait until it is ready, and stop it again, all with deadlines."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.listen_address import port_is_free
from replay.server_process import ServerOrder
from replay.tables import table_configs


class ReplayServerError(RuntimeError):
    """The replay server did not start, or does not answer; the message says what to do."""


class ServerHandle:
    """A running replay server.

    Attributes:
        address: ``host:port`` for clients.
        pid: of its process.
        generation: how often it was started in this run, as told by the caller.
        restored: True where its tables began with the contents that were asked for.
        log: file with what the server's process printed, if one was asked for.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, generation: int, log: Path | None) -> None:
        self._process = process
        self.address = address
        self.pid = process.pid
        self.generation = generation
        self.restored = False
        self.log = log

    @property
    def port(self) -> int:
        """Port of `address`."""
        return int(self.address.rsplit(":", 1)[1])

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once, whatever it is doing."""
        self._process.kill()
        self.stop()

    def stop(self, deadline: float = 5.0) -> None:
        """End the process: by SIGTERM, and by SIGKILL where that does not do within ``deadline`` seconds.

        One that the kernel does not let go of in as many seconds more, since it waits for a disk, is left to it.
        """
        if self.alive():
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(deadline)
            except subprocess.TimeoutExpired:
                self._process.kill()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(deadline)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def __enter__(self) -> ServerHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def start_replay_server(
    tasks: Sequence[TaskSpec],
    config: ReplayConfig,
    *,
    scratch: Path | None = None,
    restore: Path | None = None,
    generation: int = 0,
    log: Path | None = None,
) -> ServerHandle:
    """Start a server with the tables of ``tasks`` and wait until it answers.

    Args:
        tasks: of the run.
        config: of replay. Where a server died, start the next with ``port`` set to that of the old handle: writers and
            samplers then go on by themselves.
        scratch: folder for `replay.contents.ContentsSaver`, which is emptied; without one nothing can be saved or
            restored.
        restore: folder of contents to begin with, if they are of the very same tables; see `ServerHandle.restored`.
        generation: kept in the handle.
        log: file for what the process prints; where None, that is shown only if it does not start.

    Raises:
        ValueError: too many tables, see `table_configs`; the host is an address of another machine.
        ReplayServerError: the port is in use (before anything starts), or the server is not ready within
            ``config.start_deadline`` seconds.
    """
    tables = table_configs(tasks, config)
    if not port_is_free(config.host, config.port):
        raise ReplayServerError(
            f"replay.port={config.port} on {config.host} is in use; stop what listens there, "
            "or set replay.port=0 to take a free one"
        )
    deadline = time.monotonic() + config.start_deadline
    while True:
        port = config.port or _free_port(config.host)
        order = ServerOrder(tables, config.host, port, _text(scratch), _text(restore), config.loader)
        try:
            return _start(order, deadline, generation, log)
        except ReplayServerError:
            # A free port may be taken by another process before the server gets to it.
            if config.port or port_is_free(config.host, port) or time.monotonic() > deadline:
                raise


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _free_port(host: str) -> int:
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _start(order: ServerOrder, deadline: float, generation: int, log: Path | None) -> ServerHandle:
    root = str(Path(__file__).resolve().parent.parent)
    path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    with log.open("a+b") if log else tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "replay.server_process"],  # -P: nothing is imported from the current folder
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env={**os.environ, "PYTHONPATH": path},
        )
        host = socket.gethostname() if order.host == "0.0.0.0" else order.host
        server = ServerHandle(process, f"{host}:{order.port}", generation, log)
        try:
            _write_order(process, order.dumps().encode() + b"\n", deadline)
            answer = _read_answer(process, deadline)
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            server.stop(1.0)
            output.seek(0)
            last_words = b"\n".join(output.read().splitlines()[-10:]).decode(errors="replace")
            raise ReplayServerError(f"the replay server did not get ready: {error}\n{last_words}") from error
        except BaseException:
            server.stop(1.0)
            raise
    if "error" in answer:
        server.stop(1.0)
        raise ReplayServerError(f"the replay server did not start: {answer['error']}")
    server.restored = bool(answer["restored"])
    return server


def _write_order(process: subprocess.Popen[bytes], order: bytes, deadline: float) -> None:
    """Write to the server's stdin; TimeoutError where it does not read in time what a pipe does not hold."""
    assert process.stdin is not None
    while order:
        _, ready, _ = select.select([], [process.stdin], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError("it did not read its order within replay.start_deadline")
        # So many bytes never wait where a pipe is ready.
        order = order[os.write(process.stdin.fileno(), order[: select.PIPE_BUF]) :]


def _read_answer(process: subprocess.Popen[bytes], deadline: float) -> dict[str, object]:
    """The one line that the server writes; TimeoutError or ValueError where there is none."""
    assert process.stdout is not None
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise TimeoutError("it said nothing within replay.start_deadline")
        piece = os.read(process.stdout.fileno(), 65536)
        if not piece:
            raise ValueError(f"it ended with exit code {process.wait(5)}")
        line += piece
    answer: dict[str, object] = json.loads(line)
    return answer
