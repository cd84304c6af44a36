"""The page of a run: everything in one file, of a run that has ended, that goes on, and that has said nothing yet."""

import math
import re

import pytest

from actors.evaluator import Foretold
from distributed.cli import main
from distributed.compose import compose
from distributed.config import to_dict
from distributed.metrics import MetricsWriter
from distributed.result import Result, TaskResult
from distributed.run_folder import RunFolder

CARTPOLE, SWINGUP = "gymnasium/CartPole-v1", "dm_control/cartpole-swingup"


@pytest.fixture
def run(tmp_path):
    config = compose(["actors=[cartpole_v1,cartpole_swingup]", "evaluation.decoding.text=greedy"])
    return RunFolder.create(tmp_path / "a<b", to_dict(config), ["clowder", "train"])


def test_a_page_holds_results_plots_and_configuration_and_asks_for_nothing_else(run, tmp_path, capsys):
    writer = MetricsWriter(run.tensorboard, run.metrics)
    for step in range(1, 4):
        values = {
            f"return/{CARTPOLE}": 20.0 * step,
            f"evaluation/return/{CARTPOLE}": 25.0 * step,
            f"demonstrations/return/{SWINGUP}": 850.0,
            f"share/demonstrations/{SWINGUP}": 1.0,
            "learner/loss": 3.0 / step,
            "learner/loss/discrete": 0.5,
            "lag/versions_mean": 1.0,
        }
        writer.scalars(values, learner_steps=100 * step, environment_steps=800 * step, wall_seconds=30.0 * step)
    writer.close()
    tasks = {
        CARTPOLE: TaskResult(
            2, 60.0, (50.0, 70.0), 0.08, math.nan, returns=[50.0, 70.0], foretold=Foretold([90.0, 80.0], [31.0, 32.0])
        ),
        SWINGUP: TaskResult(1, 800.0, (800.0, 800.0), 0.9, 0.95, returns=[800.0]),
    }
    Result(0, 7, "discrete=sample", tasks, 300, 2400, 90.0, 5).write(run.result)
    assert main(["report", str(run.path), "--out", str(tmp_path / "pages" / "page.html")]) == 0
    assert capsys.readouterr().out.strip().endswith("page.html")
    page = (tmp_path / "pages" / "page.html").read_text()
    assert "a&lt;b" in page and "<title>Clowder: a&lt;b" in page
    for text in (
        "300 learner steps",
        "2,400 environment steps",
        CARTPOLE,
        SWINGUP,
        "50 to 70",
        "discrete=sample",
        ">85<",
        ">31.5<",
    ):
        assert text in page
    assert "cartpole_swingup:" in page, "the configuration"
    # CartPole's panels, its calibration, swing-up's panels, and those of the learner.
    assert len(re.findall(r'src="data:image/png;base64,', page)) == 4
    assert not re.findall(r'(?:src|href)="(?!data:)', page) and "http" not in page.replace("http-equiv", "")


def test_a_run_that_has_reported_nothing_has_a_page_that_says_so(run, capsys):
    assert main(["report", str(run.path)]) == 0
    page = (run.path / "report.html").read_text()
    assert "No final evaluation yet" in page and "Nothing was reported" in page


def test_no_such_run_is_one_line(tmp_path, capsys):
    assert main(["report", "nowhere", "--folder", str(tmp_path)]) == 2
    assert "nowhere" in capsys.readouterr().err
