"""Run folders: what is written, who owns one, and how a real coordinator process is found and stopped."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from distributed.compose import compose
from distributed.config import to_dict
from distributed.errors import RunFolderError
from distributed.run_folder import RunFolder, check_name, default_name, write_whole

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


def test_write_whole_leaves_nothing_beside(tmp_path):
    write_whole(tmp_path / "a", "one")
    write_whole(tmp_path / "a", "two")
    assert [path.name for path in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "two"
