"""Recording with processes: the same set as one process makes, whatever dies, hangs or is interrupted on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import record_order
from actors.demonstrations.recording import RecordOrder
from distributed.recording import record_in_processes
from tests.actors.demonstrations.sets import BABYAI

REPOSITORY = Path(__file__).parents[2]


def order(out: Path, **changes) -> RecordOrder:
    made = RecordOrder(BABYAI, 120, out, noise_levels=[0.3], random_seconds=0.0, command="a test")
    return dataclasses.replace(made, **changes)


def same_sets(one: Path, other: Path) -> None:
    first, second = open_set(one, BABYAI), open_set(other, BABYAI)
    assert first.settings.to_json() == second.settings.to_json()
    assert first.seeds.tolist() == second.seeds.tolist() and first.noisy.tolist() == second.noisy.tolist()
    for index in range(first.num_episodes):
        ours, theirs = first.episode(index), second.episode(index)
        assert np.array_equal(ours.action, theirs.action) and np.array_equal(ours.label, theirs.label)


@pytest.mark.long
def test_two_processes_record_what_one_does_although_one_of_them_is_killed(tmp_path: Path) -> None:
    record_order(order(tmp_path / "one"), "babyai-bot")
    killed: list[int] = []
    crews, said = [], []

    def kill_one(report) -> None:
        (crew,) = crews
        if not killed and report.episodes >= 2 and all(each.pid for each in crew.recorders):
            killed.append(crew.recorders[0].pid)
            os.kill(killed[0], signal.SIGKILL)

    report = record_in_processes(
        order(tmp_path / "two", episode_deadline=60.0), "babyai-bot", 2,
        progress=kill_one, said=said.append, started=crews.append,
    )  # fmt: skip
    assert report.episodes == 120 and report.failed == 0
    same_sets(tmp_path / "one", tmp_path / "two")
    assert not killed or any(f"recorder/0 (process {killed[0]})" in line and "another takes" in line for line in said)


SCRIPT = """
import sys
from pathlib import Path
from actors.demonstrations.recording import RecordOrder
from distributed.recording import record_in_processes
from tests.actors.demonstrations.sets import BABYAI
order = RecordOrder(BABYAI, 100000, Path(sys.argv[1]), noise_levels=[0.3], random_seconds=0.0, command="a test")
record_in_processes(order, "babyai-bot", 2, progress=lambda report: print(report.episodes, flush=True))
"""


@pytest.mark.long
def test_a_killed_driver_leaves_whole_episodes_in_their_order(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "set")], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for _ in range(5):
        assert process.stdout.readline()
    others = psutil.Process(process.pid).children(recursive=True)
    assert any("RecorderProcess" in " ".join(each.cmdline()) for each in others)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    for each in others:  # Ray ends them by itself, but takes its time
        with contextlib.suppress(psutil.NoSuchProcess):
            each.kill()
    found = open_set(tmp_path / "set", BABYAI)
    assert found.num_episodes >= 5
    for index, episode in found.episodes(range(found.num_episodes)):
        assert episode.success and episode.seed == index
    wanted = found.num_episodes + 1
    record_order(order(tmp_path / "set", episodes=wanted), "babyai-bot")
    assert open_set(tmp_path / "set", BABYAI).seeds.tolist() == list(range(wanted))
