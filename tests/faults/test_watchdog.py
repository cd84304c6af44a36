"""Who waits for whom is named: in a process by `Waiting`, in logs by `Fleet`, for a replay server that is stopped."""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

from agent.task import ArraySpec, TaskSpec
from distributed.compose import compose
from distributed.deaths import FleetFailure
from distributed.fleet import Fleet
from distributed.member import Member
from distributed.plan import make_plan
from distributed.process_environment import set_process_environment
from distributed.processes import EnvironmentActorProcess, LearnerProcess, ParameterStoreProcess, spawn
from distributed.ray_cluster import leave, start_private
from replay import waiting
from replay.config import ReplayConfig
from replay.server import ServerHandle, start_replay_server
from replay.waiting import Waiting, waits
from replay.writer import EpisodeWriter


def freeze(pid: int) -> None:
    """SIGSTOP, and wait until it took effect."""
    os.kill(pid, signal.SIGSTOP)
    end = time.monotonic() + 10
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_wait_is_listed_while_it_lasts_in_slices_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAUSE_SECONDS", 0.2)
    place = Waiting("the sun to rise")
    listed = lambda: dict(waits()).get("the sun to rise")  # noqa: E731
    assert listed() is None
    with place:
        time.sleep(0.05)
        assert 0.05 <= listed() < 1
    assert listed() is None
    with place:
        pass
    for _ in range(4):  # a wait in slices, with other work between them
        with place:
            time.sleep(0.02)
            place.in_vain()
        time.sleep(0.02)
    assert 0.16 <= listed() < 1
    time.sleep(0.3)
    assert listed() is None  # given up
    with place:
        assert listed() < 0.1  # a new wait
    with pytest.raises(KeyError), place:
        raise KeyError
    assert listed() is None


def test_waits_of_all_threads_are_listed_the_longest_first() -> None:
    done = threading.Event()

    def wait(what: str) -> None:
        with Waiting(what):
            done.wait(10)

    threads = [threading.Thread(target=wait, args=(f"thread {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.02)
    found = [what for what, _ in waits() if what.startswith("thread")]
    done.set()
    for thread in threads:
        thread.join(10)
    assert found == ["thread 0", "thread 1", "thread 2"]
    assert not [what for what, _ in waits() if what.startswith("thread")]


@pytest.fixture
def server() -> Iterator[ServerHandle]:
    task = TaskSpec("test/line", {"x": ArraySpec("continuous", (1,))}, ArraySpec("discrete", (), num_values=2))
    handle = start_replay_server([task], ReplayConfig())
    yield handle
    os.kill(handle.pid, signal.SIGCONT)
    handle.stop()


def test_a_writer_before_a_stopped_server_is_named_and_closes_at_once(server: ServerHandle) -> None:
    task = TaskSpec("test/line", {"x": ArraySpec("continuous", (1,))}, ArraySpec("discrete", (), num_values=2))
    writer = EpisodeWriter(server.address, task, "online", ReplayConfig(pending_windows=8, write_deadline=60))
    freeze(server.pid)
    begin = time.monotonic()
    x = {"x": np.zeros((17, 1), np.float32)}
    for _ in range(3):  # about 9 windows: not so many that a write waits
        writer.write_episode(
            observation=x, action=np.zeros(16, np.int32), reward=np.zeros(16, np.float32), terminated=True,
            truncated=False, metadata={"episode_id": "e"},
        )  # fmt: skip
        if not writer.ready(0.5):
            break
    assert not writer.ready(0.5)
    ((what, seconds),) = [wait for wait in waits() if "test/line" in wait[0]]
    assert what == f"replay server {server.address} to take windows for online/test/line, ends/test/line"
    assert 0.9 < seconds < time.monotonic() - begin + 0.1
    begin = time.monotonic()
    assert not writer.close(0.3)
    assert time.monotonic() - begin < 3.0


SMALL = [
    "actors=[cartpole_v1]", "actors.cartpole_v1.demonstrations=null", "actors.cartpole_v1.online_share=1.0",
    "actors.cartpole_v1.value_range=[0,100]", "actors.cartpole_v1.envs_per_actor=2",
    "learner.objective=advantage_filtered", "agent.value_bins=11",
    "agent.width=32", "agent.layers=1", "agent.heads=2", "learner.windows_per_batch=4", "learner.min_replay_size=8",
    "cluster.report_seconds=0.3", "cluster.stall_deadline_seconds=8", "cluster.restarts=0", "cluster.pull_seconds=0.2",
    "cluster.publish_seconds=0.2",
]  # fmt: skip


def poll_until(condition: Callable[[], bool], fleet: Fleet, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        fleet.poll(0.2)
        assert time.monotonic() < end, [vars(member) for member in fleet.members]


@pytest.mark.long
@pytest.mark.timeout(150)
def test_processes_that_wait_for_a_stopped_replay_server_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A learner and an environment actor in Ray; their replay server is stopped for good."""
    config = compose(SMALL)
    plan = make_plan(config)
    set_process_environment()
    server = start_replay_server(plan.specs, config.replay)
    try:
        start_private(num_cpus=4, object_store_megabytes=80)
        store = spawn(ParameterStoreProcess, cpus=0.0, threads=1)
        fleet = Fleet(config.cluster, lambda member: None, lambda said: None, lambda member: False)
        learner = fleet.add(
            Member(
                "learner/0",
                start=lambda: spawn(LearnerProcess, plan, tmp_path, cpus=0.0),
                arguments=lambda: (server.address, store, {}),
                ask=lambda: ({},),
            )
        )
        actor = fleet.add(
            Member(
                "environment_actor/cartpole_v1-0",
                start=lambda: spawn(EnvironmentActorProcess, plan, "cartpole_v1", "cartpole_v1-0", 0, cpus=0.0),
                arguments=lambda: (server.address, store),
            )
        )
        fleet.run(fleet.members)
        poll_until(lambda: learner.report.get("learner_steps") and actor.report.get("phase") == "acting", fleet, 90)
        with caplog.at_level(logging.INFO):
            # A process that does not answer at all, for a while.
            freeze(actor.report["pid"])
            poll_until(lambda: actor.stuck, fleet, 30)
            os.kill(actor.report["pid"], signal.SIGCONT)
            poll_until(lambda: not actor.stuck, fleet, 30)
            for expected in (
                rf"^environment_actor/cartpole_v1-0: no progress for [4-7] s in phase acting: process "
                rf"{actor.report['pid']} has not answered for [3-7] s; then it waits for",
                r"^environment_actor/cartpole_v1-0 goes on$",
            ):
                assert any(re.search(expected, line) for line in caplog.messages), (expected, caplog.messages)
            caplog.clear()
            freeze(server.pid)
            stopped = time.monotonic()
            with pytest.raises(FleetFailure) as failure:
                poll_until(lambda: False, fleet, 60)
            assert time.monotonic() - stopped < 30
    finally:
        leave()
        os.kill(server.pid, signal.SIGCONT)
        server.stop()
    said = {record.getMessage() for record in caplog.records if record.levelno == logging.WARNING}
    where = re.escape(f"replay server {server.address}")
    for expected in (
        # The learner's windows are drawn ahead, so it works on for a moment.
        rf"^learner/0: no progress for [4-7] s in phase learning: it waits for {where} to give windows of "
        r"online/gymnasium/CartPole-v1, since [4-8] s",
        rf"^environment_actor/cartpole_v1-0: no progress for [4-7] s in phase acting: it waits for {where} to take "
        r"windows for online/gymnasium/CartPole-v1, ends/gymnasium/CartPole-v1, since [4-7] s$",
    ):
        assert any(re.search(expected, line) for line in said), "\n".join([expected, *sorted(said)])
    assert re.search(
        rf"learner/0 died .* no progress for [89] s in phase learning: it waits for {where} to give windows of "
        r"online/gymnasium/CartPole-v1, since [789] s",
        str(failure.value),
    ), str(failure.value)
