"""`Progress`: what ``clowder record`` says while it goes on: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

import rich.progress

from distributed.console import printer

if TYPE_CHECKING:
    from actors.demonstrations.recording import RecordReport

EVERY_SECONDS = 5.0
"""Between two lines where there is no terminal."""


class Progress:
    """A context manager; give it each report, and each problem as a line that stays."""

    def __init__(self, wanted: int) -> None:
        self._out = printer()
        self._shown_at = 0.0
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("episodes"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[said]}"),
            rich.progress.TimeRemainingColumn(),
            console=self._out,
            disable=not self._out.is_terminal,
            transient=True,
        )
        self._task = self._bar.add_task("", total=wanted, said="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        """A problem."""
        self._bar.console.print(line, markup=False, soft_wrap=True)

    def show(self, report: RecordReport) -> None:
        """How far it is."""
        said = f"return {report.last_return:.2f}, {report.failed} left out"
        self._bar.update(self._task, completed=report.episodes, said=said)
        due = time.monotonic() - self._shown_at > EVERY_SECONDS or report.episodes == report.wanted
        if not self._out.is_terminal and due:
            self._shown_at = time.monotonic()
            print(f"{report.episodes}/{report.wanted}: {said}, {report.seconds:.0f} s", flush=True)
