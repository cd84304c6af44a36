"""`fused` observations against Gato's `per_element` ones: the quickstart's tasks with each, for the same minutes.

    python -m benchmarks.embeddings [--seeds 0 1 2] [--out docs/results/embeddings.json]

For each seed both embeddings are runs of `clowder train experiment=quickstart` without environment actors (both learn
from the same demonstrations, and all of a core learns) that go on at the same time, each bound to its own half of the
cores: what disturbs the machine disturbs both. Their folders are ``runs/embeddings-<embedding>-seed<N>``; a finished
one is not run again. An observation is 5 to 180 tokens where `fused` has one to three, so with the quickstart's
batches `per_element` makes one update while `fused` makes thirty. It is given a quarter of the windows and a context of
two BabyAI steps, not eight; all else is equal. A picture of the losses by minute is written beside ``--out``: they are
nats of the same targets.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.training_runs import run_side_by_side
from distributed.metrics import read_rows
from distributed.report import write_report
from distributed.result import Result
from distributed.seed_curves import Panel, draw

EMBEDDINGS: dict[str, tuple[str, ...]] = {
    "fused": (),
    "per_element": (
        "agent.observation_embedding=per_element",
        "learner.windows_per_batch=28",
        "learner.tokens_per_row=512",
        "actors.babyai_goto_local.context_steps=2",
    ),
}
EPISODES = {"cartpole_swingup": 10, "babyai_goto_local": 20, "boxing": 4, "babyai_questions": 100}
SHARED = (
    "experiment=quickstart",
    "learner.minutes=6",
    "evaluation.final_minutes=8",
    "evaluation.num_evaluators=1",
    *(f"actors.{name}.num_actors=0" for name in ("cartpole_swingup", "babyai_goto_local", "boxing")),
    *(f"actors.{name}.evaluation_episodes={episodes}" for name, episodes in EPISODES.items()),
)
BIN_MINUTES = 0.25


def curve(folder: Path, task: str) -> dict[float, float]:
    """Mean loss of a task, in nats of a target, by the minute of learning in steps of a quarter."""
    found: dict[int, list[float]] = {}
    minutes = 0.0
    for row in read_rows(folder / "metrics.jsonl"):
        minutes = row["values"].get("counts/learner_minutes", minutes)
        if (value := row["values"].get(f"learner/loss/{task}")) is not None:
            found.setdefault(int(minutes / BIN_MINUTES), []).append(value)
    return {BIN_MINUTES * place: statistics.fmean(values) for place, values in sorted(found.items())}


def panel(folders: dict[str, list[Path]], task: str) -> Panel:
    """Losses of a task by minute."""
    curves = {embedding: [curve(folder, task) for folder in runs] for embedding, runs in folders.items()}
    return Panel(task, ("minutes of learning", "nats of a target"), curves)


def main() -> None:
    """Run what is missing, aggregate, print JSON and a table, and draw."""
    parser = argparse.ArgumentParser(description="fused against per_element, side by side")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too, and a PNG beside it")
    options = parser.parse_args()
    folders = {
        embedding: [options.runs / f"embeddings-{embedding}-seed{seed}" for seed in options.seeds]
        for embedding in EMBEDDINGS
    }
    for seed, *pair in zip(options.seeds, *folders.values()):
        run_side_by_side({run: [*SHARED, *EMBEDDINGS[embedding]] for run, embedding in zip(pair, EMBEDDINGS)}, seed)
    results = {embedding: [Result.read(run / "result.json") for run in runs] for embedding, runs in folders.items()}
    tasks = list(results["fused"][0].tasks)
    report: dict[str, Any] = {"seeds": options.seeds}
    for embedding, runs in folders.items():
        scores = {task: [result.tasks[task].demonstrator_normalised for result in results[embedding]] for task in tasks}
        report[embedding] = {
            "overrides": list(EMBEDDINGS[embedding]),
            "demonstrator_normalised": scores,
            "mean": {task: statistics.fmean(values) for task, values in scores.items()},
            "runs": [json.loads((folder / "result.json").read_text()) for folder in runs],
        }
    write_report("benchmarks.embeddings", report, options.out)
    print("\n| task | " + " | ".join(f"{embedding}: seeds, mean" for embedding in EMBEDDINGS) + " |")
    print("|---|" + "---|" * len(EMBEDDINGS))
    for task in tasks:
        cells = []
        for embedding in EMBEDDINGS:
            values = report[embedding]["demonstrator_normalised"][task]
            shown = ", ".join("-" if math.isnan(value) else f"{value:.2f}" for value in values)
            cells.append(f"{shown}; {statistics.fmean(values):.2f}")
        print(f"| {task} | " + " | ".join(cells) + " |")
    if options.out is not None:
        draw([panel(folders, task) for task in tasks], options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
