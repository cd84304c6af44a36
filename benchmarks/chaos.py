"""A run whose processes are killed and stopped, beside the same run left alone.

    python -m benchmarks.chaos [--seeds 0 1 2] [--steps 4000] [--every 60] [--out docs/results/chaos.json]
    python -m benchmarks.chaos --seeds 0 --roles replayer replay_server --every 15 --no-twin --runs runs/replayers

For each seed two runs of the quickstart's tasks to the same number of updates, in ``runs/chaos-seed<N>`` and
``runs/undisturbed-seed<N>``, one after the other; a finished one is not run again. Into the first a seeded script sends
every ``--every`` seconds SIGKILL or SIGSTOP, to a random process of a random role: environment actors, replayers, the
monitoring evaluator, the parameter store, the replay server, and the learner at most once in five minutes. The
coordinator and Ray's own processes are spared. Recovery times are those that the run's log states. Replayers end when
their sets are in replay and begin anew with an empty replay server: the second form hits them while they work.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import random
import re
import signal
import statistics
import subprocess
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.training_runs import train_command, train_words
from distributed.command import run_clowder
from distributed.compose import compose
from distributed.metrics import read_rows
from distributed.report import write_report
from distributed.result import Result

ROLES = {
    "environment_actor": "EnvironmentActorProcess",
    "replayer": "ReplayerProcess",
    "evaluator": "EvaluatorProcess",
    "parameter_store": "ParameterStoreProcess",
    "replay_server": "replay.server_process",
    "learner": "LearnerProcess",
}
"""What the command line of a process of each role holds."""
LEARNER_SECONDS = 300.0
LIMIT_SECONDS = 2 * 3600
BACK = re.compile(r"(?:(\w+)/\S+|the (replay server|parameter store)) is back after ([0-9.]+) s")
ASKED = {"environment_actor": 20.0, "replayer": 20.0, "replay_server": 45.0, "learner": 45.0}
"""Seconds within which 95 of 100 are to be back."""


def processes(run: psutil.Process) -> dict[str, list[psutil.Process]]:
    """Those that can be shot at now, by role."""
    found: dict[str, list[psutil.Process]] = {}
    for process in run.children(recursive=True):
        with contextlib.suppress(psutil.Error):
            line = " ".join(process.cmdline())
            for role, title in ROLES.items():
                if title in line and process.status() != psutil.STATUS_STOPPED:
                    found.setdefault(role, []).append(process)
    return found


def disturb(command: list[str], seed: int, every: float, roles: Collection[str]) -> list[dict[str, Any]]:
    """Run a command to its end and shoot at what it starts of some roles; what was sent to whom, and when.

    Raises:
        subprocess.CalledProcessError: it failed.
        TimeoutError: it did not end.
    """
    chance, shots = random.Random(seed), []
    began = time.monotonic()
    learner_at = -LEARNER_SECONDS
    run = subprocess.Popen(command)
    try:
        while run.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                run.wait(every)
            now = time.monotonic() - began
            if now > LIMIT_SECONDS:
                raise TimeoutError(f"the run did not end within {LIMIT_SECONDS} s")
            if run.poll() is not None:
                break
            with contextlib.suppress(psutil.Error):
                found = processes(psutil.Process(run.pid))
                soon = {"learner"} if now - learner_at < LEARNER_SECONDS else set()
                if not (can := sorted(found.keys() & set(roles) - soon)):
                    continue
                role = chance.choice(can)
                target = chance.choice(sorted(found[role], key=lambda process: process.pid))
                sent = chance.choice((signal.SIGKILL, signal.SIGSTOP))
                os.kill(target.pid, sent)
                learner_at = now if role == "learner" else learner_at
                shots.append({"seconds": round(now, 1), "role": role, "signal": sent.name})
                print(f"{now:.0f} s: {sent.name} to {role} ({target.pid})", flush=True)
    finally:
        if run.poll() is None:
            run.terminate()
            run.wait(60)
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, command)
    return shots


def recoveries(log: str) -> dict[str, list[float]]:
    """Seconds until something was back, by role, from a run's log."""
    found: dict[str, list[float]] = {}
    for role, named, seconds in BACK.findall(log):
        found.setdefault(role or named.replace(" ", "_"), []).append(float(seconds))
    return found


def consistent(folder: Path) -> list[str]:
    """What does not agree among the counters that a finished run left; empty where all do."""
    result = Result.read(folder / "result.json")
    newest = max(path for path in (folder / "checkpoints").iterdir() if path.name.isdigit())
    state = json.loads((newest / "state.json").read_text())
    rows = read_rows(folder / "metrics.jsonl")
    back = {
        name: sum(later[name] < row[name] for row, later in itertools.pairwise(rows))
        for name in ("learner_steps", "environment_steps")
    }
    # A learner that is replaced goes on from its newest checkpoint.
    allowed = {"learner_steps": len(recoveries((folder / "train.log").read_text()).get("learner", ()))}
    wrong = [f"{name} went back {times} times" for name, times in back.items() if times > allowed.get(name, 0)]
    counters, actors = state["counters"], state["extra"]["counters"]["actors"]
    windows = compose(["experiment=quickstart"]).learner.windows_per_batch
    if sum(counters["windows_learned"].values()) != windows * counters["step_count"]:
        wrong.append("windows learned are not those of all updates")
    if sum(each["counts"]["environment_steps"] for each in actors) != result.environment_steps:
        wrong.append("environment steps of all actors are not those of the result")
    if int(newest.name) != result.learner_steps:
        wrong.append(f"the newest checkpoint is of step {int(newest.name)}, the result of {result.learner_steps}")
    if state["extra"]["environment_steps"] != result.environment_steps:
        wrong.append("environment steps of the checkpoint and of the result differ")
    return wrong


def score(folder: Path) -> dict[str, float]:
    """``demonstrator_normalised`` of each task, of the final evaluation."""
    return {name: task.demonstrator_normalised for name, task in Result.read(folder / "result.json").tasks.items()}


def main() -> None:
    """Run what is missing, aggregate, print JSON and tables."""
    parser = argparse.ArgumentParser(description="Runs that are shot at, beside runs left alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=4000, help="updates of each run")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between two signals")
    parser.add_argument("--roles", nargs="+", choices=ROLES, default=list(ROLES), help="who is shot at")
    parser.add_argument("--no-twin", dest="twin", action="store_false", help="without the runs that are left alone")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of all runs")
    options = parser.parse_args()
    settings = ["experiment=quickstart", "learner.minutes=null", f"learner.steps={options.steps}"]
    settings += ["evaluation.every_seconds=120", "evaluation.episodes=2", "checkpoint.every_seconds=60"]
    settings += ["cluster.restarts=30", *options.overrides]
    runs, seconds = [], dict[str, list[float]]()
    kinds = ("disturbed", "undisturbed") if options.twin else ("disturbed",)
    for seed in options.seeds:
        shot, calm = options.runs / f"chaos-seed{seed}", options.runs / f"undisturbed-seed{seed}"
        if not (shot / "result.json").exists():
            shots = disturb(train_command(shot, seed, settings), seed, options.every, options.roles)
            (shot / "shots.json").write_text(json.dumps(shots))
        if options.twin and not (calm / "result.json").exists():
            run_clowder(train_words(calm, seed, settings), LIMIT_SECONDS)
        found = recoveries((shot / "train.log").read_text())
        for role, times in found.items():
            seconds.setdefault(role, []).extend(times)
        runs.append(
            {
                "seed": seed,
                "updates": Result.read(shot / "result.json").learner_steps,
                "shots": json.loads((shot / "shots.json").read_text()),
                "recoveries": found,
                "inconsistent": consistent(shot),
                "wall_seconds": {
                    kind: Result.read(each / "result.json").wall_seconds for kind, each in zip(kinds, (shot, calm))
                },
                **{kind: score(each) for kind, each in zip(kinds, (shot, calm))},
            }
        )
    means = {kind: statistics.fmean(value for run in runs for value in run[kind].values()) for kind in kinds}
    recovered = {
        role: {"count": len(each), "median": statistics.median(each), "p95": float(np.percentile(each, 95))}
        for role, each in sorted(seconds.items())
    }
    write_report("benchmarks.chaos", {"means": means, "recoveries": recovered, "runs": runs}, options.out)
    print("\n| role | recoveries | median s | 95th percentile s | asked |\n|---|---|---|---|---|")
    for role, each in recovered.items():
        print(f"| {role} | {each['count']} | {each['median']:.1f} | {each['p95']:.1f} | {ASKED.get(role, '-')} |")
    print(f"\n| seed | updates | minutes | signals | counters | {' | '.join(kinds)} |\n|{'---|' * (5 + len(kinds))}")
    for run in runs:
        said = "; ".join(run["inconsistent"]) or "agree"
        scores = " | ".join(f"{statistics.fmean(run[kind].values()):.2f}" for kind in kinds)
        minutes = run["wall_seconds"]["disturbed"] / 60
        print(f"| {run['seed']} | {run['updates']} | {minutes:.0f} | {len(run['shots'])} | {said} | {scores} |")
    if options.twin:
        ratio = means["disturbed"] / means["undisturbed"]
        print(f"\nscore at equal updates: {ratio:.2f} of that left alone (asked: 0.9)")


if __name__ == "__main__":
    main()
