"""The one picture of what a benchmark or a study trained: curves of several seeds, a panel a task."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

COLUMNS = 3
Curve = Mapping[float, float]
"""What was measured, by what it is drawn against."""


@dataclasses.dataclass(frozen=True)
class Panel:
    """Curves that share axes.

    Attributes:
        title: of the panel.
        axes: labels of what is drawn against and of what is drawn.
        curves: of each label, one a seed.
        levels: to be compared with, by label; drawn as dashed lines.
    """

    title: str
    axes: tuple[str, str]
    curves: Mapping[str, Sequence[Curve]]
    levels: Mapping[str, float] = dataclasses.field(default_factory=dict)


def scalar_by_update(rows: Sequence[Mapping[str, Any]], name: str, every: int) -> dict[float, float]:
    """A scalar of a run's rows, its mean over ``every`` updates by the last of them; empty where it has none."""
    found: dict[int, list[float]] = {}
    for row in rows:
        if name in row["values"]:
            found.setdefault(math.ceil(max(1, row["learner_steps"]) / every) * every, []).append(row["values"][name])
    return {float(step): float(np.mean(values)) for step, values in sorted(found.items())}


def mean_curve(curves: Sequence[Curve]) -> dict[float, float]:
    """Mean over seeds where all have begun and none has ended, with straight lines between their points."""
    drawn = [sorted(curve.items()) for curve in curves if curve]
    if not drawn:
        return {}
    first, last = max(points[0][0] for points in drawn), min(points[-1][0] for points in drawn)
    places = sorted({place for points in drawn for place, _ in points if first <= place <= last})
    each = [np.interp(places, *np.transpose(points)) for points in drawn]
    return dict(zip(places, np.mean(each, 0).tolist()))


def draw(panels: Sequence[Panel], picture: Path) -> None:
    """Write a PNG. Thin lines are seeds, a thick one is their mean."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = min(COLUMNS, len(panels))
    lines = math.ceil(len(panels) / columns)
    figure = Figure(figsize=(5 * columns, 3.6 * lines), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for axis, panel in zip(axes, panels):
        axis.set(title=panel.title, xlabel=panel.axes[0], ylabel=panel.axes[1])
        axis.grid(alpha=0.3)
        for number, (label, curves) in enumerate(panel.curves.items()):
            for curve in filter(None, curves):
                axis.plot(list(curve), list(curve.values()), color=f"C{number}", alpha=0.3, lw=1)
            mean = mean_curve(curves)
            axis.plot(list(mean), list(mean.values()), color=f"C{number}", label=label)
        for number, (label, level) in enumerate(panel.levels.items()):
            axis.axhline(level, color="k", alpha=0.6, lw=1, ls=("--", ":")[number % 2], label=label)
        axis.legend(fontsize="small")
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=100)
