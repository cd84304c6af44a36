"""The evaluation at the end of a run: all tasks with one checkpoint, a few of them at the same time."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import time
from pathlib import Path

import ray

from distributed.errors import ClowderError, root_cause
from distributed.evaluation import Round
from distributed.metrics import MetricsWriter
from distributed.plan import RunPlan
from distributed.processes import EvaluatorProcess, spawn
from distributed.progress import Progress
from distributed.result import Result, task_result
from distributed.run_folder import RunFolder
from distributed.stop_request import StopRequest

log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""An evaluator ends by itself at the deadline, but for a step under way and its video; it is waited for so long."""


def evaluate_in_processes(
    plan: RunPlan,
    progress: Progress,
    checkpoint: Path | None,
    run: RunFolder,
    metrics: MetricsWriter,
    stop: StopRequest,
) -> Result:
    """Evaluate ``checkpoint`` on every task, within ``evaluation.final_minutes`` and in ``num_evaluators`` processes.

    A process that dies is replaced, at most ``num_evaluators`` times in all, and its task is played again, after the
    others. A task whose evaluation fails, or whose process died twice, is in the result as failed, beside what the
    others reached.

    Raises:
        ClowderError: there is no checkpoint.
        KeyboardInterrupt: the run was asked to stop.
    """
    config = plan.config.evaluation
    if checkpoint is None:
        raise ClowderError("training ended before its first update, so there is nothing to evaluate; give it more time")
    end = time.monotonic() + 60 * config.final_minutes
    version = checkpoint_version(checkpoint)
    cpus = plan.config.cluster.evaluator_cpus
    waiting = longest_first(plan)
    rounds: list[Round] = []
    failed: dict[str, str] = {}
    free = [spawn(EvaluatorProcess, plan, 0, cpus=cpus) for _ in range(min(config.num_evaluators, len(waiting)))]
    replacements = len(free)
    died: dict[str, str] = {}
    busy: dict[ray.ObjectRef, tuple[str, object]] = {}
    while busy or (waiting and free):
        while free and waiting:
            name, evaluator = waiting.pop(0), free.pop()
            video = video_path(run, plan, name) if config.videos else None
            left = max(1.0, end - time.monotonic())
            busy[evaluator.evaluate.remote(name, checkpoint, version, left, video)] = (name, evaluator)
        ready, _ = ray.wait(list(busy), num_returns=1, timeout=0.5)
        if stop.requested:
            raise KeyboardInterrupt
        for reference in ready:
            name, evaluator = busy.pop(reference)
            try:
                rounds.append(ray.get(reference, timeout=5.0))
                free.append(evaluator)
            except ray.exceptions.RayTaskError as error:  # the process lives
                failed[name] = root_cause(error)
                free.append(evaluator)
            except ray.exceptions.RayError as error:
                log.warning("the process that evaluated %s died: %s", name, root_cause(error))
                if name in died:
                    failed[name] = f"its process died twice; the last time: {root_cause(error)}"
                else:
                    died[name] = f"its process died, and none was left to evaluate it again: {root_cause(error)}"
                    waiting.append(name)
                if replacements and waiting:
                    replacements -= 1
                    free.append(spawn(EvaluatorProcess, plan, 0, cpus=cpus))
        if time.monotonic() > end + GRACE_SECONDS:
            failed |= {name: "it did not end in time" for name, _ in busy.values()}
            break
    failed |= {name: died.get(name, "no process was left to evaluate it") for name in waiting}
    result = make_result(plan, progress, version, rounds, metrics)
    return dataclasses.replace(result, failed={plan.tasks[name].name: why for name, why in failed.items()})


def longest_first(plan: RunPlan) -> list[str]:
    """Short names of the tasks, the longest episodes first, so that processes end at about the same time."""
    longest = {name: task.max_episode_steps or math.inf for name, task in plan.tasks.items()}
    return sorted(plan.tasks, key=lambda name: -longest[name])


def video_path(run: RunFolder, plan: RunPlan, name: str) -> Path:
    """Where the video of a task goes."""
    return run.videos / f"{plan.tasks[name].name.replace('/', '-')}.mp4"


def checkpoint_version(checkpoint: Path) -> int:
    """Policy version of a checkpoint's weights."""
    return int(json.loads((checkpoint / "state.json").read_text())["counters"]["version"])


def make_result(plan: RunPlan, progress: Progress, version: int, rounds: list[Round], metrics: MetricsWriter) -> Result:
    """The result of a run from one round of each task; rounds and videos go to TensorBoard too."""
    names = {task.name: name for name, task in plan.tasks.items()}
    tasks = {}
    for each in rounds:
        name = names[each.task]
        found = plan.demonstrations.get(name)
        tasks[each.task] = task_result(
            each.returns,
            plan.tasks[name],
            None if found is None else found.random_return,
            None if found is None else found.demonstrator_return,
            each.text,
            each.foretold,
        )
        if each.unfinished:
            log.warning("%s: the deadline cut %d episodes of the evaluation", each.task, each.unfinished)
        if each.no_video:
            log.warning("%s: the video was not written, the scores are kept: %s", each.task, each.no_video)
        if each.video is not None:
            try:
                metrics.video(f"video/{each.task}", Path(each.video), progress.learner_steps)
            except (OSError, ValueError) as error:  # the scores matter more
                log.warning("%s: the video is not shown in TensorBoard: %s", each.task, error)
    progress.of_evaluator(rounds)
    metrics.scalars(
        {f"final/{key.partition('/')[2]}": value for key, value in progress.evaluation_scalars().items()},
        learner_steps=progress.learner_steps,
        environment_steps=progress.environment_steps,
        wall_seconds=progress.wall_seconds,
    )
    return Result(
        seed=plan.config.seed,
        policy_version=version,
        decoding=plan.config.evaluation.decoding.describe(),
        tasks=tasks,
        learner_steps=progress.learner_steps,
        environment_steps=progress.environment_steps,
        wall_seconds=progress.wall_seconds,
        online_windows_learned=int(progress.learner.get("counters", {}).get("online_windows_learned", 0)),
    )
