"""The quickstart learns: the command of the README, one seed, in its quarter of an hour."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

BARS = {"dm_control/cartpole-swingup": 0.8, "babyai/GoToLocal": 0.8, "atari/boxing": 0.3}
QUESTIONS = "text/babyai-questions"
QUARTER_OF_AN_HOUR = 15 * 60


@pytest.mark.learning
def test_one_set_of_weights_plays_three_domains(tmp_path: Path) -> None:
    began = time.monotonic()
    command = ["train", "experiment=quickstart", "name=run", "seed=0", f"logging.folder={tmp_path}"]
    subprocess.run([sys.executable, "-m", "distributed.cli", *command], check=True, timeout=2 * QUARTER_OF_AN_HOUR)
    assert time.monotonic() - began < QUARTER_OF_AN_HOUR
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["tasks"].keys() == BARS.keys() | {QUESTIONS}
    for task, bar in BARS.items():
        assert result["tasks"][task]["episodes"] >= 20
        assert result["tasks"][task]["demonstrator_normalised"] >= bar, task
    scores = result["tasks"][QUESTIONS]["text"]
    assert scores["accuracy"] > max(scores["without_picture"], scores["most_frequent_answer"]) + 0.1
    assert result["online_windows_learned"] > 0
    for name in ("config.yaml", "run.json", "learning_curves.png"):
        assert (tmp_path / "run" / name).stat().st_size > 0
    assert len(list((tmp_path / "run" / "videos").glob("*.mp4"))) == 3
