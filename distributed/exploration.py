"""`explore`: several explorers on Ray, an archive each: starts, watches, replaces and stops them."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.explorer import checkpoint
from actors.explorer.explorer import ExplorerSettings
from distributed.archive_picture import ArchiveView, ExplorationWriter, view_of
from distributed.exploration_plan import FOLDER, ExplorationFailed, ExplorationPlan
from distributed.stop_request import StopRequest

SAVE_SECONDS = 30.0
"""An archive is saved at most this often, so that a kill loses less than a minute."""
LOOK_SECONDS = 0.5
SAY_SECONDS = 5.0
PICTURE_SECONDS = 60.0
STALL_SECONDS = 300.0
"""A process that made no run for so long is replaced. A run takes 50 milliseconds on an idle core."""
STOP_SECONDS = 60.0
"""To write the last checkpoints."""
MOST_DEATHS = 3


class ExplorerProcess:
    """Ray shell of one explorer. `run` lasts until it is done or stopped; the others answer beside it."""

    def __init__(self, settings: ExplorerSettings, path: Path, frames: int) -> None:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ[variable] = "1"
        self._settings, self._path, self._frames = settings, path, frames
        self._stopping = threading.Event()
        self._newest: dict[str, Any] = {}
        self._view: ArchiveView | None = None

    def run(self) -> dict[str, Any]:
        """Explore from the checkpoint on, if there is one; the last report."""
        from actors.explorer.explorer import Explorer

        exists = self._path.exists()
        explorer = checkpoint.load(self._path, self._settings) if exists else Explorer(self._settings)
        saved = shown = time.monotonic()
        while not self._stopping.is_set() and explorer.progress.frames < self._frames:
            explorer.run()
            now = time.monotonic()
            self._newest = self._describe(explorer)
            if now - saved > SAVE_SECONDS:
                checkpoint.save(explorer, self._path)
                saved = now
            if self._view is None or now - shown > PICTURE_SECONDS:
                self._view, shown = view_of(explorer), now
        checkpoint.save(explorer, self._path)
        self._newest, self._view = self._describe(explorer), view_of(explorer)
        return self._newest

    def _describe(self, explorer: Any) -> dict[str, Any]:
        progress = explorer.progress
        return {
            "frames": progress.frames,
            "runs": progress.runs,
            "cpu_seconds": progress.cpu_seconds,
            "best": progress.best,
            "cells": len(explorer.archive),
            "rooms": len(progress.rooms),
            "scores": len(explorer.finds),
        }

    def report(self) -> dict[str, Any]:
        """Counts after the newest run; empty before the first."""
        return self._newest

    def view(self) -> ArchiveView | None:
        """For a picture of the archive; a minute old at most."""
        return self._view

    def stop(self) -> None:
        """Ask `run` to save and return."""
        self._stopping.set()


@dataclasses.dataclass
class _Member:
    """One seed's process.

    ``rate`` is in frames a second, over the time since the line before.
    """

    seed: int
    handle: Any = None
    running: Any = None
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    rate: float = 0.0
    reported_at: float = 0.0
    progressed_at: float = 0.0
    deaths: int = 0
    done: bool = False


def explore(plan: ExplorationPlan, stop: StopRequest, say: Callable[[str], None]) -> bool:
    """Explore with all seeds; False where it was interrupted. Checkpoints are left in either case.

    Raises:
        ExplorationFailed: a seed's process died more than `MOST_DEATHS` times.
    """
    import ray

    from distributed.ray_cluster import leave, start_private

    started = time.monotonic()
    writer = ExplorationWriter(plan.out / FOLDER / "tensorboard", plan.seeds)
    start_private(num_cpus=plan.processes + 1, object_store_megabytes=100)
    stop.install()  # Ray has put its own SIGTERM handler in
    members = [_Member(seed) for seed in plan.seeds]

    def begin(member: _Member) -> None:
        made: Any = ray.remote(ExplorerProcess)
        options = made.options(num_cpus=1, max_concurrency=4, max_restarts=0)
        member.handle = options.remote(plan.settings(member.seed), plan.archive(member.seed), plan.frames)
        member.running = member.handle.run.remote()
        member.progressed_at = member.reported_at = time.monotonic()
        member.report, member.rate = {}, 0.0

    def end(member: _Member) -> None:
        with contextlib.suppress(Exception):
            _show(member, writer)
        with contextlib.suppress(Exception):
            ray.kill(member.handle)
        member.handle = member.running = None

    said = shown = started
    try:
        while not stop.requested and not all(member.done for member in members):
            active = [member for member in members if member.running is not None]
            waiting = [member for member in members if member.running is None and not member.done]
            for member in waiting[: plan.processes - len(active)]:
                begin(member)
                active.append(member)
            ray.wait([member.running for member in active], timeout=LOOK_SECONDS)
            now = time.monotonic()
            for member in active:
                over, _ = ray.wait([member.running], timeout=0)
                problem = f"made no run for {STALL_SECONDS:.0f} s" if now - member.progressed_at > STALL_SECONDS else ""
                if over:
                    try:
                        _take(member, ray.get(member.running, timeout=LOOK_SECONDS * 4), now)
                        member.done = True
                    except ray.exceptions.RayActorError as error:
                        problem = f"died ({str(error).splitlines()[0]})"
                    except ray.exceptions.RayTaskError as error:
                        raise ExplorationFailed(f"the explorer of seed {member.seed} failed: {error.cause}") from error
                if member.done or problem:
                    end(member)
                if problem:
                    _count_death(member, problem, say)
            if now - said > SAY_SECONDS:
                for member in active:
                    if member.running is not None:
                        with contextlib.suppress(ray.exceptions.RayError):
                            _take(member, ray.get(member.handle.report.remote(), timeout=LOOK_SECONDS * 4), now)
                        writer.scalars(member.seed, member.report, member.rate)
                        if now - shown > PICTURE_SECONDS:
                            with contextlib.suppress(ray.exceptions.RayError):
                                _show(member, writer)
                shown = now if now - shown > PICTURE_SECONDS else shown
                say(_line(now - started, plan, members))
                said = now
        running = [member for member in members if member.running is not None]
        for member in running:
            member.handle.stop.remote()
        if running:
            late = ray.wait([m.running for m in running], num_returns=len(running), timeout=STOP_SECONDS)[1]
            if late:
                say(f"{len(late)} explorers did not stop within {STOP_SECONDS:.0f} s; their last checkpoints stay")
    finally:
        for member in members:
            if member.report:
                writer.scalars(member.seed, member.report, member.rate)
        writer.close()
        leave()
    return not stop.requested


def _count_death(member: _Member, problem: str, say: Callable[[str], None]) -> None:
    member.deaths += 1
    if member.deaths > MOST_DEATHS:
        raise ExplorationFailed(f"the explorer of seed {member.seed} {problem}, for the {member.deaths}th time")
    say(f"the explorer of seed {member.seed} {problem}; it is started again from its last checkpoint")


def _take(member: _Member, report: dict[str, Any], now: float) -> None:
    """Note a report: its rate, and whether anything went on since the one before."""
    before = member.report.get("frames")
    if report and report["frames"] != before:
        if before is not None and now > member.reported_at:
            member.rate = (report["frames"] - before) / (now - member.reported_at)
        member.progressed_at = now
    if report:
        member.report, member.reported_at = report, now


def _show(member: _Member, writer: ExplorationWriter) -> None:
    import ray

    view = ray.get(member.handle.view.remote(), timeout=5.0)
    if view is not None:
        writer.picture(member.seed, view)


def _line(seconds: float, plan: ExplorationPlan, members: list[_Member]) -> str:
    clock = f"[{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}]"
    parts = []
    for member in members:
        report = member.report
        if not report:
            parts.append(f"seed {member.seed} {'waits' if member.running is None else 'starts'}")
            continue
        rooms = f", {report['rooms']} rooms" if report["rooms"] else ""
        parts.append(
            f"seed {member.seed}: {report['frames'] / 1e6:.2f}M of {plan.frames / 1e6:g}M frames"
            + ("" if member.done else f", {member.rate:,.0f}/s")
            + f", {report['cells']:,} cells{rooms}, best {report['best']:,}"
        )
    return f"{clock} {' | '.join(parts)}"
