"""`fused` observations against Gato's `per_element` ones: the quickstart with each, for the same minutes of learning.

    python -m benchmarks.embeddings [--seeds 0 1 2] [--out docs/results/embeddings.json]

Each seed and embedding is one run of `clowder train experiment=quickstart`, in ``runs/quickstart-seed<N>`` and
``runs/quickstart-per-element-seed<N>``; a finished one is not run again. Rows are longer for `per_element`, whose
longest context (eight BabyAI observations of 147 grid values, direction and mission) is 1,300 tokens; all else is
equal. A picture with the learning curves is written beside ``--out``.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from pathlib import Path
from typing import Any

from benchmarks.quickstart import figures_of, run_folder
from benchmarks.report import write_report
from distributed.metrics import read_rows
from distributed.result import Result

EMBEDDINGS: dict[str, tuple[str, ...]] = {
    "fused": (),
    "per_element": ("agent.observation_embedding=per_element", "learner.tokens_per_row=1536"),
}
BIN_MINUTES = 0.5


def label_of(embedding: str) -> str:
    """Part of the run folder's name; the fused runs are the quickstart's own."""
    return "" if embedding == "fused" else f"-{embedding.replace('_', '-')}"


def curve(folder: Path, task: str) -> dict[int, float]:
    """Mean ``demonstrator_normalised`` of the actors' episodes in each half minute of learning."""
    found: dict[int, list[float]] = {}
    minutes = 0.0
    for row in read_rows(folder / "metrics.jsonl"):
        minutes = row["values"].get("counts/learner_minutes", minutes)
        if (value := row["values"].get(f"demonstrator_normalised/{task}")) is not None:
            found.setdefault(int(minutes / BIN_MINUTES), []).append(value)
    return {place: statistics.fmean(values) for place, values in sorted(found.items())}


def draw(folders: dict[str, list[Path]], tasks: list[str], picture: Path) -> None:
    """A panel a task: thin lines are seeds, a thick one their mean; points are the final evaluations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(tasks), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    for axis, task in zip(figure.subplots(1, len(tasks), squeeze=False)[0], tasks):
        axis.set_title(task)
        axis.set_xlabel("minutes of learning")
        axis.set_ylabel("demonstrator normalised")
        axis.grid(alpha=0.3)
        for number, (embedding, runs) in enumerate(folders.items()):
            curves = [curve(folder, task) for folder in runs]
            for each in curves:
                axis.plot([BIN_MINUTES * p for p in each], list(each.values()), color=f"C{number}", alpha=0.3, lw=1)
            shared = sorted({place for each in curves for place in each})
            mean = [statistics.fmean(each[place] for each in curves if place in each) for place in shared]
            axis.plot([BIN_MINUTES * place for place in shared], mean, color=f"C{number}", label=embedding)
            finals = [Result.read(folder / "result.json").tasks[task].demonstrator_normalised for folder in runs]
            end = BIN_MINUTES * (max(shared, default=0) + 1)
            axis.plot([end] * len(finals), finals, "o", color=f"C{number}", markersize=4)
        axis.legend(fontsize="small")
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)


def main() -> None:
    """Run what is missing, aggregate, print JSON and a table, and draw."""
    parser = argparse.ArgumentParser(description="fused against per_element at equal minutes of learning")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too, and a PNG beside it")
    options = parser.parse_args()
    folders = {
        embedding: [run_folder(seed, options.runs, label_of(embedding), overrides) for seed in options.seeds]
        for embedding, overrides in EMBEDDINGS.items()
    }
    results = {embedding: [Result.read(run / "result.json") for run in runs] for embedding, runs in folders.items()}
    tasks = list(results["fused"][0].tasks)
    report: dict[str, Any] = {"seeds": options.seeds}
    for embedding, runs in folders.items():
        scores = {task: [result.tasks[task].demonstrator_normalised for result in results[embedding]] for task in tasks}
        report[embedding] = {
            "overrides": list(EMBEDDINGS[embedding]),
            "demonstrator_normalised": scores,
            "mean": {task: statistics.fmean(values) for task, values in scores.items()},
            "runs": [
                json.loads((folder / "result.json").read_text()) | {"figures": figures_of(folder)} for folder in runs
            ],
        }
    write_report("embeddings", report, options.out)
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
        draw(folders, [task for task in tasks if not task.startswith("text/")], options.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
