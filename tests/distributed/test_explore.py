"""``clowder explore``: refusals in one line; a small exploration, killed, interrupted, resumed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from actors.config import ActorConfig
from actors.demonstrations.open_set import open_set
from actors.explorer import checkpoint
from actors.explorer.explorer import ExplorerSettings
from distributed.cli import main

FREEWAY = ["explore", "atari/freeway", "--replays", "4"]


def refused(capsys: pytest.CaptureFixture, *words: object) -> str:
    assert main([str(word) for word in words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["atari/montezumas_revenge", "--frames", "4M"], "did you mean atari/montezuma_revenge"),
        (["montezuma_reveng", "--frames", "4M"], "montezuma_revenge"),
        (["cartpole_v1", "--frames", "4M"], "cannot be explored, only Atari games"),
        (["atari/venture", "--frames", "0"], "frames must be at least 1"),
        (["atari/venture", "--frames", "1k", "--seeds", "0"], "--seeds must be at least 1"),
        (["atari/venture", "--frames", "1k", "--processes", "0"], "processes must be at least 1"),
        (["atari/venture", "--frames", "1k", "--replays", "-1"], "replays must be at least 0"),
        (["atari/venture", "--frames", "1k", "--partial-share", "2"], "between 0 and 1"),
        (["atari/venture", "--frames", "1k", "--first-seed", "-2"], "seed of an explorer must be at least 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_explored_is_refused(capsys, tmp_path, words, expected):
    assert expected in refused(capsys, "explore", *words, "--out", tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("words", [["--frames", "many"], []])
def test_frames_are_needed(capsys, tmp_path, words):
    with pytest.raises(SystemExit) as end:
        main(["explore", "atari/venture", "--out", str(tmp_path), *words])
    assert end.value.code == 2
    assert "--frames" in capsys.readouterr().err


def test_folders_of_something_else_are_refused(capsys, tmp_path):
    words = ["explore", "atari/venture", "--frames", "1k", "--out", tmp_path]
    (tmp_path / "notes.txt").write_text("mine")
    assert "holds other files; choose another --out" in refused(capsys, *words)
    archive = tmp_path / "exploration" / "seed0" / "archive.npz"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(b"nothing")
    assert "give --resume" in refused(capsys, *words)
    assert "truncated or damaged" in refused(capsys, *words, "--resume")
    from actors.explorer.explorer import Explorer

    checkpoint.save(Explorer(ExplorerSettings("atari/freeway")), archive)
    assert "explored with task=atari/freeway, not atari/venture" in refused(capsys, *words, "--resume")


def start(out: Path, log: Path, *words: str) -> subprocess.Popen:
    with log.open("a") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "distributed.cli", *FREEWAY, "--out", str(out), *words],
            stdout=file,
            stderr=subprocess.STDOUT,
        )


@pytest.mark.long
@pytest.mark.timeout(280)
def test_an_exploration_is_interrupted_survives_a_kill_and_ends_with_sets(tmp_path):
    out, log = tmp_path / "set", tmp_path / "log.txt"
    archive = out / "exploration" / "seed0" / "archive.npz"
    process = start(out, log, "--frames", "4G")
    end = time.monotonic() + 120
    while "0/s" not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    explorer = next(each for each in children if "ExplorerProcess" in " ".join(each.cmdline()))
    explorer.kill()
    while "started again from its last checkpoint" not in log.read_text():
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    while "0/s" not in log.read_text().rpartition("started again")[2]:
        assert process.poll() is None and time.monotonic() < end, log.read_text()
        time.sleep(0.1)
    children += psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    assert not [each for each in children if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]
    frames = checkpoint.check(archive, ExplorerSettings("atari/freeway"))["progress"]["frames"]
    assert frames > 0 and not (out / "set.json").exists()

    process = start(out, log, "--frames", str(max(frames + 400, 8_000)), "--resume")
    assert process.wait(120) == 0, log.read_text()
    for folder, arguments in ((out, {}), (out / "deterministic", {"repeat_action_probability": 0.0})):
        found = open_set(folder, ActorConfig("atari/freeway", arguments=arguments), num_envs=1)
        assert found.settings.expert == "go-explore" and found.demonstrator_return >= 1
        episodes = [item[1] for item in found.episodes([0]) if item is not None]
        assert episodes[0].episode_return == found.returns[0]
        found.close()
    events = EventAccumulator(str(out / "exploration" / "tensorboard" / "seed0")).Reload()
    for name in ("cells", "best", "frames_per_s", "scores"):
        assert np.isfinite([event.value for event in events.Scalars(f"explorer/{name}")]).all()
    assert events.Tags()["images"] == ["explorer/archive"]
    assert (archive.parent / "archive.png").stat().st_size > 10_000
