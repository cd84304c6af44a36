"""``clowder evaluate``: play evaluation episodes with a checkpoint of a run and score them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from distributed.commands.run_arguments import add_overrides, add_run

if TYPE_CHECKING:
    from actors.config import ActorConfig
    from agent.context import Prompt
    from agent.task import TaskSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    add_run(parser)
    add_overrides(parser)
    parser.add_argument("--task", action="append", help="only this task; may be repeated (default: all of the run)")
    parser.add_argument("--episodes", type=int, help="per task (default: evaluation_episodes of its actor config)")
    parser.add_argument(
        "--seed", type=int, help="of the first episode; the others follow (default: the reporting seeds)"
    )
    parser.add_argument(
        "--prompt",
        metavar="SET|own|none",
        default="none",
        help="begin every context with the first timesteps of a set's best demonstration (own: the task's own set; "
        "text tasks take none)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores, in the form of result.json")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds for each task (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Print one row a task; exit code 1 where the deadline cut episodes."""
    import dataclasses

    import torch

    from actors.seeds import REPORTING_SEEDS
    from distributed.console import printer
    from distributed.errors import ClowderError, refusing
    from distributed.evaluation import evaluate_task
    from distributed.plan import make_plan
    from distributed.result import Result, print_result, task_result
    from distributed.trained_run import TrainedRun
    from distributed.versions import check_packages

    check_packages()
    if arguments.episodes is not None and arguments.episodes < 1:
        raise ClowderError(f"--episodes must be at least 1, not {arguments.episodes}")
    torch.set_num_threads(1)
    trained = TrainedRun.load(arguments.run, arguments.overrides, arguments.config_dir, arguments.checkpoint)
    names = [trained.short_name(task) for task in arguments.task or ()] or list(trained.config.actors)
    chosen = {name: trained.config.actors[name] for name in names}
    plan = make_plan(dataclasses.replace(trained.config, actors=chosen))
    tasks, unfinished = {}, 0
    prompts = {}
    for name, actor in chosen.items():
        with refusing(f"--prompt {arguments.prompt}: {actor.task}"):
            prompts[name] = task_prompt(arguments.prompt, actor, trained.agent.tasks[actor.task])
    for name, actor in chosen.items():
        with refusing(actor.task):
            played = evaluate_task(
                trained.agent,
                trained.counters["version"],
                actor,
                trained.config.evaluation.decoding,
                episodes=arguments.episodes or actor.evaluation_episodes,
                first_seed=REPORTING_SEEDS if arguments.seed is None else arguments.seed,
                seconds=arguments.deadline,
                seed=trained.config.seed,  # as the run's own final evaluation samples
                prompt=prompts[name],
                discount=trained.config.learner.discount,
            )
        demonstrations = plan.demonstrations.get(name)
        tasks[actor.task] = task_result(
            played.returns,
            plan.tasks[name],
            demonstrations.random_return if demonstrations else None,
            demonstrations.demonstrator_return if demonstrations else None,
            played.text,
            played.foretold,
        )
        unfinished += played.unfinished
        print(f"{actor.task}: {len(played.returns)} episodes in {played.seconds:.0f} s", flush=True)
    result = Result(
        seed=trained.config.seed,
        policy_version=trained.counters["version"],
        decoding=f"{trained.config.evaluation.decoding.describe()}, prompt={arguments.prompt}",
        tasks=tasks,
        learner_steps=trained.counters["step_count"],
        environment_steps=trained.extra["environment_steps"],
        wall_seconds=trained.extra["wall_seconds"],
        online_windows_learned=trained.counters["online_windows_learned"],
    )
    print_result(result, printer())
    if arguments.json:
        result.write(arguments.json)
    if unfinished:
        print(
            f"{unfinished} episodes did not end within {arguments.deadline:g} s and are not counted; raise --deadline"
        )
    return 1 if unfinished else 0


def task_prompt(wanted: str, actor: ActorConfig, task: TaskSpec) -> Prompt | None:
    """The prompt of ``--prompt`` for one task: as many timesteps as training had, half of the context.

    Raises:
        ValueError: the set is of another task, or the task has none of its own, or no room for a prompt.
    """
    import numpy as np

    from actors.demonstrations.open_set import open_set
    from agent.context import Prompt

    if wanted == "none" or (wanted == "own" and task.says_text):  # an episode of one step takes no prompt
        return None
    if wanted == "own" and actor.demonstrations is None:
        raise ValueError("its actor config names no demonstrations; give --prompt a set")
    steps = task.context_steps // 2
    if steps < 1:
        raise ValueError(f"a context of {task.context_steps} timestep has no room for a prompt; use --prompt none")
    demonstrations = open_set(actor.demonstrations or "" if wanted == "own" else wanted, actor, num_envs=1)
    try:
        # The best of those long enough: where reward is for speed, the best of all has little to show.
        long_enough = np.minimum(demonstrations.lengths, steps)
        order = np.lexsort((demonstrations.returns, long_enough, ~demonstrations.noisy))
        episode = demonstrations.episode(int(order[-1]))
    finally:
        demonstrations.close()
    steps = min(steps, episode.length)
    observation = {key: values[:steps] for key, values in episode.observation.items()}
    return Prompt(observation, episode.texts, episode.action[:steps])
