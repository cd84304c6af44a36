"""Seeds that an earlier report of the study has are taken from it."""

import json
import sys
from pathlib import Path

import pytest

from studies.montezuma_online import main

REPORT = Path("docs/results/montezuma_online.json")


def asked(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    monkeypatch.setattr(sys, "argv", ["montezuma_online", *words])
    main()


def test_what_a_report_knows_is_not_run_again_and_gives_the_same_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = json.loads(REPORT.read_text())
    seeds = [str(seed) for seed in before["seeds"]]
    out = tmp_path / "report.json"
    asked(monkeypatch, "--known", str(REPORT), "--runs", str(tmp_path), "--out", str(out), "--seeds", *seeds)
    after = json.loads(out.read_text())
    assert list(tmp_path.iterdir()) == [out]  # nothing was trained
    for key in ("seeds", "updates", "means", "differences", "runs"):
        assert after[key] == before[key], key


def test_a_report_of_other_settings_or_of_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, words, message in (
        (REPORT, ("--episodes", "3"), "was made with {'episodes': 80, 'overrides': []}"),
        (REPORT, ("learner.steps=5",), "was made with {'episodes': 80, 'overrides': []}"),
        (tmp_path / "none.json", (), "is no report of this study's runs"),
        (Path("docs/results/soak.json"), (), "is no report of this study's runs"),
    ):
        with pytest.raises(SystemExit):
            asked(monkeypatch, *words, "--runs", str(tmp_path), "--known", str(path))
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
