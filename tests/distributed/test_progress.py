"""What the coordinator makes of reports: shares asked and given."""

import logging

from actors.evaluator import Foretold
from distributed.compose import compose
from distributed.evaluation import Round
from distributed.plan import make_plan
from distributed.progress import Progress


def point(updates: int, demonstrations: float, good: float) -> tuple[int, dict[str, float]]:
    task = "gymnasium/CartPole-v1"
    return updates, {
        f"share_asked/demonstrations/{task}": 0.75,
        f"share_asked/good/{task}": 0.25,
        f"share_actual/demonstrations/{task}": demonstrations,
        f"share_actual/good/{task}": good,
    }


def test_the_log_says_which_source_gave_less_than_was_asked_and_by_how_much() -> None:
    progress = Progress(make_plan(compose(["actors=[cartpole_v1]"])))
    assert progress.share_gaps() == []
    progress.of_learner({"learner_steps": 30, "points": [point(10, 1.0, 0.0), point(20, 0.75, 0.25)]})
    (gap,) = progress.share_gaps()
    assert gap.startswith("good/gymnasium/CartPole-v1 gave 8.33% fewer of all windows than was asked (25.00%)")
    progress.of_learner({"learner_steps": 100, "points": [point(70, 0.75, 0.25)]})
    (gap,) = progress.share_gaps()
    assert "2.50% fewer" in gap


def test_the_score_of_a_checkpoint_is_the_mean_of_all_tasks_newest_evaluations() -> None:
    plan = make_plan(compose(["actors=[cartpole_v1,cartpole_balance]"]))
    progress, tasks = Progress(plan), list(plan.tasks.values())

    def evaluate(task: int, normalised: float) -> None:
        spec = tasks[task]
        value = spec.random_return + normalised * (spec.reference_return - spec.random_return)
        progress.of_evaluator([Round(spec.name, 1, [value], Foretold(), 0, 1.0)])

    evaluate(0, 0.25)
    assert progress.state()["score"] is None
    evaluate(1, 0.5)
    evaluate(0, 0.75)
    assert abs(progress.state()["score"] - 0.625) < 1e-6
    assert abs(Progress(plan, progress.state()).score - 0.625) < 1e-6


def test_why_a_checkpoint_was_not_written_is_said_once(caplog) -> None:
    progress = Progress(make_plan(compose(["actors=[cartpole_v1]"])))
    for why in ("", "", "the disk is full", "the disk is full"):
        progress.of_learner({"learner_steps": 1, "points": [], "checkpoint_failure": why})
    assert [record.levelno for record in caplog.records] == [logging.ERROR] and "the disk is full" in caplog.text
