"""Do returns outlive the context? A trained model played with its cache and without, over 1, 2, 5 and 20 contexts.

    python -m benchmarks.contexts [--minutes 4] [--episodes 20] [--out docs/results/contexts.json]

Two runs of `clowder train` on the quickstart's cart-pole demonstrations with a context of 50 steps (150 tokens) go on
at the same time, each bound to its own half of the cores: one that attends to all of its context, played with
``context=reprefill``, and one trained with ``agent.attention_window`` of half of it, played with ``context=rolling``.
Each is also played with ``context=recompute``, which reads the last 50 steps anew at every step, as in training. The
first 50, 100, 250 and 1,000 steps of the same episodes are compared: differences are paired by evaluation seed.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from actors.evaluator import ci95
from actors.seeds import REPORTING_SEEDS
from agent.config import DecodingConfig
from benchmarks.training_runs import run_side_by_side
from distributed.evaluation import evaluate_task
from distributed.report import write_report
from distributed.trained_run import TrainedRun

STEPS = 50
CONTEXTS = (1, 2, 5, 20)
ACTOR = "cartpole_swingup"
CACHED = {"reprefill": "null", "rolling": str(3 * STEPS // 2)}
"""Cached mode, and the ``agent.attention_window`` that its model is trained with."""


def overrides(window: str, minutes: float) -> list[str]:
    """Of one run: cart-pole alone, from demonstrations alone."""
    return [
        "model=tiny",
        "actors=cartpole_swingup",
        f"agent.attention_window={window}",
        f"learner.minutes={minutes}",
        "learner.steps=100000",
        "learner.learning_rate=2e-3",
        "learner.final_learning_rate_fraction=0.01",
        "learner.bin_smoothing=10",
        "learner.past_action_dropout=1.0",
        "learner.prompt_share=0",
        "learner.windows_per_batch=24",
        f"learner.tokens_per_row={3 * STEPS}",
        f"actors.{ACTOR}.context_steps={STEPS}",
        f"actors.{ACTOR}.num_actors=0",
        "replay.window_length=64",
        "replay.window_stride=8",
        "evaluation.every_seconds=0",
        "evaluation.final_episodes=1",
        "evaluation.decoding.continuous=mean",
        "evaluation.decoding.past_actions=hidden",
        "evaluation.videos=false",
    ]


def returns_of(run: TrainedRun, decoding: DecodingConfig, steps: int, episodes: int, deadline: float) -> list[float]:
    """Returns of the first ``steps`` steps of the reporting episodes."""
    actor = run.config.actors[ACTOR]
    # Control steps of this task are a hundredth of a second.
    shorter = dataclasses.replace(actor, arguments={**actor.arguments, "time_limit": steps / 100})
    played = evaluate_task(
        run.agent,
        run.counters["version"],
        shorter,
        decoding,
        episodes=episodes,
        first_seed=REPORTING_SEEDS,
        seconds=deadline,
        seed=run.config.seed,
    )
    if played.unfinished:
        raise TimeoutError(f"{played.unfinished} episodes did not end within {deadline:.0f} s; raise --deadline")
    return played.returns


def main() -> None:
    """Train what is missing, play, print JSON and a table."""
    parser = argparse.ArgumentParser(description="returns with a cache and without, beyond the context")
    parser.add_argument("--minutes", type=float, default=4.0, help="of learning")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--kept", type=float, default=0.5, help="decoding.kept of reprefill (default: %(default)s)")
    parser.add_argument("--deadline", type=float, default=900.0, help="seconds of one evaluation")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    folders = {cached: options.runs / f"contexts-{cached}" for cached in CACHED}
    run_side_by_side({folders[cached]: overrides(window, options.minutes) for cached, window in CACHED.items()}, 0)

    limits = (options.episodes, options.deadline)
    report: dict[str, Any] = {"context_steps": STEPS, "episodes": options.episodes, "kept": options.kept, "modes": {}}
    rows = []
    for cached, folder in folders.items():
        run = TrainedRun.load(str(folder), [f"evaluation.decoding.kept={options.kept}"], [])
        decoding = run.config.evaluation.decoding
        for contexts in CONTEXTS:
            steps = contexts * STEPS
            with_cache, without = (
                np.array(returns_of(run, dataclasses.replace(decoding, context=mode), steps, *limits))
                for mode in (cached, "recompute")
            )
            difference = with_cache - without
            low, high = ci95(difference.tolist())
            report["modes"].setdefault(cached, {})[contexts] = {
                "cached": with_cache.tolist(),
                "recompute": without.tolist(),
                "difference": float(difference.mean()),
                "difference_ci95": [low, high],
            }
            rows.append(
                f"| {cached} | {contexts} | {with_cache.mean():.1f} | {without.mean():.1f} | "
                f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f}) |"
            )
        report["modes"][cached]["updates"] = run.counters["step_count"]
    write_report("benchmarks.contexts", report, options.out)
    print("\n| cache | contexts | with it | recomputed | difference (95% interval) |\n|---|---|---|---|---|")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
