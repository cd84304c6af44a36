"""Real kills and real stalls, over real gRPC."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.contents import ContentsSaver
from replay.sampler import WindowSampler
from replay.server import ServerHandle, start_replay_server
from replay.table_info import ReplayMonitor, ReplayUnavailable, poll
from replay.tables import table_for
from replay.window import check_window
from replay.writer import EpisodeWriter

ROOT = Path(__file__).parents[2]


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until it took effect."""
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED, 10, "SIGSTOP had no effect")


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_a_limit_a_stall_a_kill_and_a_restart(
    tmp_path: Path, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("faults")
    # 20 windows more than have been sampled once may be inserted; then inserts wait.
    config = ReplayConfig(
        samples_per_insert=1.0, insert_slack=20, pending_windows=4, write_deadline=1.5, poll_seconds=0.2,
        sampler_buffer=2, sampler_queue=2,
    )  # fmt: skip
    online, good = table_for(spec.name, "online"), table_for(spec.name, "good")
    scratch, saved_to = tmp_path / "scratch", tmp_path / "saved"
    server = start_replay_server([spec], config, scratch=scratch)
    assert not server.restored
    try:
        # Inserts wait, with a deadline, and the message says for what.
        writer = EpisodeWriter(server.address, spec, "online", config, is_good=lambda _: True)
        with pytest.raises(ReplayUnavailable, match=r"online/test/faults waits to be sampled.*samples_per_insert"):
            for seed in range(20):
                writer.write_episode(**episode(spec, 30, seed))
        assert 1.0 < writer.blocked_seconds < 10.0
        assert poll(server.address)[online].size == 20
        assert poll(server.address)[online].inserts_wait
        assert not writer.ready(0.2)
        sampler = WindowSampler(server.address, spec, "online", config)
        for _ in range(15):
            assert sampler.get(10) is not None
        wait_until(lambda: writer.ready(0.2), 10, "sampling did not free the writer")

        # A checkpoint, then a stalled server: deadlines hold and the interpreter is free while they run.
        saved = ContentsSaver(server.address, scratch).save(saved_to, 30)[online].size
        assert saved == poll(server.address)[online].size
        freeze(server.pid)
        monitor = ReplayMonitor(server.address, 0.1)
        begin = time.monotonic()
        beats: list[float] = []
        done = threading.Event()
        beating = threading.Thread(
            target=lambda: [beats.append(time.monotonic()) for _ in iter(lambda: done.wait(0.01), True)]
        )
        beating.start()
        with pytest.raises(ReplayUnavailable):
            poll(server.address, 2.0)
        assert time.monotonic() - begin < 8.0
        done.set()
        beating.join()
        assert max(b - a for a, b in itertools.pairwise(beats)) < 1.0, "a call into Reverb held the GIL"
        while sampler.get(0.2) is not None:
            pass
        os.kill(server.pid, signal.SIGCONT)
        wait_until(lambda: bool(monitor.info()), 20, "no answer after SIGCONT")
        monitor.close()

        # Killed and restarted on the same port: same tables, and writer and sampler go on by themselves.
        os.kill(server.pid, signal.SIGKILL)
        wait_until(lambda: not server.alive(), 5, "the server survived SIGKILL")
        server.stop()
        config.port = server.port
        again = start_replay_server([spec], config, scratch=scratch, restore=saved_to, generation=1)
        server = again
        assert again.restored and again.generation == 1 and again.port == config.port
        assert poll(again.address)[online].size == saved
        before = writer.windows_written
        deadline = time.monotonic() + 40
        seen: set[str] = set()
        writer_done = False
        while time.monotonic() < deadline and not (writer_done and "e99" in seen):
            if not writer_done and writer.ready(0.2):
                writer.write_episode(**episode(spec, 12, 99))
                writer_done = True
            window = sampler.get(0.2)
            if window is not None:
                check_window(window, spec)
                seen.add(window.metadata.episode_id)
        assert writer_done and "e99" in seen
        assert writer.windows_written > before
        assert poll(again.address)[good].size > 0
        sampler.close()
        writer.close(5)

        # Other tables: the contents are left alone, since Reverb would bring the old settings back silently.
        again.stop()
        config.online_capacity = 50
        server = start_replay_server([spec], config, scratch=scratch, restore=saved_to)
        assert not server.restored
        assert poll(server.address)[online].capacity == 50 and poll(server.address)[online].size == 0
    finally:
        server.stop()


def test_a_set_stop_flag_ends_waits(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    stop = threading.Event()
    spec = task("errors")
    writer = EpisodeWriter(server.address, spec, "online", ReplayConfig(), stop=stop)
    freeze(server.pid)
    try:
        threading.Timer(0.5, stop.set).start()
        begin = time.monotonic()
        for seed in range(20):  # about 100 windows, of which 32 may be unconfirmed
            writer.write_episode(**episode(spec, 30, seed))
        assert time.monotonic() - begin < 20
        assert not writer.close(0.5)
        assert writer.blocked_seconds > 0.1
    finally:
        os.kill(server.pid, signal.SIGCONT)


PARENT = """
import sys, time
sys.path.insert(0, {folder!r})
from conftest import make_task
from replay.config import ReplayConfig
from replay.contents import ContentsSaver
from replay.server import start_replay_server
handle = start_replay_server([make_task("x")], ReplayConfig())
print(handle.pid, flush=True)
time.sleep(60)
"""


def test_the_server_dies_with_its_parent() -> None:
    code = PARENT.format(folder=str(Path(__file__).parent))
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    server = psutil.Process(int(parent.stdout.readline()))
    assert server.is_running()
    os.kill(server.pid, signal.SIGINT)  # Ctrl-C reaches the group; the server leaves stopping to its owner
    time.sleep(0.3)
    assert server.is_running()
    parent.kill()
    parent.wait(5)
    server.wait(10)
    assert not server.is_running()
