"""Counts against Reverb's own: with actors that are killed and replaced, reports that repeat, servers that die."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from distributed.counters import COUNTED, Counters
from replay.config import ReplayConfig
from replay.contents import ContentsSaver
from replay.sampler import WindowSampler
from replay.server import ServerHandle, start_replay_server
from replay.table_info import TableInfo, poll
from replay.writer import EpisodeWriter
from tests.actors.countdown import TASK

REPOSITORY = Path(__file__).parents[2]
REPLAY = ReplayConfig(pending_windows=8, write_deadline=30.0, poll_seconds=0.1, sampler_buffer=2, sampler_queue=4)
SLOTS = 3
STEPS_A_REPORT = 10
MOST_WINDOWS_A_STEP = SLOTS * 3
"""An end cuts two windows, where they are 16 steps with a stride of 8, and may complete one."""

ACTOR = """
import json, signal, sys, threading
import numpy as np
from actors.config import ActorConfig
from actors.environment_actor import ActorIdentity, EnvironmentActor
from actors.environments.checked import CheckedEnvironment
from tests.actors.countdown import TASK, ConstantPolicy, Countdown
from tests.distributed.test_audit import REPLAY, SLOTS, STEPS_A_REPORT

address, incarnation, truth = sys.argv[1], int(sys.argv[2]), np.memmap(sys.argv[3], np.int64, "r+", shape=(3,))
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
config = ActorConfig(task=TASK.name, envs_per_actor=SLOTS)
actor = EnvironmentActor.connect(
    config, CheckedEnvironment(Countdown(SLOTS)), ConstantPolicy(SLOTS), ActorIdentity("a", incarnation), address,
    REPLAY, good_return=10.0,
)

def report():
    print(json.dumps(vars(actor.report()) | {"finished": []}), flush=True)

while not stop.is_set():
    for _ in range(STEPS_A_REPORT):
        actor.run(1)
        counts = vars(actor.report())
        truth[:] = counts["environment_steps"], counts["episodes"], counts["windows"]
    report()
assert actor.close(10.0)
report()
"""


def start(server: ServerHandle, incarnation: int, truth: Path) -> subprocess.Popen[str]:
    np.memmap(truth, np.int64, "w+", shape=(3,)).flush()
    words = [sys.executable, "-c", ACTOR, server.address, str(incarnation), str(truth)]
    return subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)


def online(server: ServerHandle) -> TableInfo:
    return poll(server.address)[f"online/{TASK.name}"]


def still(server: ServerHandle) -> int:
    """Inserts, once they stand still."""
    before, now = -1, online(server).inserts
    end = time.monotonic() + 20
    while now != before:
        assert time.monotonic() < end
        time.sleep(0.3)
        before, now = now, online(server).inserts
    return now


@pytest.mark.long
def test_counts_are_those_of_reverb_but_for_what_was_lost_or_in_flight(tmp_path: Path) -> None:
    generator, counters = random.Random(0), Counters()
    played = {"environment_steps": 0, "episodes": 0}
    windows_low = windows_high = 0
    with start_replay_server([TASK], REPLAY) as server:
        for number in range(6):
            incarnation = counters.begin(TASK.name, "a")
            assert incarnation == number
            truth, before = tmp_path / f"truth-{number}", online(server).inserts
            process = start(server, incarnation, truth)
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(3)]
            if number == 2:  # a server that stands still: writes are tried again
                os.kill(server.pid, signal.SIGSTOP)
                time.sleep(1.0)
                os.kill(server.pid, signal.SIGCONT)
            time.sleep(generator.uniform(0.0, 0.2))
            killed = number % 3 != 1
            process.send_signal(signal.SIGKILL if killed else signal.SIGTERM)
            lines += [line for line in process.communicate(timeout=30)[0].splitlines() if line]
            reports = [{name: each[name] for name in COUNTED} for each in map(json.loads, lines)]
            # Late, repeated and lost: all but the newest may be missing, in any order, any number of times.
            newest = reports[-1]
            for each in [*generator.choices(reports, k=len(reports)), newest, newest, reports[0]]:
                counters.update("a", incarnation, each)
            steps, episodes, windows = np.memmap(truth, np.int64, "r", shape=(3,)).tolist()
            for name, true in (("environment_steps", steps), ("episodes", episodes)):
                lost = true - newest[name]
                assert lost == 0 if not killed else 0 <= lost <= SLOTS * STEPS_A_REPORT, (name, number)
                played[name] += newest[name]
            inserted = still(server) - before
            in_flight, unreported = SLOTS * REPLAY.pending_windows, STEPS_A_REPORT * MOST_WINDOWS_A_STEP
            if killed:
                assert windows - in_flight <= inserted <= windows + MOST_WINDOWS_A_STEP, number
                windows_low += newest["windows"] - in_flight
                windows_high += newest["windows"] + unreported
            else:
                assert inserted == newest["windows"] == windows
                windows_low, windows_high = windows_low + inserted, windows_high + inserted
        totals = Counters.restore(json.loads(json.dumps(counters.state()))).totals()
        assert {name: totals[name] for name in played} == played
        assert windows_low <= online(server).inserts <= windows_high

        sampler = WindowSampler(server.address, TASK, "online", REPLAY)
        for _ in range(50):
            assert sampler.get(10) is not None
        samples = online(server).samples  # the limiter counts what was fetched ahead
        assert 0 <= samples - sampler.windows <= REPLAY.sampler_buffer + REPLAY.sampler_queue + 2
        sampler.close()


def test_a_server_that_dies_counts_each_window_once(tmp_path: Path, episode: Callable[[int], dict[str, Any]]) -> None:
    """What it had not confirmed is sent again to the server that takes its place, and once; what it had confirmed is in
    the contents that were saved, or lost."""
    scratch, contents = tmp_path / "scratch", tmp_path / "contents"
    config = dataclasses.replace(REPLAY, pending_windows=32)
    server = start_replay_server([TASK], config, scratch=scratch)
    try:
        writer = EpisodeWriter(server.address, TASK, "online", config)
        for seed in range(10):
            writer.write_episode(**episode(seed))
        assert writer.settle(10)
        saved = ContentsSaver(server.address, scratch).save(contents, 30)[f"online/{TASK.name}"]
        assert saved.inserts == writer.windows_written
        writer.write_episode(**episode(98))
        assert writer.settle(10)
        lost = writer.windows_written - saved.inserts
        os.kill(server.pid, signal.SIGSTOP)
        while psutil.Process(server.pid).status() != psutil.STATUS_STOPPED:
            time.sleep(0.01)
        for seed in range(99, 105):
            writer.write_episode(**episode(seed))
        assert not writer.settle(0.1)
        os.kill(server.pid, signal.SIGKILL)
        server.stop(5)
        config.port = server.port
        server = start_replay_server([TASK], config, scratch=scratch, restore=contents)
        assert server.restored
        writer.write_episode(**episode(105))
        assert writer.close(40)
        assert lost > 0 and online(server).inserts == writer.windows_written - lost
    finally:
        server.stop()


@pytest.fixture
def episode() -> Callable[[int], dict[str, Any]]:
    def make(seed: int, steps: int = 20) -> dict[str, Any]:
        return {
            "observation": {"left": np.zeros((steps + 1, 1), np.float32)},
            "texts": {"instruction": f"seed {seed}"},
            "action": np.ones(steps, np.int32),
            "reward": np.ones(steps, np.float32),
            "terminated": True,
            "truncated": False,
            "metadata": {"episode_id": f"e{seed}", "episode_index": seed},
        }

    return make
