"""Does anything grow in a long run? Memory, descriptors and threads of every process, and shared memory.

    python -m benchmarks.soak [--minutes 60] [--out docs/results/soak.json] [key=value ...]

One run of the quickstart's tasks in ``runs/soak``, looked at every ten seconds. Slopes are least-squares lines over the
looks after ``--warm-up`` minutes, in which tables fill (the overrides make them small), for each process that lived
through all of them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.training_runs import train_command
from distributed.report import write_report

LOOK_SECONDS = 10.0
SMALL_TABLES = ["replay.online_capacity=500", "replay.good_capacity=500", "replay.ends_capacity=200"]
SHARED = "/dev/shm"
ASKED = 0.01
"""Of a process's memory, in ten minutes."""


def title(process: psutil.Process) -> str:
    """What a process is: Ray's name of it, a module of ours, or a program."""
    words = process.cmdline() or [process.name()]
    if words[0].startswith("ray::"):
        return words[0]
    if Path(words[0]).name.startswith("python"):
        words = [word for word in words[1:] if not word.startswith("-")]
    return Path(words[0]).name


def look(run: psutil.Process, titles: dict[int, str]) -> dict[int, tuple[float, float, float]]:
    """(resident bytes, descriptors, threads) of each process of a run, by its id; new ones get a title."""
    found = {}
    for process in [run, *run.children(recursive=True)]:
        with contextlib.suppress(psutil.Error):
            if process.pid not in titles:
                titles[process.pid] = title(process)
            with process.oneshot():
                memory = process.memory_info()
                # Shared pages are weights in Ray's object store, counted once below.
                found[process.pid] = (memory.rss - memory.shared, process.num_fds(), process.num_threads())
    return found


def shared_bytes() -> float:
    """Bytes of shared memory in use on this machine, files that have no name any more (as Ray's) among them."""
    return float(psutil.disk_usage(SHARED).used)


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of a least-squares line, in ten minutes."""
    return float(np.polyfit(times, values, 1)[0]) * 600


def main() -> None:
    """Run, look, print JSON and a table."""
    parser = argparse.ArgumentParser(description="Does anything grow in a long run?")
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--warm-up", type=float, default=15.0, help="minutes that are not looked at")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the run")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of the run")
    options = parser.parse_args()
    settings = ["experiment=quickstart", f"learner.minutes={options.minutes}", "learner.steps=1000000"]
    settings += ["evaluation.every_seconds=300", "evaluation.episodes=2", "evaluation.final_episodes=1", *SMALL_TABLES]
    began, looks = time.monotonic(), list[tuple[float, dict[int, tuple[float, float, float]], float]]()
    titles: dict[int, str] = {}
    process = subprocess.Popen(train_command(options.runs / "soak", 0, [*settings, *options.overrides]))
    try:
        run, end = psutil.Process(process.pid), 60 * (options.minutes + 10)
        status = options.runs / "soak" / "status.json"
        while process.poll() is None and (now := time.monotonic() - began) < end:
            with contextlib.suppress(psutil.Error, OSError, ValueError):
                if now > 60 * options.warm_up and json.loads(status.read_text())["phase"] == "training":
                    looks.append((now, look(run, titles), shared_bytes()))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LOOK_SECONDS)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(60)
    looks = looks[:-2]  # the last may see the fleet's end
    times = [at for at, _, _ in looks]
    rows: list[dict[str, Any]] = []
    for pid in sorted(set.intersection(*(set(each) for _, each, _ in looks)), key=lambda pid: (titles[pid], pid)):
        memory, descriptors, threads = zip(*(each[pid] for _, each, _ in looks))
        rows.append(
            {
                "process": titles[pid],
                "megabytes": memory[-1] / 2**20,
                "growth_of_memory_in_10_min": slope(times, memory) / max(memory),
                "descriptors": [min(descriptors), max(descriptors)],
                "threads": [min(threads), max(threads)],
            }
        )
    shared = [each for _, _, each in looks]
    report = {"minutes": options.minutes, "looks": len(looks), "processes": rows}
    report["shared_megabytes"] = [min(shared) / 2**20, max(shared) / 2**20]
    write_report("benchmarks.soak", report, options.out)
    print("\n| process | MB | growth in 10 minutes | descriptors | threads |\n|---|---|---|---|---|")
    for row in rows:
        spans = " | ".join("{} to {}".format(*map(int, row[key])) for key in ("descriptors", "threads"))
        print(f"| {row['process']} | {row['megabytes']:.0f} | {row['growth_of_memory_in_10_min']:.2%} | {spans} |")
    low, high = report["shared_megabytes"]
    print(f"\nshared memory: {low:.0f} to {high:.0f} MB; asked: growth under {ASKED:.0%} in 10 minutes")


if __name__ == "__main__":
    main()
