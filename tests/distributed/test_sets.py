"""``clowder sets`` and ``import-minari``: cards for people and programs, checks, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.demonstrations.minari_set import TABLE
from actors.demonstrations.open_set import shipped_sets
from actors.demonstrations.record import record
from distributed.cli import main
from tests.actors.demonstrations.sets import BABYAI


def test_shipped_sets_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(shipped_sets())
    assert main(["sets", "boxing", "--json"]) == 0
    (card,) = json.loads(capsys.readouterr().out)
    assert card["task"] == "atari/boxing" and card["returns"]["max"] == 100


def test_a_set_is_checked_to_its_last_episode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record(BABYAI, "babyai-bot", 3, tmp_path / "set", random_seconds=0)
    assert main(["sets", str(tmp_path / "set"), "--check"]) == 0
    out = capsys.readouterr().out
    assert "babyai-bot" in out and "all 3 episodes are as they were recorded" in out
    path = tmp_path / "set" / "data" / "2" / TABLE
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert main(["sets", str(tmp_path / "set"), "--check"]) == 2
    assert "data/2" in (error := capsys.readouterr().err) and "SHA-256" in error


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["sets", "boxxing"], "did you mean boxing"),
        (["import-minari", "tests/nothing-v0", "--task", "cartpole_v1", "--out", "x"], "minari download"),
        (["import-minari", "tests/nothing-v0", "--task", "cartpole_v2", "--out", "x"], "or cartpole_v1"),
    ],
)
def test_what_is_not_there_is_refused(words: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    line = capsys.readouterr().err
    assert reason in line and line.count("\n") == 1
