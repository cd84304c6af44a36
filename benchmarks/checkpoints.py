"""Checkpoints: for how long one makes the learner wait, how long it takes to be on disk, and what its thread costs.

    python -m benchmarks.checkpoints [--model small base gato-79m] [--rounds 5] [--folder DIR] [--out FILE]

The learner makes an update, a checkpoint begins, and the learner goes on with updates until it is on disk, of the same
model as in `benchmarks.learner`. Written in the learner's thread, all of it would be a pause.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from agent.agent import Agent
from agent.config import AgentConfig
from benchmarks.learner import STEPS, TOKENS_PER_ROW, PreparedWindows, benchmark_task
from distributed.compose import compose
from distributed.report import write_report
from learner.batch_source import TaskSources
from learner.checkpoint import whole_checkpoints
from learner.checkpoint_writer import CheckpointWriter
from learner.config import CheckpointConfig, LearnerConfig
from learner.learner import Learner


def measure(config: AgentConfig, rounds: int, folder: Path) -> dict[str, Any]:
    """Medians over ``rounds`` checkpoints, and the longest pause."""
    task = benchmark_task(STEPS)
    sources = {task.name: TaskSources(task, 1.0, (0.0, 0.0), {"demonstrations": PreparedWindows(task)})}
    settings = LearnerConfig(windows_per_batch=1, tokens_per_row=TOKENS_PER_ROW, steps=10_000, prompt_share=0.0)
    learner = Learner(Agent(config, [task]), sources, settings, seed=0)
    learner.step()
    writer = CheckpointWriter(folder, CheckpointConfig(keep=1, best=0))
    pauses, writes, alone, beside = [], [], [], []
    for number in range(1, rounds + 1):
        alone.append(_seconds(learner))
        writer.begin(learner, {})
        pauses.append(writer.pause_ms)
        saved = learner.step_count
        while not (newest := whole_checkpoints(folder)) or int(newest[-1].name) != saved:
            if writer.failures:
                raise RuntimeError(f"checkpoint {number} was not written: {writer.why}")
            beside.append(_seconds(learner))
        writes.append(writer.write_seconds)
    learner.close()
    return {
        "parameters": learner.agent.parameter_count(),
        "megabytes": sum(path.stat().st_size for path in whole_checkpoints(folder)[-1].iterdir()) / 1e6,
        "pause_ms": statistics.median(pauses),
        "longest_pause_ms": max(pauses),
        "write_seconds": statistics.median(writes),
        "cpu_seconds": writer.cpu_seconds / rounds,
        "update_seconds_alone": statistics.median(alone),
        "update_seconds_beside": statistics.median(beside) if beside else None,
    }


def _seconds(learner: Learner) -> float:
    started = time.perf_counter()
    learner.step()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Checkpoints: the learner's pause, the time to disk, the thread's CPU")
    parser.add_argument("--model", nargs="+", default=["small", "base", "gato-79m"], help="presets")
    parser.add_argument("--rounds", type=int, default=5, help="checkpoints of each (default: %(default)s)")
    parser.add_argument("--folder", type=Path, help="on the disk to measure (default: a temporary one)")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    figures = {}
    for name in options.model:
        preset = compose([f"model={name}", "actors=[cartpole_swingup]"]).agent
        config = dataclasses.replace(preset, observation_embedding="per_element", stochastic_depth=0.0)
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            figures[name] = measure(config, options.rounds, Path(folder))
    write_report("benchmarks.checkpoints", {"rounds": options.rounds, "models": figures}, options.out)


if __name__ == "__main__":
    main()
