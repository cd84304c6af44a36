"""`Reporter`: tells one point of a run to TensorBoard, the rows file, the console and the status file alike."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping

import yaml

from distributed.config import to_dict
from distributed.console import Console
from distributed.metrics import MetricsWriter
from distributed.plan import RunPlan
from distributed.progress import Progress
from distributed.run_folder import RunFolder
from learner.checkpoint import latest_checkpoint

log = logging.getLogger(__name__)


class Reporter:
    """What a run knows and says of itself.

    Attributes:
        checkpoint: the newest whole one of the folder, which the run goes on from, or None.
        progress: its counters and clock.
        metrics: the writer.
    """

    def __init__(self, plan: RunPlan, run: RunFolder, console: Console) -> None:
        self.checkpoint = checkpoint = latest_checkpoint(run.checkpoints)
        step = None if checkpoint is None else checkpoint.step
        # Where there are rows and no checkpoint, all steps come again.
        resumed_from = -1 if step is None and run.metrics.exists() else step
        self.progress = Progress(plan, None if checkpoint is None else checkpoint.extra)
        self.metrics = MetricsWriter(run.tensorboard, run.metrics, resumed_from=resumed_from)
        self.metrics.text("config", yaml.safe_dump(to_dict(plan.config), sort_keys=False), step or 0)
        self.metrics.task_pages([spec.name for spec in plan.specs])
        self._run, self._console, self._every = run, console, plan.config.logging.every_seconds
        self._at = time.monotonic()

    @property
    def due(self) -> bool:
        """``logging.every_seconds`` have passed since the last point."""
        return time.monotonic() - self._at >= self._every

    def point(self, further: Mapping[str, float] | None = None) -> None:
        """One point of all scalars of `Progress`, and ``further`` ones."""
        self._at = time.monotonic()
        progress = self.progress
        steps, taken, seconds = progress.learner_steps, progress.environment_steps, progress.wall_seconds
        values = progress.scalars() | dict(further or {}) | {"system/metrics_lost": float(self.metrics.failures)}
        self.metrics.scalars(values, learner_steps=steps, environment_steps=taken, wall_seconds=seconds)
        clock = {"learner_steps": steps, "environment_steps": taken, "wall_seconds": seconds}
        self._console.update(values | clock)
        self._write_status()

    def phase(self, phase: str) -> None:
        """Enter one of `distributed.run_folder.PHASES`."""
        self._console.set_phase(phase)
        self._write_status()

    def _write_status(self) -> None:
        """What a full disk does not take is said, and the run goes on."""
        try:
            self._run.write_status(self._console.phase, self._console.metrics)
        except OSError as error:
            log.error("status.json was not written: %s", error)
