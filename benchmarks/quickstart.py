"""What the quickstart reaches over training seeds, and what its runs say of themselves.

    python -m benchmarks.quickstart [--seeds 0 1 2] [--out docs/results/quickstart.json]

Each seed is one run of `clowder train experiment=quickstart`, in ``runs/quickstart-seed<N>``; a finished one is not run
again. The score of a task is the mean over seeds of the final checkpoint's ``demonstrator_normalised``: no seed and no
checkpoint is chosen.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.training_runs import LIMIT_SECONDS, train_words
from distributed.command import run_clowder
from distributed.report import write_report
from distributed.result import Result


def run_folder(seed: int, runs: Path) -> Path:
    """The finished run of one seed, made now if there is none."""
    folder = runs / f"quickstart-seed{seed}"
    if not (folder / "result.json").exists():
        run_clowder(train_words(folder, seed, ["experiment=quickstart"]), LIMIT_SECONDS)
    return folder


def figures_of(folder: Path) -> dict[str, Any]:
    """Medians over one run's points, from its ``metrics.jsonl``."""
    points = [json.loads(line)["values"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    def median(name: str) -> float:
        return statistics.median(point[name] for point in points if name in point)

    def last(prefix: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for point in points:
            found |= {name: value for name, value in point.items() if name.startswith(prefix)}
        return found

    return {
        "time_to_first_update_s": median("system/time_to_first_update_s"),
        "learner_step_ms": median("learner/step_ms"),
        "learner_data_wait_fraction": median("learner/data_wait_fraction"),
        "lag_versions_mean": median("lag/versions_mean"),
        "lag_seconds_mean": median("lag/seconds_mean"),
        "environment_steps_per_s": {
            name.removeprefix("actor/environment_steps_per_s/"): median(name)
            for name in last("actor/environment_steps_per_s/")
        },
        "final_share": {name.removeprefix("share/"): value for name, value in last("share/").items()},
        "share_asked": {name.removeprefix("share_asked/"): value for name, value in last("share_asked/").items()},
        "memory_mb": {name.removeprefix("memory_mb/"): value for name, value in last("memory_mb/").items()},
    }


def main() -> None:
    """Run what is missing, aggregate, print JSON and a table."""
    parser = argparse.ArgumentParser(description="The quickstart over training seeds")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    folders = [run_folder(seed, options.runs) for seed in options.seeds]
    results = [Result.read(folder / "result.json") for folder in folders]
    scores = {task: [result.tasks[task].demonstrator_normalised for result in results] for task in results[0].tasks}
    write_report(
        "benchmarks.quickstart",
        {
            "seeds": options.seeds,
            "mean_demonstrator_normalised": {task: statistics.fmean(values) for task, values in scores.items()},
            "runs": [
                json.loads((folder / "result.json").read_text()) | {"figures": figures_of(folder)} for folder in folders
            ],
        },
        options.out,
    )
    print("\n| task | " + " | ".join(f"seed {seed}" for seed in options.seeds) + " | mean |")
    print("|---|" + "---|" * (len(options.seeds) + 1))
    for task, values in scores.items():
        cells = " | ".join(f"{value:.2f}" for value in values)
        print(f"| {task} | {cells} | {statistics.fmean(values):.2f} |")
    for task, first in results[0].tasks.items():
        for name in list(vars(first.text))[1:] if first.text is not None else ():
            each = [getattr(result.tasks[task].text, name) for result in results]
            cells = " | ".join(f"{value:.2f}" for value in each)
            print(f"| {task}: {name.replace('_', ' ')} | {cells} | {statistics.fmean(each):.2f} |")


if __name__ == "__main__":
    main()
