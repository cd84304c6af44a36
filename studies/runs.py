"""Runs of a study: `clowder train` in a process of its own, once, what is asked of its weights, and earlier reports."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distributed.result import Result

CPU = "cpu.json"
LIMIT_SECONDS = 24 * 3600.0
"""Of one run or recording of a study; one that takes longer hangs."""


def trained(folder: Path, words: Sequence[str], deadline: float = LIMIT_SECONDS) -> Path:
    """The finished run ``folder``, trained now with overrides ``words`` if there is none.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than ``deadline`` seconds.
    """
    if not (folder / "result.json").exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "distributed.cli", "train", *words]
        command += [f"name={folder.name}", f"logging.folder={folder.parent}"]
        subprocess.run(command, check=True, timeout=deadline)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        (folder / CPU).write_text(json.dumps({"cpu_seconds": spent}))
    return folder


def evaluated(run: Path, name: str, words: Sequence[str]) -> Result:
    """A run's last weights, evaluated again by `clowder evaluate RUN` with ``words``, once: kept as ``<name>.json``.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than a day.
    """
    found = run / f"{name}.json"
    if not found.exists():
        command = [sys.executable, "-m", "distributed.cli", "evaluate", str(run), *words, "--json", str(found)]
        subprocess.run(command, check=True, timeout=LIMIT_SECONDS)
    return Result.read(found)


def returns_of(result: Result) -> np.ndarray:
    """Of the one task of a result, float64 [episodes]."""
    (task,) = result.tasks.values()
    return np.asarray(task.returns, np.float64)


def known_runs(paths: Sequence[Path], settings: dict[str, Any]) -> dict[str, Any]:
    """``runs`` of earlier reports of a study, by name, which then need not be trained again.

    Raises:
        ValueError: a file is no such report, or was made with other ``settings``.
    """
    found: dict[str, Any] = {}
    for path in paths:
        try:
            report = json.loads(path.read_text())
            runs, before = report["runs"], {name: report[name] for name in settings}
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"--known {path} is no report of this study's runs ({error!r}); leave it out") from None
        if before != settings:
            raise ValueError(f"--known {path} was made with {before}, not {settings}; ask for those or leave it out")
        found |= runs
    return found


def cpu_seconds(folder: Path) -> float | None:
    """CPU time of a run and all its processes, its evaluation included; None where it was trained by hand."""
    path = folder / CPU
    return float(json.loads(path.read_text())["cpu_seconds"]) if path.exists() else None
