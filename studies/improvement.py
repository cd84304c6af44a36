"""Better than its demonstrators: `experiment=improvement` from weak demonstrations, beside what it has to beat.

    python -m studies.improvement [--tasks swingup goto boxing together] [--seeds 0 1 2] [--known REPORT] [--out FILE]

Demonstrations are recorded first, by experts that err and whose errors are their labels (`clowder record --expert
weak:...`). Each arm is then one `clowder train` a seed, in ``runs/improvement-<task>-<arm>-<seed>``; what is there is
kept, so the study may be killed and started again, and what an earlier report has, of the same settings, is not made
again. The arms have the same demonstrations and number of updates:

- ``online``: demonstrations and the run's own episodes, half each;
- ``offline``: the same updates without the run's own episodes;
- ``imitation``: Gato's loss on the demonstrations.

``together`` trains one model on all three tasks, with as many windows and environment steps of each as its own run has
and with a setting that a shared model wants (`ONE_MODEL`).

The final checkpoint of each run plays reporting episodes, sampled as it acts; with ``--fresh SEED`` episodes from that
seed on instead, which nothing was chosen by. A difference of two arms is paired by seed; its interval is a bootstrap
over seeds and, within each, over episodes. *Demonstrations* are taken as they are, since nothing else was learned from;
their *demonstrator* is known by as many episodes as it is measured by, which are drawn again, once for all seeds. A
difference *holds* where it has its sign in every seed and the interval does not hold zero. A picture beside ``--out``
shows the returns of the episodes that runs learned from.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from actors.demonstrations.open_set import open_set
from distributed.command import run_clowder
from distributed.compose import compose
from distributed.config import TrainConfig
from distributed.metrics import read_rows
from distributed.report import write_report
from distributed.seed_curves import Curve, Panel, draw, scalar_by_update
from studies.runs import LIMIT_SECONDS, cpu_seconds, evaluated, final_result, known_runs, trained

EXPERIMENT = "experiment=improvement"
RESAMPLES = 10_000
BAR = 0.25
"""Asked of the improvement on the demonstrations: this share of the range from random to reference return."""
CURVE_UPDATES = 250
"""Between the points of a learning curve."""
KEPT = 0.85
"""Asked of one model on all tasks: this share of what it reaches on each alone."""


@dataclasses.dataclass(frozen=True)
class WeakTask:
    """A task and its weak demonstrations.

    Attributes:
        actor: short name of its actor config.
        expert: for `clowder record`.
        episodes: of the set.
        form: of the set.
        evaluated: reporting episodes.
        settings: of the actor in these runs.
        measured: episodes that the demonstrator is known by; 0: the demonstrations are enough.
    """

    actor: str
    expert: str
    episodes: int
    form: str
    evaluated: int
    settings: tuple[str, ...] = ()
    measured: int = 0


TASKS = {
    "swingup": WeakTask("cartpole_swingup_grid", "weak:2:dm-control-mpc", 40, "minari", 100),
    "goto": WeakTask(
        "babyai_goto_local",
        "weak:1@0.5:babyai-bot",
        2000,
        "minari",
        500,
        ("value_temperature=0.5", "imitation_weighting=1", "return_horizon=32", "ends_counted=false"),
    ),
    "boxing": WeakTask(
        "boxing",
        "weak:0.5:atari-rule",
        6,
        "actions",
        40,
        ("imitation_share=0.8", "critic_gradient=0.5", "prior_weight=0.97", "calibration=1"),
        measured=100,
    ),
}
TOGETHER = "together"
ONE_MODEL = ("learner.calibration=1",)
"""Settings of a run of several tasks."""
ONLINE_SHARE, TEMPERATURE = 0.5, 0.5
ARMS: dict[str, tuple[str, ...]] = {
    "online": (),
    "offline": (),
    "imitation": ("learner.objective=imitation", "agent.value_bins=0"),
}


@functools.cache
def experiment() -> TrainConfig:
    """The study's configuration, without what an arm is told; to be read only."""
    return compose([EXPERIMENT])


def record(name: str, sets: Path) -> None:
    """The weak demonstrations of a task, recorded or continued now where they are not there, and its demonstrator's."""
    weak = TASKS[name]
    for folder, episodes in ((f"weak-{name}", weak.episodes), (f"demonstrator-{name}", weak.measured)):
        if episodes:
            words = ["record", weak.actor, "--expert", weak.expert]
            words += ["--episodes", str(episodes), "--form", weak.form, "--out", str(sets / folder)]
            run_clowder(words, LIMIT_SECONDS)


def overrides(names: Sequence[str], arm: str, sets: Path) -> list[str]:
    """What `clowder train` is told for one arm of a run on these tasks."""
    weak = [TASKS[name] for name in names]
    windows = experiment().learner.windows_per_batch
    words = [EXPERIMENT, f"actors=[{','.join(task.actor for task in weak)}]", *ARMS[arm]]
    words.append(f"learner.windows_per_batch={windows * len(names)}")
    words.extend(ONE_MODEL if len(names) > 1 else ())
    for name, task in zip(names, weak):
        key = f"actors.{task.actor}"
        words += [
            f"{key}.demonstrations={(sets / f'weak-{name}').resolve()}",
            f"{key}.action_temperature={TEMPERATURE}",
        ]
        words += [f"{key}.evaluation_episodes={task.evaluated}", *(f"{key}.{setting}" for setting in task.settings)]
        words.append(f"{key}.online_share={ONLINE_SHARE if arm == 'online' else 0.0}")
        if arm != "online":
            words.append(f"{key}.num_actors=0")
    return words


def recorded_returns(name: str, folder: Path) -> np.ndarray:
    """Of a set of a task's episodes, float64 [N]."""
    actor = experiment().actors[TASKS[name].actor]
    with closing(open_set(str(folder), actor)) as opened:
        return np.asarray(opened.returns, np.float64)


def resampled(seeds: Sequence[np.ndarray], rng: np.random.Generator, which: np.ndarray) -> np.ndarray:
    """Means [RESAMPLES] over drawn seeds ``which`` [RESAMPLES, n], each of episodes that are drawn again."""
    means = np.stack([rng.choice(returns, (RESAMPLES, len(returns))).mean(1) for returns in seeds])  # [n, RESAMPLES]
    return means[which, np.arange(RESAMPLES)[:, None]].mean(1)


def difference(
    ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int = 0
) -> tuple[float, tuple[float, float], bool]:
    """Mean difference, its 95% interval, and whether it holds (above zero); both sides by training seed.

    The draws of seeds are the same on both sides, which pairs them; one of ``theirs`` is that of all seeds.
    """
    rng = np.random.default_rng(seed)
    which = rng.integers(len(ours), size=(RESAMPLES, len(ours)))
    drawn = which if len(theirs) > 1 else np.zeros((RESAMPLES, 1), np.int64)
    draws = resampled(ours, rng, which) - resampled(theirs, rng, drawn)
    others = theirs if len(theirs) > 1 else [theirs[0]] * len(ours)
    by_seed = [float(mine.mean() - other.mean()) for mine, other in zip(ours, others)]
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(np.mean(by_seed)), (float(low), float(high)), bool(min(by_seed) > 0 and low > 0)


def ratio(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], low: float) -> tuple[float, tuple[float, float]]:
    """Of means above ``low``, and its 95% interval, as in `difference`."""
    rng = np.random.default_rng(0)
    which = rng.integers(len(ours), size=(RESAMPLES, len(ours)))
    draws = (resampled(ours, rng, which) - low) / (resampled(theirs, rng, which) - low)
    point = (np.mean([each.mean() for each in ours]) - low) / (np.mean([each.mean() for each in theirs]) - low)
    below, above = np.percentile(draws, [2.5, 97.5])
    return float(point), (float(below), float(above))


def main() -> None:
    """Make what is missing, print JSON and tables."""
    parser = argparse.ArgumentParser(description="online learning from weak demonstrations, beside what it has to beat")
    parser.add_argument("--tasks", nargs="+", choices=(*TASKS, TOGETHER), default=[*TASKS, TOGETHER])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--sets", type=Path, default=Path("runs/sets"), help="folder of the recorded sets")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--known", type=Path, help="a report whose runs of the same settings are not made again")
    parser.add_argument("--fresh", type=int, metavar="SEED", help="play episodes from it on, not reporting ones")
    parser.add_argument("--out", type=Path, help="write the JSON here too, and without --fresh a PNG beside it")
    parser.add_argument("overrides", nargs="*", help="key=value of all runs")
    options = parser.parse_args()
    try:
        known = known_runs(options.known, {"fresh": options.fresh})
    except ValueError as error:
        parser.error(str(error))
    alone = [name for name in TASKS if name in options.tasks]
    groups = [[name] for name in alone] + ([list(TASKS)] if TOGETHER in options.tasks else [])
    for name in {name for group in groups for name in group}:
        record(name, options.sets)
    found: dict[tuple[str, str, str], list[np.ndarray]] = {}  # by (task, arm, alone or together): returns by seed
    runs: dict[str, Any] = {}
    for seed in options.seeds:
        for group in groups:
            kind = group[0] if len(group) == 1 else TOGETHER
            for arm in options.arms if len(group) == 1 else ["online"]:
                folder = options.runs / f"improvement-{kind}-{arm}-{seed}"
                words = [*overrides(group, arm, options.sets), f"seed={seed}", *options.overrides]
                settings = [word for word in words if ".demonstrations=" not in word]  # a path of this machine
                run = known.get(folder.name, {})
                if run.get("settings") != settings:
                    run = {"settings": settings, **played(trained(folder, words), group, options.fresh)}
                runs[folder.name] = run
                for name in group:
                    key = (name, arm, "alone" if len(group) == 1 else TOGETHER)
                    found.setdefault(key, []).append(np.array(runs[folder.name]["returns"][name]))
    report = [summary(name, found, options) for name in TASKS if any(key[0] == name for key in found)]
    figures = {"seeds": options.seeds, "fresh": options.fresh, "overrides": options.overrides}
    write_report("studies.improvement", {**figures, "tasks": report, "runs": runs}, options.out)
    # What runs learned from is the same whatever they play at the end.
    if options.out is not None and options.fresh is None and (drawn := panels(report, runs)):
        draw(drawn, options.out.with_suffix(".png"))
    print(table(report))


def played(run: Path, names: Sequence[str], fresh: int | None) -> dict[str, Any]:
    """Of a finished run of these tasks: CPU seconds, returns of its reporting episodes or of fresh ones, and those of
    the episodes that it learned from, by update."""
    result = final_result(run) if fresh is None else evaluated(run, f"fresh-{fresh}", ["--seed", str(fresh)])
    actors = experiment().actors
    tasks = {name: actors[TASKS[name].actor].task for name in names}
    returns = {name: result.tasks[task].returns for name, task in tasks.items()}
    rows = read_rows(run / "metrics.jsonl")
    own = {name: scalar_by_update(rows, f"return/{task}", CURVE_UPDATES) for name, task in tasks.items()}
    own_returns = {name: list(curve.items()) for name, curve in own.items()}
    return {"cpu_seconds": cpu_seconds(run), "returns": returns, "own_returns": own_returns}


def summary(
    name: str, found: dict[tuple[str, str, str], list[np.ndarray]], options: argparse.Namespace
) -> dict[str, Any]:
    """All figures of one task."""
    actor = experiment().actors[TASKS[name].actor]
    assert actor.random_return is not None and actor.reference_return is not None
    shown = recorded_returns(name, options.sets / f"weak-{name}")
    demonstrator = recorded_returns(name, options.sets / f"demonstrator-{name}") if TASKS[name].measured else shown
    span = actor.reference_return - actor.random_return
    arms = {arm: found[name, arm, "alone"] for arm in options.arms if (name, arm, "alone") in found}
    entry: dict[str, Any] = {
        "task": actor.task,
        "random": actor.random_return,
        "reference": actor.reference_return,
        "demonstrations": float(shown.mean()),
        "demonstrator": {"mean": float(demonstrator.mean()), "episodes": len(demonstrator)},
        "asked": float(shown.mean()) + BAR * span,
        "arms": {arm: [float(returns.mean()) for returns in seeds] for arm, seeds in arms.items()},
        "differences": {},
    }
    if "online" in arms:
        others = {"demonstrations": [np.full(1, shown.mean())], "demonstrator": [demonstrator]}
        others |= {arm: seeds for arm, seeds in arms.items() if arm != "online"}
        for other, returns in others.items():
            mean, interval, holds = difference(arms["online"], returns)
            entry["differences"][other] = {"mean": mean, "ci95": interval, "holds": holds, "of_range": mean / span}
    together = found.get((name, "online", TOGETHER))
    if together is not None:
        entry[TOGETHER] = {"returns": [float(each.mean()) for each in together]}
        if "online" in arms:
            share, interval = ratio(together, arms["online"], actor.random_return)
            entry[TOGETHER] |= {"share": share, "ci95": interval}
    return entry


def panels(report: Sequence[dict[str, Any]], runs: Mapping[str, Any]) -> list[Panel]:
    """Returns of the episodes that runs learned from, a panel a task."""
    found: dict[str, dict[str, list[Curve]]] = {}  # by task and kind of run, a curve a seed
    for folder, run in runs.items():
        kind = TOGETHER if folder.startswith(f"improvement-{TOGETHER}-") else "alone"
        for name, points in run["own_returns"].items():
            if points:
                found.setdefault(name, {}).setdefault(kind, []).append(dict(points))
    actors, by_task = experiment().actors, {entry["task"]: entry for entry in report}
    drawn = []
    for name in (name for name in TASKS if name in found):
        entry = by_task[actors[TASKS[name].actor].task]
        levels = {"demonstrations": entry["demonstrations"], "asked": entry["asked"]}
        drawn.append(Panel(entry["task"], ("updates", "return of its own episodes"), found[name], levels))
    return drawn


def table(report: Sequence[dict[str, Any]]) -> str:
    """Markdown of the report."""
    lines = [
        "\n| task | random | reference | demonstrations | asked | arm | mean by seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in report:
        references = f"{entry['random']:.4g} | {entry['reference']:.4g} | {entry['demonstrations']:.4g}"
        for arm, means in entry["arms"].items():
            by_seed = ", ".join(f"{mean:.4g}" for mean in means)
            lines.append(f"| {entry['task']} | {references} | {entry['asked']:.4g} | {arm} | {by_seed} |")
        if TOGETHER in entry:
            by_seed = ", ".join(f"{mean:.4g}" for mean in entry[TOGETHER]["returns"])
            lines.append(f"| {entry['task']} | {references} | {entry['asked']:.4g} | {TOGETHER} | {by_seed} |")
    lines += ["\n| task | online minus | difference (95% interval) | of the range | holds |", "|---|---|---|---|---|"]
    for entry in report:
        for other, found in entry["differences"].items():
            low, high = found["ci95"]
            shown = f"{found['mean']:.4g} ({low:.4g} to {high:.4g})"
            lines.append(f"| {entry['task']} | {other} | {shown} | {found['of_range']:.2f} | {found['holds']} |")
    shares = [entry for entry in report if "share" in entry.get(TOGETHER, ())]
    if shares:
        lines += [f"\n| task | together, share of alone (95% interval; {KEPT} asked) |", "|---|---|"]
        for entry in shares:
            low, high = entry[TOGETHER]["ci95"]
            lines.append(f"| {entry['task']} | {entry[TOGETHER]['share']:.2f} ({low:.2f} to {high:.2f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
