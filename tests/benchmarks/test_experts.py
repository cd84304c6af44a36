"""The benchmark of experts plays what is missing, and no more."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.demonstrations.episode import ActionRecord
from actors.experts.babyai_bot import BabyAIBotExpert
from actors.experts.expert import ExpertFailed
from benchmarks import experts


def run(monkeypatch: pytest.MonkeyPatch, out: Path, episodes: int) -> dict:
    command = ["experts", "--only", "babyai/GoToLocal", "--episodes", str(episodes), "--out", str(out)]
    monkeypatch.setattr("sys.argv", command)
    experts.main()
    return json.loads(out.read_text())


def test_it_goes_on_where_it_was_and_reports_failures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out, played = tmp_path / "experts.json", []
    whole = BabyAIBotExpert.play

    def counted(self: BabyAIBotExpert, seed: int, noise: float = 0.0) -> ActionRecord:
        played.append(seed)
        if seed == 2:
            raise ExpertFailed("the expert 'babyai-bot' on babyai/GoToLocal, seed 2: step 0: no")
        return whole(self, seed, noise)

    monkeypatch.setattr(BabyAIBotExpert, "play", counted)
    run(monkeypatch, out, 2)
    report = run(monkeypatch, out, 4)
    assert played == [0, 1, 2, 3]
    (row,) = report["rows"]
    assert (row["task"], row["sees"], row["episodes"], row["failed"]) == (
        "babyai/GoToLocal",
        "privileged information",
        3,
        1,
    )
    assert row["success"] == 1.0 and 0.7 < row["mean_return"] <= 1
    assert "| babyai/GoToLocal | babyai-bot | 3 |" in capsys.readouterr().out


def test_every_case_has_a_task_of_its_domain_and_references_are_numbers() -> None:
    cases = experts.cases()
    assert len({case.name for case in cases}) == len(cases)
    tasks = {case.task for case in cases}
    references = experts.settings_file("references")
    assert set(references) <= tasks
    assert all(
        entry["value"] > 0 and entry["source"] in ("tdmpc2", "human", "maximum") for entry in references.values()
    )
