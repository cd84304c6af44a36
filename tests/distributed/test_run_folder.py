"""Run folders: what is written, who owns one, and how a real coordinator process is found and stopped."""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distributed.compose import compose
from distributed.config import to_dict
from distributed.errors import RunFolderError
from distributed.run_folder import RunFolder, _beginning, check_name, default_name, write_whole

# Stands where a coordinator would: holds the claim, says so, and ends on SIGINT as `clowder train` does.
HOLDER = """
import signal, sys, time
from pathlib import Path
from distributed.run_folder import RunFolder
run = RunFolder(Path(sys.argv[1]))
asked = []
signal.signal(signal.SIGINT, lambda *_: asked.append(True))
with run.claim():
    run.write_status("training", {"learner_steps": 5.0})
    print("claimed", flush=True)
    until = time.monotonic() + 60
    while time.monotonic() < until and (len(sys.argv) > 2 or not asked):
        time.sleep(0.02)
    run.write_status("interrupted", {})
"""


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(
        tmp_path / "first", to_dict(compose(["actors=[cartpole_v1]", "seed=5"])), ["clowder", "train"]
    )


@pytest.fixture
def hold():
    started = []

    def start(run, *arguments):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(run.path), *arguments], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline().strip() == "claimed"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(10)
        process.stdout.close()


def test_what_create_writes(run):
    info = json.loads(run.info.read_text())
    assert (info["schema"], info["name"], info["seed"]) == (1, "first", 5)
    (start,) = info["starts"]
    assert start["command_line"] == ["clowder", "train"]
    assert start["versions"]["torch"] not in ("", "missing") and "clowder" in start["versions"]
    assert start["git_commit"]
    assert run.read_config()["seed"] == 5
    assert all(folder.is_dir() for folder in (run.checkpoints, run.tensorboard, run.videos))
    assert run.read_status()["phase"] == "not started"
    run.write_resumed(run.read_config(), ["clowder", "train", "--resume"], ["stop.learner_steps=9"])
    assert [each["changed"] for each in json.loads(run.info.read_text())["starts"]] == [[], ["stop.learner_steps=9"]]


def test_a_folder_that_exists_is_refused(run):
    with pytest.raises(RunFolderError, match=r"exists.*--resume"):
        RunFolder.create(run.path, {}, [])


def test_a_run_goes_on_only_inside_of_its_folder(run, tmp_path):
    (run.path / "best.pt").symlink_to("checkpoints")
    run.check_links()
    (tmp_path / "elsewhere").mkdir()
    (run.checkpoints / "000000001").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunFolderError, match=r"000000001 is a symbolic link to .*elsewhere"):
        run.check_links()


def test_open_by_path_and_by_name(run, tmp_path):
    assert RunFolder.open(run.path) == RunFolder.open("first", tmp_path)
    with pytest.raises(RunFolderError, match="did you mean first"):
        RunFolder.open("frist", tmp_path)
    (tmp_path / "other").mkdir()
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.open(tmp_path / "other")


@pytest.mark.parametrize("text", ["", "- 1", "a: {", "\x00"])
def test_a_damaged_configuration_is_refused(run, text):
    run.config.write_text(text)
    with pytest.raises(RunFolderError, match=r"config\.yaml"):
        run.read_config()


def test_names(tmp_path):
    first = default_name("quickstart", tmp_path)
    (tmp_path / first).mkdir()
    assert first.startswith("quickstart-") and default_name("quickstart", tmp_path) != first
    assert check_name("a-1.b_c") == "a-1.b_c"
    for bad in ("", "a/b", "..", "-x", "a b"):
        with pytest.raises(RunFolderError):
            check_name(bad)


def test_status_leaves_out_what_is_not_finite(run):
    run.write_status("finished", {"a": 1.0, "b": float("nan"), "c": float("inf")})
    assert run.read_status()["metrics"] == {"a": 1.0}
    with pytest.raises(ValueError, match="phase"):
        run.write_status("dancing", {})


def test_the_fleet_that_is_asked_for_is_numbers_of_actors_and_nothing_else(run):
    assert run.read_fleet() == {}
    run.write_fleet({"boxing": 4})
    assert run.read_fleet() == {"boxing": 4}
    run.fleet.write_text('{"boxing": "many", "pong": -1, "breakout": true, "freeway": 2}')
    assert run.read_fleet() == {"freeway": 2}
    run.fleet.write_text("[1]")
    assert run.read_fleet() == {}
    run.write_resumed({"seed": 0}, ["clowder"], [])
    assert not run.fleet.exists()


def test_one_coordinator_at_a_time(run, hold):
    process = hold(run)
    assert run.process() == psutil.Process(process.pid)
    assert run.read_status() | {"updated_at": 0} == {
        "phase": "training", "updated_at": 0, "metrics": {"learner_steps": 5.0},
    }  # fmt: skip
    with pytest.raises(RunFolderError, match=f"in use by process {process.pid}"), run.claim():
        pass


def test_stop_ends_it_as_ctrl_c_does(run, hold):
    process = hold(run)
    assert run.stop(20)
    assert process.wait(5) == 0
    assert run.read_status()["phase"] == "interrupted"
    with pytest.raises(RunFolderError, match="not running"):
        run.stop(1)
    with run.claim():
        assert run.process() == psutil.Process()


def test_stop_has_a_deadline(run, hold):
    hold(run, "stubborn")
    began = time.monotonic()
    assert not run.stop(0.5)
    assert time.monotonic() - began < 5


def test_a_killed_coordinator_reads_as_died_and_leaves_the_folder_free(run, hold):
    process = hold(run)
    process.kill()
    process.wait(10)
    assert run.process() is None
    assert run.read_status()["phase"] == "died"
    with run.claim():
        pass


def test_a_reused_process_id_is_not_taken_for_the_coordinator(run):
    me = psutil.Process()
    data = {"pid": os.getpid(), "started": me.create_time() - 100, "host": os.uname().nodename}
    run.coordinator.write_text(json.dumps(data))
    assert run.process() is None
    run.coordinator.write_text(json.dumps(data | {"host": "elsewhere"}))
    with pytest.raises(RunFolderError, match="elsewhere"):
        run.stop(1)


def set_clock(monkeypatch, tmp_path, seconds):
    """Have psutil see the kernel's boot time as it is after the wall clock was set, which moves it by as much."""
    stat = Path("/proc/stat").read_text()
    boot = int(re.search(r"btime (\d+)", stat)[1])
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc" / "stat").write_text(stat.replace(f"btime {boot}", f"btime {boot + seconds}"))
    for each in Path("/proc").iterdir():
        if each.name != "stat":
            (tmp_path / "proc" / each.name).symlink_to(each)
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path / "proc"))


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="no /proc")
def test_a_clock_that_is_set_does_not_hide_a_coordinator(run, hold, monkeypatch, tmp_path):
    process = hold(run)
    before = psutil.Process(process.pid).create_time()
    set_clock(monkeypatch, tmp_path, 3600)
    assert psutil.Process(process.pid).create_time() == pytest.approx(before + 3600)
    assert run.process().pid == process.pid and run.read_status()["phase"] == "training"
    assert run.stop(20)
    assert process.wait(5) == 0 and run.process() is None


def test_another_process_with_the_id_of_the_coordinator_is_not_taken_for_it(run):
    sleeping = subprocess.Popen(["sleep", "60"])
    try:
        with run.claim():
            mine = json.loads(run.coordinator.read_text())
        assert run.process() is None  # the claim is over
        began = _beginning(psutil.Process(sleeping.pid))
        theirs = mine | {"pid": sleeping.pid, "started": began}
        run.coordinator.write_text(json.dumps(theirs))
        assert run.process() == psutil.Process(sleeping.pid)
        boot, ticks = began.split()
        for other in (mine["started"], f"{boot} {int(ticks) - 1}", f"{boot[::-1]} {ticks}", "", None, [], {}):
            run.coordinator.write_text(json.dumps(theirs | {"started": other}))
            assert run.process() is None, other
        # As it was written before: psutil's time.
        run.coordinator.write_text(json.dumps(theirs | {"started": psutil.Process(sleeping.pid).create_time()}))
        assert run.process() == psutil.Process(sleeping.pid)
        run.coordinator.write_text(json.dumps(theirs))
        sleeping.kill()
        while psutil.Process(sleeping.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.01)
        assert run.process() is None
    finally:
        sleeping.kill()
        sleeping.wait(10)
    assert run.process() is None


def test_the_end_is_said_on_a_full_disk(small_disk):
    run = RunFolder.create(small_disk / "full", {"seed": 0}, [])
    metrics = {f"metric/{number}": number / 7 for number in range(300)}
    run.write_status("evaluating", metrics)
    with (small_disk / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with pytest.raises(OSError, match="No space left"):
        run.write_status("failed", metrics)
    for phase in ("failed", "interrupted"):
        run.write_end(phase)
        assert run.read_status()["phase"] == phase and run.read_status()["metrics"] == metrics
    (small_disk / "filler").unlink()
    run.write_end("finished")
    assert json.loads(run.status.read_text())["phase"] == "finished" and run.read_status()["metrics"] == metrics


def test_write_whole_leaves_nothing_beside(tmp_path):
    write_whole(tmp_path / "a", "one")
    write_whole(tmp_path / "a", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "two"
