"""Does imitation of what the explorer found play Montezuma's Revenge? `experiment=montezuma` against its demonstration.

    python -m studies.montezuma [--seeds 0 1 2] [--episodes 80] [--out docs/results/montezuma.json]

For each training seed one run of `clowder train experiment=montezuma`, in ``runs/montezuma-seed<N>`` (a finished one is
not run again). Its final checkpoint plays from the reset, no state restored, on the same evaluation seeds under sticky
actions as the *open loop*: the actions of the best demonstration of ``--open-loop`` (found without sticky actions),
played whatever happens, and nothing after them. Pairs that differ are counted by a two-sided sign test. The same
checkpoint plays without sticky actions too; there every episode is the same, so a few are enough.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.config import ActorConfig
from actors.demonstrations.action_set import ActionSet
from actors.demonstrations.open_set import find_set
from actors.environments.make import make_environment
from actors.evaluator import ci95
from actors.seeds import REPORTING_SEEDS
from distributed.compose import compose
from distributed.config import TrainConfig
from distributed.evaluation import evaluate_task
from distributed.report import write_report
from distributed.trained_run import TrainedRun
from studies.runs import trained

EXPERIMENT = "experiment=montezuma"
ACTOR = "montezuma_revenge"
STICKY = "repeat_action_probability"
LIMIT_SECONDS = 3600


def with_sticky(actor: ActorConfig, probability: float) -> ActorConfig:
    """The same task where a frame repeats the action before it with this probability."""
    return dataclasses.replace(actor, arguments={**actor.arguments, STICKY: probability})


def open_loop(actor: ActorConfig, actions: np.ndarray, seeds: range) -> list[float]:
    """Returns of ``actions`` (int [T]) played on each seed, whatever happens."""
    environment = make_environment(actor, 1)
    returns = []
    try:
        for seed in seeds:
            environment.reset([0], [seed])
            total = 0.0
            for action in actions:
                step = environment.step(np.array([action], np.int32))
                total += float(step.reward[0])
                if step.done[0]:
                    break
            returns.append(total)
    finally:
        environment.close()
    return returns


def sign_test(gains: list[float]) -> float:
    """Two-sided probability of so uneven a split of the gains that are not 0, were either sign as likely."""
    better, worse = sum(gain > 0 for gain in gains), sum(gain < 0 for gain in gains)
    n = better + worse
    tail = sum(math.comb(n, k) for k in range(max(better, worse), n + 1)) / 2**n
    return min(1.0, 2 * tail)


def play(folder: Path, config: TrainConfig, sticky: float, seeds: range, seconds: float) -> list[float]:
    """Returns of a run's final checkpoint on ``seeds``, evaluated as ``config`` says, in one thread."""
    torch.set_num_threads(1)
    run = TrainedRun.load(str(folder), [], [])
    played = evaluate_task(
        run.agent,
        run.counters["version"],
        with_sticky(config.actors[ACTOR], sticky),
        config.evaluation.decoding,
        episodes=len(seeds),
        first_seed=seeds.start,
        seconds=seconds,
        seed=config.seed,
    )
    if played.unfinished:
        raise TimeoutError(f"{played.unfinished} episodes did not end within {seconds:.0f} s; raise --deadline")
    return played.returns


def main() -> None:
    """Run what is missing, evaluate, print JSON and a table."""
    parser = argparse.ArgumentParser(description="Montezuma's Revenge by imitation, against its demonstration")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument("--episodes", type=int, default=80, help="under sticky actions")
    parser.add_argument("--open-loop", default="montezuma-revenge-found", help="the set whose best episode is replayed")
    parser.add_argument("--sticky", type=float, default=0.25)
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="that evaluate")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds of one evaluation")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of all runs")
    options = parser.parse_args()
    folders = []
    for seed in options.seeds:
        words = [EXPERIMENT, f"seed={seed}", "evaluation.final_episodes=1", *options.overrides]  # it is evaluated here
        folders.append(trained(options.runs / f"montezuma-seed{seed}", words, LIMIT_SECONDS))
    config = compose([EXPERIMENT, *options.overrides])

    found = ActionSet(find_set(options.open_loop), lambda: make_environment(config.actors[ACTOR], 1))
    actions = found.record(int(found.returns.argmax())).action
    seeds = range(REPORTING_SEEDS, REPORTING_SEEDS + options.episodes)
    blind = open_loop(with_sticky(config.actors[ACTOR], options.sticky), actions, seeds)
    report: dict[str, Any] = {
        "sticky": options.sticky,
        "first_evaluation_seed": REPORTING_SEEDS,
        "demonstration": {"score": float(found.returns.max()), "steps": len(actions)},
        "open_loop": {"mean": statistics.fmean(blind), "ci95": ci95(blind), "returns": blind},
        "runs": {},
    }
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        # In parts, so that all processes end at about the same time; greedy episodes do not depend on it.
        parts = [seeds[: len(seeds) // 2], seeds[len(seeds) // 2 :]]
        jobs = {
            folder: [
                *(pool.submit(play, folder, config, options.sticky, part, options.deadline) for part in parts if part),
                pool.submit(play, folder, config, 0.0, seeds[:2], options.deadline),
            ]
            for folder in folders
        }
        played = {folder: [job.result() for job in each] for folder, each in jobs.items()}
    for seed, folder in zip(options.seeds, folders):
        *under_sticky, without_sticky = played[folder]
        returns = [value for part in under_sticky for value in part]
        run = TrainedRun.load(str(folder), [], [])
        gains = [ours - theirs for ours, theirs in zip(returns, blind)]
        report["runs"][seed] = {
            "mean": statistics.fmean(returns),
            "ci95": ci95(returns),
            "gain": statistics.fmean(gains),
            "better": sum(gain > 0 for gain in gains),
            "worse": sum(gain < 0 for gain in gains),
            "sign_test_p": sign_test(gains),
            "without_sticky": without_sticky,
            "returns": returns,
            "updates": run.counters["step_count"],
            "wall_seconds": run.extra["wall_seconds"],
        }
    every = [run["mean"] for run in report["runs"].values()]
    report["mean"] = statistics.fmean(every)
    write_report("studies.montezuma", report, options.out)
    print(f"\nopen loop: {report['open_loop']['mean']:.0f}")
    print("| training seed | mean | gain | better / worse | sign test p | without sticky |\n|---|---|---|---|---|---|")
    for seed, run in report["runs"].items():
        print(
            f"| {seed} | {run['mean']:.0f} | {run['gain']:+.0f} | {run['better']} / {run['worse']} | "
            f"{run['sign_test_p']:.2g} | {', '.join(f'{value:.0f}' for value in run['without_sticky'])} |"
        )


if __name__ == "__main__":
    main()
