"""What watching costs a run that nothing befalls: CPU time by clocks of processes and threads, and throughput.

    python -m benchmarks.supervision [--blocks 20] [--seconds 30] [--out docs/results/supervision.json] [key=value ...]

One run of the quickstart's tasks in ``runs/supervision``, with a checkpoint every 30 s. In every second block the
coordinator is stopped (SIGSTOP), so that nobody watches; what the learner did then is read from its first reports
afterwards. CPU time, over the blocks that are watched, of the learner's process, of its threads that write checkpoints,
and of the whole coordinator, which watches and writes metrics.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.training_runs import train_command
from distributed.metrics import read_rows
from distributed.report import write_report

CHECKPOINT_CPU = "learner/checkpoint_cpu_s"
ASKED = 0.02
"""Of the learner's CPU time, at most."""
START_SECONDS, ROW_SECONDS = 180.0, 60.0


def newest(folder: Path) -> dict[str, float]:
    """The newest row of a run's metrics; empty where there is none."""
    rows = read_rows(folder / "metrics.jsonl") if (folder / "metrics.jsonl").exists() else []
    return {name: rows[-1][name] for name in ("learner_steps", "wall_seconds")} if rows else {}


def checkpoint_seconds(folder: Path) -> float:
    """CPU seconds of the threads that write checkpoints so far."""
    rows = read_rows(folder / "metrics.jsonl")
    return next((row["values"][CHECKPOINT_CPU] for row in reversed(rows) if CHECKPOINT_CPU in row["values"]), 0.0)


def next_row(folder: Path, deadline: float) -> dict[str, float]:
    """The row after the present one; TimeoutError after ``deadline`` seconds."""
    before, end = newest(folder).get("wall_seconds"), time.monotonic() + deadline
    while (row := newest(folder)).get("wall_seconds") == before:
        if time.monotonic() > end:
            raise TimeoutError(f"{folder}: no row of metrics within {deadline:g} s")
        time.sleep(0.1)
    return row


def busy(process: psutil.Process) -> float:
    """CPU seconds of a process so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def blocks(
    folder: Path, coordinator: psutil.Process, learner: psutil.Process, count: int, seconds: float
) -> list[dict[str, Any]]:
    """Updates a second and CPU seconds of each block; in every second one the coordinator is stopped."""

    def clocks() -> np.ndarray:
        return np.array([busy(learner), checkpoint_seconds(folder), busy(coordinator)])

    found = []
    for number in range(count):
        first, before = next_row(folder, ROW_SECONDS), clocks()
        if number % 2:
            coordinator.suspend()
        try:
            time.sleep(seconds)
        finally:
            coordinator.resume()
        next_row(folder, ROW_SECONDS)  # it may still hold an older report
        last = next_row(folder, ROW_SECONDS)
        rate = (last["learner_steps"] - first["learner_steps"]) / (last["wall_seconds"] - first["wall_seconds"])
        spent = dict(zip(("learner_cpu_s", "checkpoint_cpu_s", "coordinator_cpu_s"), (clocks() - before).tolist()))
        found.append({"watched": number % 2 == 0, "updates_per_s": rate, **spent})
    return found


def main() -> None:
    """Run, measure, print JSON and a summary."""
    parser = argparse.ArgumentParser(description="What watching costs")
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=30.0, help="of one block")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run, which is deleted first")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of the run")
    options = parser.parse_args()
    folder = options.runs / "supervision"
    shutil.rmtree(folder, ignore_errors=True)
    settings = ["experiment=quickstart", "learner.minutes=600", "learner.steps=1000000", "checkpoint.every_seconds=30"]
    run = subprocess.Popen(train_command(folder, 0, [*settings, *options.overrides]))
    try:
        coordinator, end = psutil.Process(run.pid), time.monotonic() + START_SECONDS
        while newest(folder).get("learner_steps", 0) < 20:
            if time.monotonic() > end or run.poll() is not None:
                raise TimeoutError(f"no update within {START_SECONDS:g} s")
            time.sleep(1.0)
        learner = next(
            each for each in coordinator.children(recursive=True) if "LearnerProcess" in " ".join(each.cmdline())
        )
        measured = blocks(folder, coordinator, learner, options.blocks, options.seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.pid, signal.SIGCONT)
        run.terminate()
        run.wait(60)
    spent = {name: sum(block[name] for block in measured if block["watched"]) for name in measured[0] if "cpu" in name}
    rates = [block["updates_per_s"] for block in measured]
    ratios = [watched / alone for watched, alone in zip(rates[::2], rates[1::2])]
    report = {
        **spent,
        "checkpoint_threads_share": spent["checkpoint_cpu_s"] / spent["learner_cpu_s"],
        "coordinator_share": spent["coordinator_cpu_s"] / spent["learner_cpu_s"],
        "blocks": measured,
        "median_ratio_of_neighbours": statistics.median(ratios),
    }
    write_report("benchmarks.supervision", report, options.out)
    print(
        f"\nof the learner's CPU time: checkpoint threads {report['checkpoint_threads_share']:.2%}, the coordinator "
        f"{report['coordinator_share']:.2%}; asked: under {ASKED:.0%} together\n"
        f"updates a second, watched over not watched: median {statistics.median(ratios):.3f} of {len(ratios)} pairs "
        f"({min(ratios):.3f} to {max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
