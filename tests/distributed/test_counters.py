import json

import pytest

from distributed.counters import Counters


def test_absolute_counts_are_summed_over_incarnations():
    counters = Counters()
    assert counters.begin("d/a", "a-0") == 0
    counters.update("a-0", 0, {"environment_steps": 100, "episodes": 2})
    counters.update("a-0", 0, {"environment_steps": 100, "episodes": 2})  # repeated
    assert counters.begin("d/a", "a-0") == 1
    counters.update("a-0", 1, {"environment_steps": 10})
    counters.update("a-0", 0, {"environment_steps": 120})  # the last report of the dead one, late
    assert counters.totals()["environment_steps"] == 130 and counters.totals()["episodes"] == 2


def test_totals_never_go_backward():
    counters = Counters()
    counters.begin("d/a", "a-0")
    counters.update("a-0", 0, {"environment_steps": 100})
    counters.update("a-0", 0, {"environment_steps": 60})
    assert counters.totals()["environment_steps"] == 100


def test_tasks_are_counted_apart():
    counters = Counters()
    for task, actor, steps in (("d/a", "a-0", 5), ("d/a", "a-1", 7), ("d/b", "b-0", 11)):
        counters.update(actor, counters.begin(task, actor), {"environment_steps": steps})
    assert {task: totals["environment_steps"] for task, totals in counters.by_task().items()} == {"d/a": 12, "d/b": 11}


def test_state_goes_through_json_and_incarnations_continue():
    counters = Counters()
    for steps in (10, 20, 30):
        counters.update("a-0", counters.begin("d/a", "a-0"), {"environment_steps": steps, "frames": 4 * steps})
    state = json.loads(json.dumps(counters.state()))
    assert len(state["actors"]) == 1
    restored = Counters.restore(state)
    assert restored.totals() == counters.totals()
    assert restored.begin("d/a", "a-0") == 3
    restored.update("a-0", 3, {"environment_steps": 5})
    assert restored.totals("d/a")["environment_steps"] == 65
    assert Counters.restore(restored.state()).totals() == restored.totals()


def test_unknown_names_and_incarnations_are_refused():
    counters = Counters()
    with pytest.raises(KeyError):
        counters.update("a-0", 0, {"environment_steps": 1})
    counters.begin("d/a", "a-0")
    with pytest.raises(KeyError):
        counters.update("a-0", 0, {"steps": 1})
