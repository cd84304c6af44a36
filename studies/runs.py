"""Runs of a study: `clowder train` in a process of its own, once, and what is asked of its weights."""

from __future__ import annotations

import json
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from distributed.command import run_clowder
from distributed.compose import compose, known_keys, typed
from distributed.config import TrainConfig
from distributed.errors import RunFolderError
from distributed.result import Result
from distributed.run_folder import RunFolder

CPU = "cpu.json"
LIMIT_SECONDS = 24 * 3600.0
"""Of one run or recording of a study; one that takes longer hangs."""


def trained(folder: Path, words: Sequence[str], deadline: float = LIMIT_SECONDS) -> Path:
    """The finished run ``folder``, trained now with overrides ``words`` if there is none, and resumed where it was
    begun and has no result.

    Raises:
        RunFolderError: it was trained with another configuration.
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than ``deadline`` seconds.
    """
    words = [*words, f"name={folder.name}", f"logging.folder={folder.parent}"]
    begun = folder.exists()
    if begun:
        _check_same(folder, words)
    if not (folder / "result.json").exists():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run_clowder(["train", *(["--resume", str(folder)] if begun else words)], deadline)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        if not begun:  # what was spent before it was resumed is not known
            (folder / CPU).write_text(json.dumps({"cpu_seconds": spent}))
    return folder


def _check_same(folder: Path, words: Sequence[str]) -> None:
    then, now = _settings(typed(RunFolder.open(folder).read_config())), _settings(compose(words))
    for key, wanted in now.items():
        if then.get(key) != wanted:
            raise RunFolderError(
                f"{folder} was trained with {key}={then.get(key)}, and the study asks for {wanted} now; move it away "
                "or choose another --runs"
            )


def _settings(config: TrainConfig) -> dict[str, Any]:
    """Every setting by its key; a run may lie elsewhere than where it was trained."""
    tree = OmegaConf.structured(config)
    found = {key: OmegaConf.select(tree, key) for key in known_keys(config) if key != "logging.folder"}
    return {"actors": list(config.actors)} | found


def evaluated(run: Path, name: str, words: Sequence[str]) -> Result:
    """A run's last weights, evaluated again by `clowder evaluate RUN` with ``words``, once: kept as ``<name>.json``.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than a day.
    """
    found = run / f"{name}.json"
    if not found.exists():
        partial = run / f"{name}.partial"  # written too where a deadline cut episodes, which is a failure
        run_clowder(["evaluate", str(run), *words, "--json", str(partial)], LIMIT_SECONDS)
        partial.replace(found)
    return Result.read(found)


def final_result(run: Path) -> Result:
    """Of a finished run; evaluated again, once, where the deadline of its final evaluation cut episodes.

    Raises:
        subprocess.CalledProcessError: it failed.
        subprocess.TimeoutExpired: it took more than a day.
    """
    config, result = typed(RunFolder.open(run).read_config()), Result.read(run / "result.json")
    for actor in config.actors.values():
        wanted = config.evaluation.final_episodes or actor.evaluation_episodes
        found = result.tasks.get(actor.task)
        if found is None or len(found.returns) < wanted:
            words = ["--episodes", str(config.evaluation.final_episodes)] if config.evaluation.final_episodes else []
            return evaluated(run, "evaluated-again", words)
    return result


def returns_of(result: Result) -> np.ndarray:
    """Of the one task of a result, float64 [episodes]."""
    (task,) = result.tasks.values()
    return np.asarray(task.returns, np.float64)


def cpu_seconds(folder: Path) -> float | None:
    """CPU time of a run and all its processes, evaluation too; None where it was resumed or trained by hand."""
    path = folder / CPU
    return float(json.loads(path.read_text())["cpu_seconds"]) if path.exists() else None


def known_runs(path: Path | None, settings: dict[str, Any]) -> dict[str, Any]:
    """``runs`` of an earlier report, by name, which then need not be trained again; none without a path.

    Raises:
        ValueError: a file is no such report, or was made with other ``settings``.
    """
    if path is None:
        return {}
    try:
        report = json.loads(path.read_text())
        runs, before = dict(report["runs"]), {name: report[name] for name in settings}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ValueError(f"--known {path} is no report of this study's runs ({error!r}); leave it out") from None
    if before != settings:
        raise ValueError(f"--known {path} was made with {before}, not {settings}; ask for those or leave it out")
    return runs
