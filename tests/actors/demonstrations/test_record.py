"""Recording: the expert's successes end up in a set, which can be continued after any interruption."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import record
from actors.demonstrations.recording import RecordReport, noise_of
from actors.experts.make import make_expert
from actors.experts.weak_expert import WeakExpert
from replay.sealed_json import read_sealed
from tests.actors.demonstrations.sets import BABYAI, CARTPOLE

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.parametrize("form", ["minari", "actions"])
def test_a_recording_is_a_set_of_successes_with_labels(form, tmp_path: Path) -> None:
    heard: list[RecordReport] = []
    report = record(
        BABYAI,
        "babyai-bot",
        8,
        tmp_path,
        form=form,
        noise_levels=[0.2, 0.4],
        noise_share=0.5,
        random_seconds=0,
        progress=heard.append,
    )
    opened = open_set(tmp_path, BABYAI)
    assert [each.episodes for each in heard] == list(range(1, 9)) and report.episodes == report.wanted == 8
    assert opened.num_episodes == 8 and opened.noisy.tolist() == [False, True] * 4
    assert opened.settings.expert == "babyai-bot" and opened.settings.failed_episodes == report.failed
    assert opened.settings.random_return == pytest.approx(report.random_return) and 0 <= report.random_return < 0.9
    assert opened.demonstrator_return > 0.7
    assert report.steps == opened.lengths.sum()
    episodes = [item[1] for item in opened.episodes(range(8)) if item is not None]
    assert all(episode.success for episode in episodes)
    differ = [not np.array_equal(each.action, each.label) for each in episodes]
    assert any(differ) and not any(d for d, each in zip(differ, episodes, strict=True) if not each.noisy)


@pytest.mark.parametrize("form", ["minari", "actions"])
def test_a_recording_is_continued_as_if_it_had_not_stopped(form, tmp_path: Path) -> None:
    record(BABYAI, "babyai-bot", 6, tmp_path / "whole", form=form, noise_levels=[0.3], random_seconds=0)
    for wanted in (2, 2, 6, 4):
        report = record(
            BABYAI, "babyai-bot", wanted, tmp_path / "parts", form=form, noise_levels=[0.3], random_seconds=0
        )
        assert report.episodes >= wanted
    whole, parts = (open_set(tmp_path / name, BABYAI) for name in ("whole", "parts"))
    assert parts.seeds.tolist() == whole.seeds.tolist() and parts.returns.tolist() == whole.returns.tolist()
    for index in range(6):
        assert np.array_equal(parts.episode(index).label, whole.episode(index).label)


def test_a_failed_episode_is_left_out_and_counted(tmp_path: Path) -> None:
    hurried = ActorConfig(task="babyai/GoToRedBallGrey", arguments={"max_steps": 5})
    report = record(hurried, "babyai-bot", 3, tmp_path, form="actions", random_seconds=0)
    opened = open_set(tmp_path, hurried)
    assert report.failed > 0 and opened.num_episodes == 3 and (opened.returns > 0).all()
    assert opened.settings.failed_episodes == report.failed


def test_an_expert_that_only_fails_ends_the_recording(tmp_path: Path) -> None:
    impossible = ActorConfig(task="babyai/GoToRedBallGrey", arguments={"max_steps": 1})
    with pytest.raises(RuntimeError, match="failed 20 times in a row"):
        record(impossible, "babyai-bot", 3, tmp_path, start_seed=100, random_seconds=0)


def test_another_set_in_the_way_is_refused(tmp_path: Path) -> None:
    record(BABYAI, "babyai-bot", 1, tmp_path / "set", random_seconds=0)
    other_settings = ActorConfig(task=BABYAI.task, arguments={"room_size": 6})
    with pytest.raises(DemonstrationSetError, match="room_size"):
        record(other_settings, "babyai-bot", 2, tmp_path / "set")
    with pytest.raises(DemonstrationSetError, match="not of babyai/GoToLocal"):
        record(ActorConfig(task="babyai/GoToLocal"), "babyai-bot", 2, tmp_path / "set")
    with pytest.raises(DemonstrationSetError, match="holds no set of form actions"):
        record(BABYAI, "babyai-bot", 2, tmp_path / "set", form="actions", random_seconds=0)
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("...")
    with pytest.raises(DemonstrationSetError, match=r"chapter1\.tex"):
        record(BABYAI, "babyai-bot", 2, tmp_path / "thesis", random_seconds=0)
    assert open_set(tmp_path / "set", BABYAI).num_episodes == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"episodes": 0}, "at least 1"),
        ({"noise_levels": [0.1], "noise_share": 1.0}, "noise_share"),
        ({"expert": "babyai-bod"}, "did you mean babyai-bot"),
        ({"start_seed": 1_000_000}, "start_seed"),
    ],
)
def test_bad_orders_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        record(BABYAI, **({"expert": "babyai-bot", "episodes": 1} | arguments), out=tmp_path / "set")


def test_noise_is_spread_evenly_and_levels_take_turns() -> None:
    assert [noise_of(i, [0.1, 0.2], 0.5) for i in range(6)] == [0, 0.1, 0, 0.2, 0, 0.1]
    assert [noise_of(i, [], 0.5) for i in range(3)] == [0, 0, 0]
    assert sum(noise_of(i, [0.3], 0.25) > 0 for i in range(100)) == 25
    assert noise_of(0, [0.3], 0.9) == 0


SCRIPT = """
import resource, signal, sys
from pathlib import Path
from actors.demonstrations.record import record
from tests.actors.demonstrations.sets import BABYAI
def say(report):
    print(report.episodes, flush=True)
    if report.episodes == int(sys.argv[3]):
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))  # from here every file is too large, as on a full disk
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, which tests may be, ignore it
record(BABYAI, "babyai-bot", 100000, Path(sys.argv[1]), form=sys.argv[2], progress=say, random_seconds=0)
"""


def recording(folder: Path, form: str, full_after: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(folder), form, str(full_after)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("form", ["minari", "actions"])
def test_a_full_disk_leaves_a_set_that_is_continued(form: str, tmp_path: Path) -> None:
    record(BABYAI, "babyai-bot", 3, tmp_path, form=form, random_seconds=0)
    process = recording(tmp_path, form, full_after=5)
    if form == "actions":  # writes at its end only
        time.sleep(1)
    _, errors = process.communicate(timeout=60) if form == "minari" else _interrupt_after(process, lines=6)
    assert process.returncode == 1 and "can be read and holds the episodes written before" in errors, errors
    opened = open_set(tmp_path, BABYAI)
    assert opened.num_episodes == (5 if form == "minari" else 3)
    assert opened.episode(opened.num_episodes - 1).success
    assert record(BABYAI, "babyai-bot", 7, tmp_path, form=form, random_seconds=0).episodes == 7
    assert open_set(tmp_path, BABYAI).seeds.tolist() == list(range(7))


@pytest.mark.parametrize("form", ["minari", "actions"])
def test_no_space_left_leaves_a_set_that_is_continued(form: str, small_disk: Path) -> None:
    folder, filler = small_disk / "set", small_disk / "filler"
    record(BABYAI, "babyai-bot", 3, folder, form=form, random_seconds=0)
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(OSError, match=r"No space left.*holds the episodes written before"):
        record(BABYAI, "babyai-bot", 7, folder, form=form, random_seconds=0)
    assert open_set(folder, BABYAI).num_episodes == 3 and open_set(folder, BABYAI).episode(2).success
    filler.unlink()
    assert record(BABYAI, "babyai-bot", 7, folder, form=form, random_seconds=0).episodes == 7
    assert open_set(folder, BABYAI).seeds.tolist() == list(range(7))


@pytest.mark.parametrize(("form", "sent"), [("minari", "KILL"), ("minari", "INT"), ("actions", "INT")])
def test_an_interrupted_recording_leaves_whole_episodes(form: str, sent: str, tmp_path: Path) -> None:
    process = recording(tmp_path, form, full_after=-1)
    _interrupt_after(process, lines=8, sent=getattr(signal, f"SIG{sent}"))
    assert process.returncode != 0
    opened = open_set(tmp_path, BABYAI)
    assert opened.num_episodes >= 8
    assert all(item[1].success for item in opened.episodes(range(opened.num_episodes)) if item is not None)
    wanted = opened.num_episodes + 2
    assert record(BABYAI, "babyai-bot", wanted, tmp_path, form=form, random_seconds=0).episodes == wanted


def _interrupt_after(
    process: subprocess.Popen[str], lines: int, sent: signal.Signals = signal.SIGINT
) -> tuple[str, str]:
    assert process.stdout is not None
    for _ in range(lines):
        assert process.stdout.readline(), process.communicate(timeout=10)
    os.kill(process.pid, sent)
    return process.communicate(timeout=60)


def test_an_interruption_before_the_first_episode_is_no_obstacle(tmp_path: Path) -> None:
    record(BABYAI, "babyai-bot", 1, tmp_path, random_seconds=0)
    metadata = tmp_path / "data" / "metadata.json"
    metadata.write_text(json.dumps(read_sealed(metadata) | {"total_episodes": 0}))
    for path in (tmp_path / "data" / "0").iterdir():
        path.unlink()
    (tmp_path / "data" / "0").rmdir()
    with pytest.raises(DemonstrationSetError, match="no episodes"):
        open_set(tmp_path, BABYAI)
    assert record(BABYAI, "babyai-bot", 2, tmp_path, random_seconds=0).episodes == 2


def test_an_expert_of_another_task_says_so(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="CartPole"):
        record(CARTPOLE, "babyai-bot", 1, tmp_path)


def test_a_weak_experts_errors_are_what_is_imitated_and_its_failures_are_kept(tmp_path: Path) -> None:
    hurried = ActorConfig(task="babyai/GoToLocal", arguments={"max_steps": 12})
    report = record(hurried, WeakExpert(make_expert("babyai-bot", hurried), 0.5), 12, tmp_path, random_seconds=0)
    assert report.episodes == 12 and report.failed == 0
    opened = open_set(tmp_path, hurried)
    assert opened.settings.expert == "weak:0.5:babyai-bot" and not opened.noisy.any()
    episodes = [item[1] for item in opened.episodes(range(12)) if item is not None]
    assert all(np.array_equal(each.action, each.label) for each in episodes)
    assert {each.success for each in episodes} == {True, False}
    assert opened.demonstrator_return == pytest.approx(np.mean([each.episode_return for each in episodes]))


def test_a_weak_expert_may_err_in_a_share_of_its_episodes() -> None:
    expert = make_expert("babyai-bot", BABYAI)
    weak = WeakExpert(expert, 1.0, 0.5)
    assert weak.name == "weak:1@0.5:babyai-bot"
    right = [np.array_equal(weak.play(seed).action, expert.play(seed).action) for seed in range(40)]
    assert 12 <= sum(right) <= 28
    with pytest.raises(ValueError, match="at most 1, not 2"):
        WeakExpert(expert, 1.0, 2)


def test_a_weak_expert_takes_no_noise_and_a_positive_level() -> None:
    expert = make_expert("babyai-bot", BABYAI)
    with pytest.raises(ValueError, match="without --noise"):
        WeakExpert(expert, 0.5).play(0, noise=0.1)
    with pytest.raises(ValueError, match="positive number, not 0"):
        WeakExpert(expert, 0.0)
