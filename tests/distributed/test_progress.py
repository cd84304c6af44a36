"""What the coordinator makes of reports: shares asked and given."""

from distributed.compose import compose
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
