"""How the server's process starts, and where it does not."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.server import ServerHandle, _write_order, start_replay_server
from replay.server_process import ServerOrder, check_listens_on
from replay.table_info import poll
from replay.tables import table_configs


def test_nothing_is_imported_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: Callable[..., TaskSpec]
) -> None:
    foreign = tmp_path / "foreign"
    for name in ("json", "numpy", "replay", "reverb", "agent"):
        (foreign / name).mkdir(parents=True)
        (foreign / name / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(foreign)
    with start_replay_server([task("x")], ReplayConfig()) as server:
        assert poll(server.address)
    assert not (tmp_path / "ran").exists()


def test_a_process_that_does_not_read_its_order_is_given_up_in_time(task: Callable[..., TaskSpec]) -> None:
    """A pipe holds 64 KiB, and the order of many tasks is longer."""
    order = ServerOrder(table_configs([task(str(number)) for number in range(60)], ReplayConfig()), "127.0.0.1", 1)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE) as process:
        begin = time.monotonic()
        with pytest.raises(TimeoutError, match=r"it did not read its order within replay\.start_deadline"):
            _write_order(process, order.dumps().encode(), begin + 1.0)
        assert 1.0 <= time.monotonic() - begin < 10
        process.kill()


def test_a_process_that_even_a_kill_does_not_end_in_time_is_left_to_the_system() -> None:
    class Stubborn(subprocess.Popen[bytes]):
        def wait(self, timeout: float | None = None) -> int:
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)

    process = Stubborn([sys.executable, "-c", "import time; time.sleep(60)"], stdin=subprocess.PIPE)
    ServerHandle(process, "127.0.0.1:1", 0, None).stop(0.1)
    assert process.stdin is not None and process.stdin.closed
    assert psutil.wait_procs([psutil.Process(process.pid)], timeout=10)[0]


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("127.0.0.1", None),
        ("0.0.0.0", r"listens on \['0\.0\.0\.0'\] rather than on 127\.0\.0\.1 alone.*replay\.allow_public=true"),
        (None, r"does not name port \d+, so it is not known whether Reverb listens on 127\.0\.0\.1 alone; is /proc"),
    ],
)
def test_the_kernel_has_to_say_that_only_the_address_is_listened_on(host: str | None, message: str | None) -> None:
    with socket.socket() as listener:
        listener.bind((host or "127.0.0.1", 0))
        if host:
            listener.listen()
        with pytest.raises(OSError, match=message) if message else contextlib.nullcontext():
            check_listens_on("127.0.0.1", listener.getsockname()[1])
