"""Draws the learning curves of a run from its rows of scalars."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distributed.metrics import read_rows
from distributed.result import Result

COLUMNS = 3


def draw(rows_file: Path, picture: Path, result: Result | None = None) -> None:
    """Write a PNG: for each task the returns against minutes, then loss and rates.

    Lines are the acting policies, points the evaluations while training; the final evaluation of ``result`` is drawn
    with its interval. A run without rows gives a picture that says so.
    """
    # The object interface with its own canvas: pyplot would look for a screen and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(rows_file) if rows_file.exists() else []
    tasks = sorted(
        {name.partition("/")[2] for row in rows for name in row["values"] if name.startswith("return/")}
        | set(result.tasks if result else ())
    )
    panels = [*tasks, "loss", "rates"]
    lines = math.ceil(len(panels) / COLUMNS)
    figure = Figure(figsize=(5 * COLUMNS, 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, COLUMNS, squeeze=False).flatten()
    for axis, name in zip(axes, panels):
        axis.set_title(name)
        axis.set_xlabel("minutes")
        axis.grid(alpha=0.3)
        if name == "loss":
            _plot(axis, rows, "learner/loss", "loss")
        elif name == "rates":
            _plot(axis, rows, "learner/steps_per_s", "learner steps/s")
            for task in tasks:
                _plot(axis, rows, f"actor/environment_steps_per_s/{task}", f"{task} steps/s")
            axis.set_yscale("symlog")
        else:
            axis.set_ylabel("return")
            _plot(axis, rows, f"return/{name}", "acting")
            _plot(axis, rows, f"evaluation/return/{name}", "evaluated", "o")
            _final(axis, rows, result, name)
        if axis.get_legend_handles_labels()[1]:
            axis.legend(fontsize="small")
        else:
            axis.text(0.5, 0.5, "nothing reported", ha="center", transform=axis.transAxes)
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    partial = picture.with_name(f".{picture.name}.partial")
    figure.savefig(partial, format="png", dpi=100)
    partial.replace(picture)


def _plot(axis: Any, rows: Sequence[dict[str, Any]], name: str, label: str, style: str = "-") -> None:
    points = [(row["wall_seconds"] / 60, row["values"][name]) for row in rows if name in row["values"]]
    if points:
        axis.plot(*zip(*points), style, label=label, markersize=4)


def _final(axis: Any, rows: Sequence[dict[str, Any]], result: Result | None, task: str) -> None:
    found = result.tasks.get(task) if result else None
    if result is None or found is None or math.isnan(found.mean_return):
        return
    low, high = found.ci95_mean_return
    minutes = (rows[-1]["wall_seconds"] if rows else result.wall_seconds) / 60
    spread = [[found.mean_return - low], [high - found.mean_return]]
    axis.errorbar([minutes], [found.mean_return], yerr=spread, fmt="s", capsize=4, label="final evaluation (95%)")
