"""One HTML page of a run: what it reached, how, and from what data. It needs no network: pictures are inside."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from actors.evaluator import Foretold
from distributed.metrics import read_rows
from distributed.result import Result, TaskResult
from distributed.run_folder import RunFolder, write_whole

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { border-bottom: 1px solid #ddd; padding: .3rem .8rem; text-align: right; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; } pre { background: #f6f6f6; padding: 1rem; overflow-x: auto; } .note { color: #666; }
"""

SAID = (("asked for at the first step", "achieved"), ("value of the first action", "discounted return"))
"""Axes of the calibration plots, one for each of `Foretold.PAIRS`."""
MOST_NAMED = 12
"""Lines of a panel up to which they have a legend."""

Row = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """One line of a panel: the scalar of that name, its label and matplotlib's style."""

    scalar: str
    label: str
    style: str = "-"


def write_run_report(run: RunFolder, out: Path) -> None:
    """Write the page of a run to ``out``, whole; a run that has reported nothing yet gives a page that says so."""
    rows = read_rows(run.metrics) if run.metrics.exists() else []
    result = Result.read(run.result) if run.result.exists() else None
    write_whole(out, page(run, rows, result))


def page(run: RunFolder, rows: Sequence[Row], result: Result | None) -> str:
    """The whole page."""
    config = run.read_config()
    tasks = sorted(actor["task"] for actor in config["actors"].values())
    status = run.read_status()
    last = rows[-1] if rows else {"learner_steps": 0, "environment_steps": 0, "wall_seconds": 0.0}
    parts = [
        f"<h1>{html.escape(run.path.name)}</h1>",
        f"<p>{html.escape(status['phase'])}: {last['learner_steps']:,} learner steps, {last['environment_steps']:,} "
        f"environment steps, {last['wall_seconds'] / 60:.1f} minutes of training.</p>",
        _results(result),
    ]
    for task in tasks:
        parts += [f"<h2>{html.escape(task)}</h2>", _task_panels(rows, task, result.tasks.get(task) if result else None)]
    parts += ["<h2>Learner and replay</h2>", _run_panels(rows), _last_values(rows)]
    written = html.escape(yaml.safe_dump(config, sort_keys=False))
    parts.append(f"<details><summary>Configuration</summary><pre>{written}</pre></details>")
    title = html.escape(f"Clowder: {run.path.name}")
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{STYLE}</style></head><body>\n" + "\n".join(part for part in parts if part) + "\n</body></html>\n"
    )


def _results(result: Result | None) -> str:
    if result is None:
        return '<p class="note">No final evaluation yet.</p>'
    header = ["task", "episodes", "mean return", "95% interval", "demonstrator normalised", "normalised"]
    header += ["asked for", "achieved"]
    body = []
    for name, task in sorted(result.tasks.items()):
        low, high = task.ci95_mean_return
        asked = task.foretold.means("asked", "achieved") or (math.nan, math.nan)
        scores = [_number(value) for value in (task.demonstrator_normalised, task.normalised, *asked)]
        interval = f"{_number(low)} to {_number(high)}"
        body.append([name, str(task.episodes), _number(task.mean_return), interval, *scores])
    body += [[name, why, *[""] * 6] for name, why in sorted(result.failed.items())]
    note = (
        "Demonstrator normalised: 0 is random play, 1 the mean demonstration of this run; normalised: by the task's "
        f"fixed returns. Final checkpoint (version {result.policy_version}), decoding {result.decoding}."
    )
    return _table(header, body) + f'<p class="note">{html.escape(note)}</p>'


def _task_panels(rows: Sequence[Row], task: str, found: TaskResult | None) -> str:
    returns = [
        Line(f"demonstrations/return/{task}", "demonstrations", "--"),
        Line(f"return/{task}", "acting (online data)"),
        Line(f"evaluation/return/{task}", "evaluated", "o"),
    ]
    sources = sorted(_named(rows, "share/", f"/{task}"))
    entropy = [("entropy", "entropy"), ("own_entropy", "of own steps"), ("entropy_multiplier", "multiplier")]
    value = [("value", "mean"), ("advantage_scale", "advantage scale")]
    behind = [("actor/versions_behind", "acting"), ("lag/versions_mean", "learned from")]
    panels = [
        ("return", returns),
        ("loss, nats", [Line(f"learner/loss/{task}", "loss")]),
        ("entropy, share of the most", [Line(f"learner/{name}/{task}", label) for name, label in entropy]),
        ("value of states, points", [Line(f"learner/{name}/{task}", label) for name, label in value]),
        ("versions behind", [Line(f"{name}/{task}", label) for name, label in behind]),
        ("share of a batch", [Line(f"share/{source}/{task}", source) for source in sources]),
        ("windows in replay", [Line(f"replay/size/{source}/{task}", source) for source in sources]),
    ]

    def final(axes: Sequence[Any]) -> None:
        if found is not None and not math.isnan(found.mean_return):
            low, high = found.ci95_mean_return
            spread = [[found.mean_return - low], [high - found.mean_return]]
            at = rows[-1]["learner_steps"] if rows else 0
            axes[0].errorbar([at], [found.mean_return], yerr=spread, fmt="s", capsize=4, label="final (95%)")
            axes[0].legend(fontsize="small")

    return _figure(rows, panels, final) + (_calibration(found) if found is not None else "")


def _calibration(found: TaskResult) -> str:
    """What came of the final episodes against what was said at their first steps."""
    shown = [(words, pairs) for pair, words in zip(Foretold.PAIRS, SAID) if (pairs := found.foretold.pairs(*pair))]
    if not shown:
        return ""
    figure = _new_figure(len(shown), 2)
    for axis, ((said, came), pairs) in zip(figure.subplots(1, len(shown), squeeze=False)[0], shown):
        axis.plot(*zip(*pairs), "o", alpha=0.6)
        ends = [min(map(min, pairs)), max(map(max, pairs))]
        axis.plot(ends, ends, "--", color="grey")
        axis.set_title("calibration")
        axis.set_xlabel(said)
        axis.set_ylabel(came)
    return _image(figure)


def _run_panels(rows: Sequence[Row]) -> str:
    losses = sorted(name for name in _names(rows) if name.startswith("learner/loss/") and name.count("/") == 2)
    reuse = sorted(name for name in _names(rows) if name.startswith("replay/reuse/"))
    asked = sorted(name for name in _names(rows) if name.startswith("replay/samples_per_insert_asked/"))
    memory = sorted(name for name in _names(rows) if name.startswith("memory_mb/"))
    attention = sorted(name for name in _names(rows) if name.startswith("learner/attention_entropy/"))
    panels = [
        ("loss", [Line("learner/loss", "all"), *(Line(name, name.removeprefix("learner/loss/")) for name in losses)]),
        ("gradient norm", [Line("learner/gradient_norm", "before clipping")]),
        ("entropy of attention, share of the most", [Line(name, name.rpartition("/")[2]) for name in attention]),
        ("a second", [Line("learner/steps_per_s", "learner steps")]),
        ("versions behind", [Line("lag/versions_mean", "mean"), Line("lag/versions_p95", "95th percentile")]),
        ("samples an insert", [Line(name, name.removeprefix("replay/")) for name in (*reuse, *asked)]),
        ("resident memory, MB", [Line(name, name.removeprefix("memory_mb/")) for name in memory]),
    ]  # fmt: skip
    return _figure(rows, panels)


def _last_values(rows: Sequence[Row]) -> str:
    if not rows:
        return '<p class="note">Nothing was reported.</p>'
    newest: dict[str, float] = {}
    for row in rows:
        newest |= row["values"]
    body = [[name, _number(value)] for name, value in sorted(newest.items())]
    table = _table(["scalar", "newest value"], body)
    return f"<details><summary>Newest value of every scalar</summary>{table}</details>"


def _figure(rows: Sequence[Row], panels: Iterable[tuple[str, list[Line]]], finish: Any = None) -> str:
    """The panels that have something to show, three in a row, against learner steps."""
    shown = [(title, [line for line in lines if _points(rows, line)]) for title, lines in panels]
    shown = [(title, lines) for title, lines in shown if lines]
    if not shown:
        return ""
    figure = _new_figure(len(shown), 3)
    columns = min(3, len(shown))
    axes = figure.subplots(math.ceil(len(shown) / columns), columns, squeeze=False).flatten()
    for axis, (title, lines) in zip(axes, shown):
        axis.set_title(title)
        axis.set_xlabel("learner steps")
        axis.grid(alpha=0.3)
        for line in lines:
            axis.plot(*zip(*_points(rows, line)), line.style, label=line.label, markersize=4)
        if len(lines) <= MOST_NAMED:
            axis.legend(fontsize="small")
    for axis in axes[len(shown) :]:
        axis.set_axis_off()
    if finish is not None:
        finish(axes)
    return _image(figure)


def _new_figure(panels: int, columns: int) -> Any:
    # The object interface with its own canvas: pyplot would look for a screen and keep figures alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    across = min(columns, panels)
    figure = Figure(figsize=(5 * across, 3.4 * math.ceil(panels / across)), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _image(figure: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return f'<p><img alt="" src="data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"></p>'


def _points(rows: Sequence[Row], line: Line) -> list[tuple[int, float]]:
    return [(row["learner_steps"], row["values"][line.scalar]) for row in rows if line.scalar in row["values"]]


def _names(rows: Sequence[Row]) -> set[str]:
    return {name for row in rows for name in row["values"]}


def _named(rows: Sequence[Row], prefix: str, suffix: str) -> set[str]:
    """What stands between prefix and suffix in the names of scalars."""
    found = [name for name in _names(rows) if name.startswith(prefix) and name.endswith(suffix)]
    return {name.removeprefix(prefix).removesuffix(suffix) for name in found}


def _table(header: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return "<table>" + line(header, "th") + "".join(line(cells, "td") for cells in body) + "</table>"


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:,.4g}"
