"""Runs of `clowder train` that benchmarks are made of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

LIMIT_SECONDS = 20 * 60


def train_words(folder: Path, seed: int, overrides: Sequence[str]) -> list[str]:
    """What ``clowder`` is told for one run into ``folder``."""
    return ["train", f"name={folder.name}", f"seed={seed}", f"logging.folder={folder.parent}", *overrides]


def train_command(folder: Path, seed: int, overrides: Sequence[str]) -> list[str]:
    """The command of one run into ``folder``."""
    return [sys.executable, "-m", "distributed.cli", *train_words(folder, seed, overrides)]


def run_side_by_side(runs: dict[Path, list[str]], seed: int) -> None:
    """Make those of two runs (folder, overrides) that are not finished, at the same time, each on half of the cores."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    running: list[subprocess.Popen] = []
    try:
        for (folder, overrides), own in zip(runs.items(), (cores[:half], cores[half:] or cores)):
            if not (folder / "result.json").exists():
                bind = ["taskset", "--cpu-list", ",".join(map(str, own))]
                running.append(subprocess.Popen([*bind, *train_command(folder, seed, overrides)]))
        for run in running:
            if code := run.wait(LIMIT_SECONDS):
                raise subprocess.CalledProcessError(code, run.args)
    finally:
        for run in running:
            run.terminate()  # what has ended takes no notice
            run.wait(60)
