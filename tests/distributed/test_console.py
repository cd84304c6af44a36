"""What the console says of a point, live and in lines; and the picture of a run's rows."""

import io
import json

import pytest
import rich.console

from distributed.compose import compose
from distributed.console import Console, clock, progress, rows, shares
from distributed.learning_curves import draw
from distributed.result import Result, TaskResult

POINT = {
    "learner_steps": 500.0,
    "environment_steps": 12_000.0,
    "wall_seconds": 90.0,
    "learner/steps_per_s": 5.5,
    "learner/step_ms": 100.0,
    "learner/data_wait_ms": 4.0,
    "learner/loss": 1.25,
    "return/atari/boxing": 3.0,
    "demonstrator_normalised/atari/boxing": 0.31,
    "actor/environment_steps_per_s/atari/boxing": 300.0,
    "actor/environment_share/atari/boxing": 0.5,
    "actor/weights_age_s/atari/boxing": 4.0,
    "share/demonstrations/atari/boxing": 0.75,
    "share/good/atari/boxing": 0.25,
    "fleet/alive": 7.0,
}


@pytest.fixture
def config():
    return compose(["actors=[boxing]", "learner.steps=1000", "stop.wall_minutes=10"])


def out(terminal: bool) -> rich.console.Console:
    return rich.console.Console(file=io.StringIO(), force_terminal=terminal, width=140, soft_wrap=True, highlight=False)


def test_progress_is_that_of_the_nearest_stop_condition(config):
    assert progress(config, POINT) == (0.5, "50% (500 of 1,000 learner steps)")
    assert progress(config, POINT | {"wall_seconds": 540.0}) == (0.9, "90% (9.0 of 10.0 minutes)")
    timed = compose(["actors=[boxing]", "learner.steps=100000", "learner.minutes=4"])
    of_learner = POINT | {"wall_seconds": 300.0, "counts/learner_minutes": 3.0}  # start-up is not learning
    assert progress(timed, of_learner) == (0.75, "75% (3.0 of 4.0 minutes of learning)")
    assert progress(config, {})[0] == 0.0
    assert progress(config, {"learner_steps": 5000.0})[0] == 1.0


def test_rows_tell_rates_returns_shares_lag_and_the_bottleneck():
    told = dict(rows(POINT))
    assert "5.50 steps/s" in told["learner"] and "data wait 4%" in told["learner"]
    assert "300 steps/s" in told["environments"]
    assert "return 3.0" in told["atari/boxing"] and "0.31 of the demonstrator" in told["atari/boxing"]
    assert told["learned from"] == "demonstrations 75%, good 25%"
    assert "4.0 s old" in told["policy lag"]
    assert "learner compute" in told["bottleneck"]
    assert told["time"] == "0:01:30"
    assert rows({}) == []
    assert shares({}) == {}


def test_lines_where_there_is_no_terminal(config):
    console = Console(config, out(terminal=False))
    with console:
        console.set_phase("training")
        console.update(POINT)
        console.update({"learner_steps": 600.0, "return/atari/boxing": float("nan")})
    lines = console.out.file.getvalue().strip().splitlines()
    assert len(lines) == 3 and "training" in lines[0]
    assert "boxing 3.0" in lines[2] and "60%" in lines[2] and "bottleneck" in lines[2]


def test_live_on_a_terminal(config):
    console = Console(config, out(terminal=True))
    assert console.form == "live"
    with console:
        console.set_phase("training")
        console.update(POINT)
        console.say("a line that stays")
    printed = console.out.file.getvalue()
    assert "atari/boxing" in printed and "bottleneck" in printed and "a line that stays" in printed


def test_what_is_said_is_no_markup(config):
    console = Console(config, out(terminal=False))
    with console:
        console.say("actors=[boxing] died: [/usr/lib/x.so] has shape [n, 3]")
    assert "actors=[boxing] died: [/usr/lib/x.so] has shape [n, 3]" in console.out.file.getvalue()


def test_off_says_nothing(config):
    config.logging.console = "off"
    console = Console(config, out(terminal=True))
    with console:
        console.set_phase("training")
        console.update(POINT)
        console.say("unheard")
    assert console.out.file.getvalue() == ""


def test_clock():
    assert clock(3725.9) == "1:02:05"


def test_learning_curves(tmp_path):
    rows_file = tmp_path / "metrics.jsonl"
    with rows_file.open("w") as file:
        for step in range(5):
            values = {"return/atari/boxing": step, "learner/loss": 3.0 - step, "learner/steps_per_s": 5.0}
            file.write(json.dumps({"learner_steps": step, "wall_seconds": 60.0 * step, "values": values}) + "\n")
    tasks = {"atari/boxing": TaskResult(3, 5.0, (4.0, 6.0), 0.5, 0.4)}
    draw(rows_file, tmp_path / "curves.png", Result(0, 1, "greedy", tasks, 5, 5, 300.0, 1))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
    draw(tmp_path / "absent.jsonl", tmp_path / "empty.png")
    assert (tmp_path / "empty.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["curves.png", "empty.png", "metrics.jsonl"]
