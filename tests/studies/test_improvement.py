"""Paired differences over seeds and episodes, what the arms of the study are told, and what is not run again."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distributed.compose import compose
from studies import improvement
from studies.improvement import ARMS, TASKS, TOGETHER, difference, overrides, panels, ratio, table


def seeds(*means: float, spread: float = 1.0, episodes: int = 50) -> list[np.ndarray]:
    rng = np.random.default_rng(int(abs(sum(means)) * 1000))
    return [mean + spread * rng.standard_normal(episodes) for mean in means]


def test_a_difference_holds_only_where_every_seed_has_its_sign_and_the_interval_is_above_zero() -> None:
    mean, (low, high), holds = difference(seeds(10, 11, 12), seeds(1, 2, 3))
    assert mean == pytest.approx(9, abs=0.5) and low < mean < high and holds
    assert not difference(seeds(10, 11, 2.5), seeds(1, 2, 3))[2]  # one seed is worse
    assert not difference(seeds(1.1, 2.1, 3.1, spread=5), seeds(1, 2, 3, spread=5))[2]  # within the noise


def test_seeds_are_paired_where_their_differences_agree() -> None:
    ours, theirs = seeds(101, 201, 301, spread=0.1), seeds(100, 200, 300, spread=0.1)
    _, (low, high), holds = difference(ours, theirs)
    assert holds and 0.8 < low < high < 1.2  # though seeds differ by a hundred


def test_one_set_beside_all_seeds_is_drawn_once_for_all_of_them() -> None:
    ours, shown = seeds(20, 20, 20, spread=0.01), seeds(10, spread=10, episodes=9)[0]
    mean, (low, high), _ = difference(ours, [shown])
    assert mean == pytest.approx(20 - shown.mean(), abs=0.1)
    assert high - low == pytest.approx(2 * 1.96 * shown.std() / 3, rel=0.1)  # a set for each seed would be narrower
    low, high = difference(ours, [np.full(1, shown.mean())])[1]  # as it is
    assert high - low < 0.1


def test_ratio_is_of_what_is_above_random_play() -> None:
    share, (low, high) = ratio(seeds(90, 90, spread=0.5), seeds(110, 110, spread=0.5), low=10)
    assert share == pytest.approx(0.8, abs=0.01) and low < share < high


def test_together_is_shown_with_a_share_where_there_is_what_it_is_a_share_of() -> None:
    known = {"task": "a", "random": 0.0, "reference": 1.0, "demonstrations": 0.5, "asked": 0.75, "differences": {}}
    alone = known | {"arms": {}, TOGETHER: {"returns": [0.25, 0.125]}}
    both = known | {"arms": {"online": [0.5]}, TOGETHER: {"returns": [0.25], "share": 0.5, "ci95": (0.4, 0.6)}}
    assert "| together | 0.25, 0.125 |" in table([alone]) and "share of alone" not in table([alone])
    assert "| a | 0.50 (0.40 to 0.60) |" in table([both])


def test_curves_are_of_the_episodes_that_runs_made_alone_and_together() -> None:
    levels = {"demonstrations": 27.8, "asked": 30.8}
    runs = {
        "improvement-boxing-online-0": {"own_returns": {"boxing": [[250, 1.0], [500, 2.0]]}},
        "improvement-boxing-offline-0": {"own_returns": {"boxing": []}},
        "improvement-together-online-0": {"own_returns": {"goto": [[250, 0.5]], "boxing": [[250, 3.0]]}},
    }
    found = panels([{"task": "babyai/GoToLocal", **levels}, {"task": "atari/boxing", **levels}], runs)
    assert [(panel.title, panel.curves) for panel in found] == [
        ("babyai/GoToLocal", {TOGETHER: [{250: 0.5}]}),
        ("atari/boxing", {"alone": [{250: 1.0, 500: 2.0}], TOGETHER: [{250: 3.0}]}),
    ]
    assert all(panel.levels == levels for panel in found)


@pytest.mark.parametrize("arm", list(ARMS))
@pytest.mark.parametrize("names", [[name] for name in TASKS] + [list(TASKS)], ids=lambda names: "+".join(names))
def test_arms_have_the_same_data_and_updates(names: list[str], arm: str, tmp_path: Path) -> None:
    config = compose(overrides(names, arm, tmp_path))
    assert list(config.actors) == [TASKS[name].actor for name in names]
    assert (
        config.learner.windows_per_batch == 32 * len(names)
        and config.learner.steps == compose(overrides(names, "online", tmp_path)).learner.steps
    )
    online = arm == "online"
    assert config.learner.objective == ("imitation" if arm == "imitation" else "advantage_filtered")
    for name, actor in zip(names, config.actors.values()):
        assert actor.demonstrations == str(tmp_path / f"weak-{name}")
        assert (actor.num_actors, actor.online_share) == ((1, 0.5) if online else (0, 0.0))


def test_one_model_on_all_tasks_has_a_setting_of_its_own() -> None:
    for names, together in ((["boxing"], False), (list(TASKS), True)):
        config = compose(overrides(names, "online", Path("sets")))
        assert config.learner.calibration == (1.0 if together else 0.0)
        boxing = config.actors["boxing"]
        assert (boxing.critic_gradient, boxing.prior_weight, boxing.calibration) == (0.5, 0.97, 1.0)


REPORT = Path("docs/results/improvement_goto_wide.json")


def again(monkeypatch: pytest.MonkeyPatch, folder: Path, *words: str) -> tuple[dict[str, Any], list[str]]:
    """The study's report with REPORT known, and the runs that it made; these play what REPORT has."""
    before, made = json.loads(REPORT.read_text()), []

    def trained(run: Path, words: Sequence[str]) -> Path:
        made.append(run.name)
        return run

    monkeypatch.setattr(improvement, "record", lambda name, sets: None)  # two thousand episodes
    shown = np.full(9, before["tasks"][0]["demonstrations"])
    monkeypatch.setattr(improvement, "recorded_returns", lambda name, folder: shown)
    monkeypatch.setattr(improvement, "trained", trained)
    returns = {name: {"returns": run["returns"], "own_returns": {}} for name, run in before["runs"].items()}
    monkeypatch.setattr(improvement, "played", lambda run, names, fresh: returns[run.name])
    seeds, out = [str(seed) for seed in before["seeds"]], folder / "report.json"
    arms = list(before["tasks"][0]["arms"])
    options = ["--tasks", "goto", "--known", str(REPORT), "--runs", str(folder), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["improvement", *words, *options, "--seeds", *seeds, "--arms", *arms])
    improvement.main()
    return json.loads(out.read_text()), made


def test_what_a_report_knows_is_not_run_again_and_gives_the_same_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = json.loads(REPORT.read_text())
    after, made = again(monkeypatch, tmp_path, *before["overrides"])
    assert not made and after["runs"] == before["runs"]
    (then,), (now,) = before["tasks"], after["tasks"]
    assert now["arms"] == then["arms"] and now["differences"]["offline"] == then["differences"]["offline"]


def test_what_a_report_has_of_other_settings_is_run_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = json.loads(REPORT.read_text())
    after, made = again(monkeypatch, tmp_path, *before["overrides"], "learner.steps=5")
    assert set(made) == set(before["runs"]) == set(after["runs"])
    assert all("learner.steps=5" in run["settings"] for run in after["runs"].values())


@pytest.mark.parametrize(
    ("path", "words", "message"),
    [
        (REPORT, ("--fresh", "5"), "was made with {'fresh': None}, not {'fresh': 5}"),
        (Path("docs/results/improvement.json"), (), "is no report of this study's runs"),
    ],
)
def test_a_report_of_other_episodes_or_without_runs_is_refused_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    path: Path,
    words: tuple[str, ...],
    message: str,
) -> None:
    known = path.resolve()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["improvement", "--tasks", "goto", *words, "--known", str(known)])
    with pytest.raises(SystemExit):
        improvement.main()
    assert message in capsys.readouterr().err and not list(tmp_path.iterdir())
