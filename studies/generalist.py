"""One set of weights on twenty tasks of four domains: `experiment=generalist`, from sets that are recorded first.

    python -m studies.generalist [--seed 0] [--processes 2] [--out docs/results/generalist.json] [key=value ...]

What is missing is made, and what is there is kept: the sets (`clowder record`, in ``--sets``), the run
(`clowder train experiment=generalist`, in ``runs/generalist-seed<N>``). Then the final checkpoint plays reporting
episodes of every task; what was played stays in ``study.json`` of the run, so that the study may be killed and started
again. ``demonstrator_normalised`` is 0 for random play, as measured beside each recording, and 1 for
the mean demonstration. The intervals of domains are rliable's: episodes are resampled task by task (stratified
bootstrap).
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import statistics
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.open_set import open_set
from actors.evaluator import ci95
from actors.seeds import REPORTING_SEEDS
from distributed.command import run_clowder
from distributed.compose import compose
from distributed.evaluation import evaluate_task
from distributed.report import write_report
from distributed.run_folder import write_whole
from distributed.trained_run import TrainedRun
from studies.runs import LIMIT_SECONDS, trained

EXPERIMENT = "experiment=generalist"
EPISODES = {"dm_control": 20, "atari": 10, "babyai": 600, "metaworld": 40}
"""Demonstrations of each task, by domain."""
FORM = {"atari": "actions"}
"""Of the sets; whole episodes elsewhere."""
NOISE = {
    "dm_control": ["0.3", "0.6", "--noise-share", "0.6"],
    "metaworld": ["0.3", "0.6", "--noise-share", "0.6"],
}
"""Disturbances of a share of the episodes (DART), so that what is imitated finds back."""
DOMAINS = {"dm_control": "state", "atari": "pixels", "babyai": "grid with text", "metaworld": "arm"}


def domain_of(actor: ActorConfig) -> str:
    """``dm_control``, ``atari``, ``babyai`` or ``metaworld``."""
    return actor.task.partition("/")[0]


def record(actors: dict[str, ActorConfig], sets: Path, processes: int) -> dict[str, str]:
    """Demonstrations by short name: shipped ones, and those that are recorded or continued here."""
    found = {}
    for name, actor in actors.items():
        if actor.demonstrations is not None:
            found[name] = actor.demonstrations
            continue
        domain, folder = domain_of(actor), sets / name
        words = ["record", actor.task, "--out", str(folder)]
        words += ["--episodes", str(EPISODES[domain]), "--processes", str(processes)]
        words += ["--form", FORM.get(domain, "minari")]
        words += ["--noise", *NOISE[domain]] if domain in NOISE else []
        run_clowder(words, LIMIT_SECONDS)
        found[name] = str(folder.resolve())
    return found


def normalised_intervals(scores: dict[str, np.ndarray]) -> dict[str, tuple[float, float, float]]:
    """Mean over tasks and its 95% interval, by domain, of episodes' scores [episodes, tasks]."""
    from rliable import library, metrics

    means, intervals = library.get_interval_estimates(scores, metrics.aggregate_mean, reps=10_000)
    found = {}
    for domain in scores:
        low, high = np.ravel(intervals[domain])
        found[domain] = (float(np.ravel(means[domain])[0]), float(low), float(high))
    return found


def play(run: TrainedRun, sets: dict[str, str], episodes: int, deadline: float) -> dict[str, dict[str, Any]]:
    """The reporting episodes of each task, by its short name; what ``study.json`` of the run holds is not played again.

    Raises:
        ValueError: a set does not say what random play reaches.
        TimeoutError: a task's episodes did not end within ``deadline`` seconds.
    """
    settings = {"version": run.counters["version"], "episodes": episodes}
    settings["decoding"] = dataclasses.asdict(run.config.evaluation.decoding)
    kept = run.folder.path / "study.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    tasks: dict[str, dict[str, Any]] = found["tasks"] if found.get("settings") == settings else {}
    for name, actor in run.config.actors.items():
        if name in tasks:
            continue
        with closing(open_set(sets[name], actor)) as demonstrations:
            low, high = demonstrations.settings.random_return, demonstrations.demonstrator_return
        if low is None:
            raise ValueError(f"{sets[name]} does not say what random play reaches; record it again")
        played = evaluate_task(
            run.agent,
            run.counters["version"],
            actor,
            run.config.evaluation.decoding,
            episodes=episodes,
            first_seed=REPORTING_SEEDS,
            seconds=deadline,
            seed=run.config.seed,
        )
        if played.unfinished:
            raise TimeoutError(f"{actor.task}: {played.unfinished} episodes did not end; raise --deadline")
        mean = statistics.fmean(played.returns)
        tasks[name] = {
            "task": actor.task,
            "random": low,
            "demonstrator": high,
            "mean": mean,
            "ci95": ci95(played.returns),
            "demonstrator_normalised": (mean - low) / (high - low),
            "returns": played.returns,
        }
        write_whole(kept, json.dumps({"settings": settings, "tasks": tasks}))
        print(f"{actor.task}: {tasks[name]['demonstrator_normalised']:.2f} in {played.seconds:.0f} s", flush=True)
    return tasks


def main() -> None:
    """Make what is missing, play, print JSON and tables."""
    parser = argparse.ArgumentParser(description="one set of weights on twenty tasks of four domains")
    parser.add_argument("--seed", type=int, default=0, help="of training")
    parser.add_argument("--sets", type=Path, default=Path("runs/sets"), help="folder of the recorded sets")
    parser.add_argument("--processes", type=int, default=2, help="that record")
    parser.add_argument("--episodes", type=int, default=20, help="of the evaluation, each task")
    parser.add_argument("--deadline", type=float, default=1200.0, help="seconds of one task's evaluation")
    parser.add_argument(
        "--play", nargs="*", default=[], metavar="KEY=VALUE", help="settings of evaluation that differ from the run's"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of the run")
    options = parser.parse_args()
    if importlib.util.find_spec("rliable") is None:
        parser.error("the intervals need rliable: pip install -c constraints.txt -e '.[bench]'")

    sets = record(dict(compose([EXPERIMENT]).actors), options.sets, options.processes)
    words = [EXPERIMENT, f"seed={options.seed}", *(f"actors.{name}.demonstrations={at}" for name, at in sets.items())]
    words += ["evaluation.final_episodes=1", *options.overrides]
    folder = trained(options.runs / f"generalist-seed{options.seed}", words)

    run = TrainedRun.load(str(folder), options.play, [])
    tasks = play(run, sets, options.episodes, options.deadline)
    scores: dict[str, list[np.ndarray]] = {}
    for name, task in tasks.items():
        low, high = task["random"], task["demonstrator"]
        normalised = (np.array(task["returns"]) - low) / (high - low)
        scores.setdefault(DOMAINS[domain_of(run.config.actors[name])], []).append(normalised)
    domains = normalised_intervals({domain: np.stack(each, 1) for domain, each in scores.items()})
    median = statistics.median(task["demonstrator_normalised"] for task in tasks.values())
    report = {
        "seed": options.seed,
        "episodes": options.episodes,
        "updates": run.counters["step_count"],
        "decoding": dataclasses.asdict(run.config.evaluation.decoding),
        "wall_seconds": run.extra["wall_seconds"],
        "median": median,
        "domains": {name: {"mean": mean, "ci95": [low, high]} for name, (mean, low, high) in domains.items()},
        "tasks": list(tasks.values()),
    }
    write_report("studies.generalist", report, options.out)
    print(f"\nmedian demonstrator_normalised: {median:.2f}")
    print("\n| task | random | demonstrator | agent (95% interval) | demonstrator normalised |\n|---|---|---|---|---|")
    for task in tasks.values():
        low, high = task["ci95"]
        reached = f"{task['mean']:.4g} ({low:.4g} to {high:.4g})"
        references = f"{task['random']:.4g} | {task['demonstrator']:.4g}"
        print(f"| {task['task']} | {references} | {reached} | {task['demonstrator_normalised']:.2f} |")
    print("\n| domain | mean | 95% interval |\n|---|---|---|")
    for name, (mean, low, high) in domains.items():
        print(f"| {name} | {mean:.2f} | {low:.2f} to {high:.2f} |")


if __name__ == "__main__":
    main()
