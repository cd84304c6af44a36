"""The form of result.json, which other programs read."""

import dataclasses
import json
import math

import pytest

from actors.evaluator import Foretold
from agent.task import ArraySpec, TaskSpec
from distributed.console import printer
from distributed.errors import ClowderError
from distributed.result import Result, TaskResult, result_table, task_result

TASK = TaskSpec(
    "gymnasium/Some-v0",
    {"observation": ArraySpec("continuous", (4,))},
    ArraySpec("discrete", num_values=2),
    random_return=10.0,
    reference_return=110.0,
)


def make_result() -> Result:
    tasks = {TASK.name: task_result([20.0, 40.0, 60.0, 80.0], TASK, 0.0, 100.0)}
    tasks["atari/boxing"] = TaskResult(0, math.nan, (math.nan, math.nan), math.nan, math.nan)
    return Result(3, 17, "discrete=greedy", tasks, 1000, 54321, 12.5, 99)


def test_scores():
    scored = make_result().tasks[TASK.name]
    assert (scored.episodes, scored.mean_return) == (4, 50.0)
    assert scored.normalised == pytest.approx(0.4)
    assert scored.demonstrator_normalised == pytest.approx(0.5)
    low, high = scored.ci95_mean_return
    assert 20.0 <= low < 50.0 < high <= 80.0


@pytest.mark.parametrize(("random", "demonstrator", "expected"), [
    (None, 60.0, 0.8), (math.nan, 60.0, 0.8), (0.0, None, math.nan), (0.0, math.nan, math.nan), (60.0, 60.0, math.nan),
])  # fmt: skip
def test_references_that_are_not_known(random, demonstrator, expected):
    scored = task_result([50.0], TASK, random, demonstrator)
    assert scored.demonstrator_normalised == pytest.approx(expected, nan_ok=True)


def test_the_form_is_exactly_that_of_schema_1(tmp_path):
    path = tmp_path / "deep" / "result.json"
    make_result().write(path)
    data = json.loads(path.read_text())
    assert set(data) == {
        "schema", "seed", "policy_version", "decoding", "tasks", "learner_steps", "environment_steps", "wall_seconds",
        "online_windows_learned", "failed",
    }  # fmt: skip
    assert data["schema"] == 1
    assert data["tasks"][TASK.name] == {
        "episodes": 4,
        "mean_return": 50.0,
        "ci95_mean_return": list(make_result().tasks[TASK.name].ci95_mean_return),
        "normalised": pytest.approx(0.4),
        "demonstrator_normalised": pytest.approx(0.5),
        "returns": [20.0, 40.0, 60.0, 80.0],
    }
    assert data["tasks"]["atari/boxing"]["mean_return"] is None
    assert data["tasks"]["atari/boxing"]["ci95_mean_return"] == [None, None]


def test_round_trip(tmp_path):
    make_result().write(tmp_path / "result.json")
    again = Result.read(tmp_path / "result.json")
    assert again.to_json() == make_result().to_json()
    assert math.isnan(again.tasks["atari/boxing"].mean_return)


def test_asked_returns_are_kept_and_shown_where_there_are_any(tmp_path):
    scored = task_result(
        [50.0, 70.0], TASK, 0.0, 100.0, foretold=Foretold(asked=[90.0, math.nan], achieved=[50.0, 60.0])
    )
    result = dataclasses.replace(make_result(), tasks=make_result().tasks | {TASK.name: scored})
    result.write(tmp_path / "result.json")
    again = Result.read(tmp_path / "result.json").tasks[TASK.name]
    assert again.returns == [50.0, 70.0]
    assert again.foretold.asked[0] == 90.0 and math.isnan(again.foretold.asked[1])
    assert again.foretold.means("asked", "achieved") == (90.0, 50.0) and again.foretold.valued == []
    out = printer()
    with out.capture() as shown:
        out.print(result_table(result))
    assert "asked for" in shown.get() and "90" in shown.get()
    with out.capture() as shown:
        out.print(result_table(make_result()))
    assert "asked for" not in shown.get()


@pytest.mark.parametrize("text", [None, "", "[]", '{"schema": 2, "tasks": {}}', '{"schema": 1, "tasks": {"a/b": {}}}'])
def test_what_is_no_result_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(ClowderError, match=r"result\.json"):
        Result.read(tmp_path / "result.json")


def test_the_table_shows_every_task():
    out = printer()
    with out.capture() as captured:
        out.print(result_table(make_result()))
    assert TASK.name in captured.get() and "atari/boxing" in captured.get() and "0.50" in captured.get()
