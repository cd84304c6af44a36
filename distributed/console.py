"""`Console`: what a run says of itself while it goes on: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import rich.console
import rich.live
import rich.panel
import rich.progress_bar
import rich.table

from actors.redaction import redact
from distributed.config import TrainConfig
from distributed.metrics import bottleneck

CLOCK = ("learner_steps", "environment_steps", "wall_seconds")
"""Keys of a point beside its scalars."""


def printer() -> rich.console.Console:
    """What commands print tables on: as wide as the terminal, and wide enough for them where there is none."""
    out = rich.console.Console(highlight=False)
    return out if out.is_terminal else rich.console.Console(highlight=False, width=120)


class Console:
    """A context manager. Give it each point: the scalars of `MetricsWriter` and the three keys of `CLOCK`.

    Values that are not in a newer point keep their last one, since returns come only when episodes end.
    """

    def __init__(self, config: TrainConfig, out: rich.console.Console | None = None) -> None:
        self.config = config
        self.out = out or rich.console.Console(highlight=False, soft_wrap=True)
        wanted = config.logging.console
        self.form = ("live" if self.out.is_terminal else "lines") if wanted == "auto" else wanted
        self.metrics: dict[str, float] = {}
        self.phase = "starting"
        self._live: rich.live.Live | None = None

    def __enter__(self) -> Console:
        if self.form == "live":
            self._live = rich.live.Live(self._panel(), console=self.out, auto_refresh=False, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def say(self, text: str) -> None:
        """A line that stays: a phase, a restart."""
        if self.form != "off":
            self.out.print(redact(text), markup=False)  # of other people's making, brackets and all

    def set_phase(self, phase: str) -> None:
        """Name what goes on now: one of `distributed.run_folder.PHASES`."""
        if phase != self.phase:
            self.phase = phase
            if self.form == "lines":
                self.say(f"{phase} ...")
            self._refresh()

    def update(self, metrics: Mapping[str, float]) -> None:
        """Show a point."""
        self.metrics |= {key: value for key, value in metrics.items() if math.isfinite(value)}
        if self.form == "lines":
            self.say(line(self.config, self.metrics))
        self._refresh()

    def _refresh(self) -> None:
        if self._live is not None:
            self._live.update(self._panel(), refresh=True)

    def _panel(self) -> rich.panel.Panel:
        table = rich.table.Table.grid(padding=(0, 2))
        table.add_column(style="bold")
        table.add_column()
        if self.phase == "training":
            fraction, words = progress(self.config, self.metrics)
            bar = rich.table.Table.grid(padding=(0, 2))
            bar.add_row(rich.progress_bar.ProgressBar(total=1.0, completed=fraction, width=40), words)
            table.add_row("progress", bar)
        for label, text in rows(self.metrics):
            table.add_row(label, text)
        return rich.panel.Panel(table, title=f"{self.config.name}: {self.phase}", title_align="left", expand=False)


def progress(config: TrainConfig, metrics: Mapping[str, float]) -> tuple[float, str]:
    """How far the nearest stop condition is: a fraction in [0, 1] and words."""
    stop = config.stop
    conditions = [
        (metrics.get("learner_steps", 0.0), float(config.last_step), "learner steps"),
        (metrics.get("wall_seconds", 0.0) / 60, stop.wall_minutes, "minutes"),
        (metrics.get("counts/learner_minutes", 0.0), config.learner.minutes or 0.0, "minutes of learning"),
        (metrics.get("environment_steps", 0.0), float(stop.environment_steps), "environment steps"),
    ]
    done, wanted, unit = max((each for each in conditions if each[1] > 0), key=lambda each: each[0] / each[1])
    form = ",.1f" if "minutes" in unit else ",.0f"
    return min(1.0, done / wanted), f"{done / wanted:.0%} ({done:{form}} of {wanted:{form}} {unit})"


def rows(metrics: Mapping[str, float]) -> list[tuple[str, str]]:
    """Label and text of each row; only what is known. Also what ``clowder status`` prints."""
    shown = [
        ("learner", _joined(
            _text(metrics, "learner_steps", "step {:,.0f}"),
            _text(metrics, "learner/steps_per_s", "{:.2f} steps/s"),
            _text(metrics, "learner/loss", "loss {:.3f}"),
            _data_wait(metrics),
        )),
        ("environments", _joined(
            _text(metrics, "environment_steps", "{:,.0f} steps"),
            _sum(metrics, "actor/environment_steps_per_s/", "{:,.0f} steps/s"),
            _text(metrics, "counts/good_windows", "{:,.0f} good windows"),
        )),
        ("policy lag", _joined(
            _mean(metrics, "actor/weights_age_s/", "weights {:.1f} s old"),
            _mean(metrics, "actor/versions_behind/", "{:.1f} versions behind"),
            _text(metrics, "lag/versions_mean", "learned from {:.1f} versions back"),
            _text(metrics, "lag/seconds_mean", "{:.0f} s"),
        )),
        ("learned from", _joined(*(f"{source} {share:.0%}" for source, share in shares(metrics).items()))),
        ("fleet", _joined(
            _text(metrics, "fleet/alive", "{:.0f} alive"),
            _text(metrics, "fleet/wanted", "of {:.0f}"),
            _text(metrics, "fleet/restarts", "{:.0f} restarts"),
        )),
    ]  # fmt: skip
    shown += [(task, task_row(task, metrics)) for task in tasks_of(metrics)]
    if "learner_steps" in metrics:
        shown.append(("bottleneck", bottleneck(metrics)))
    if "wall_seconds" in metrics:
        shown.append(("time", clock(metrics["wall_seconds"])))
    return [(label, text) for label, text in shown if text]


def shares(metrics: Mapping[str, float]) -> dict[str, float]:
    """Share of each source in the batches, all tasks together."""
    totals: dict[str, float] = {}
    for name, value in _under(metrics, "share/").items():
        source = name.partition("/")[0]
        totals[source] = totals.get(source, 0.0) + value
    return totals


def tasks_of(metrics: Mapping[str, float]) -> list[str]:
    """Tasks that a point says anything of."""
    groups = ("return/", "evaluation/return/", "actor/environment_steps_per_s/")
    return sorted({name.removeprefix(group) for name in metrics for group in groups if name.startswith(group)})


def task_row(task: str, metrics: Mapping[str, float]) -> str:
    """Returns of one task, of the acting policies and of the newest evaluation."""
    return _joined(
        _text(metrics, f"return/{task}", "return {:.1f}"),
        _text(metrics, f"demonstrator_normalised/{task}", "({:.2f} of the demonstrator)"),
        _text(metrics, f"success/{task}", "success {:.0%}"),
        _text(metrics, f"evaluation/return/{task}", "evaluated {:.1f}"),
        _text(metrics, f"actor/environment_steps_per_s/{task}", "{:,.0f} steps/s"),
    )


def line(config: TrainConfig, metrics: Mapping[str, float]) -> str:
    """One point in one line."""
    parts = [
        f"[{clock(metrics.get('wall_seconds', 0.0))}] {progress(config, metrics)[1]}",
        _text(metrics, "learner/steps_per_s", "learner {:.2f} steps/s"),
        _sum(metrics, "actor/environment_steps_per_s/", "environments {:,.0f} steps/s"),
        *(_text(metrics, f"return/{task}", task.partition("/")[2] + " {:.1f}") for task in tasks_of(metrics)),
        f"bottleneck: {bottleneck(metrics)}",
    ]
    return " | ".join(part for part in parts if part)


def clock(seconds: float) -> str:
    """``h:mm:ss``."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def _data_wait(metrics: Mapping[str, float]) -> str:
    step, wait = metrics.get("learner/step_ms", 0.0), metrics.get("learner/data_wait_ms", math.nan)
    return f"data wait {wait / step:.0%}" if step > 0 and math.isfinite(wait) else ""


def _text(metrics: Mapping[str, float], name: str, form: str) -> str:
    return form.format(metrics[name]) if name in metrics else ""


def _under(metrics: Mapping[str, float], prefix: str) -> dict[str, float]:
    return {name.removeprefix(prefix): value for name, value in sorted(metrics.items()) if name.startswith(prefix)}


def _sum(metrics: Mapping[str, float], prefix: str, form: str) -> str:
    values = _under(metrics, prefix).values()
    return form.format(sum(values)) if values else ""


def _mean(metrics: Mapping[str, float], prefix: str, form: str) -> str:
    values = _under(metrics, prefix).values()
    return form.format(sum(values) / len(values)) if values else ""


def _joined(*parts: Any) -> str:
    return ", ".join(part for part in parts if part)
