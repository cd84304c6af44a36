"""``clowder evaluate``: play evaluation episodes with a run's newest checkpoint and score them."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("run", metavar="RUN", help="a run folder, or its name in runs/")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="evaluation.* only, such as evaluation.decoding.discrete=greedy",
    )
    parser.add_argument("--task", action="append", help="only this task; may be repeated (default: all of the run)")
    parser.add_argument("--episodes", type=int, help="per task (default: evaluation_episodes of its actor config)")
    parser.add_argument(
        "--seed", type=int, help="of the first episode; the others follow (default: the reporting seeds)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the scores, in the form of result.json")
    parser.add_argument("--deadline", type=float, default=1800.0, help="seconds for each task (default: %(default)s)")
    parser.add_argument(
        "--config-dir",
        metavar="DIR",
        action="append",
        default=[],
        help="your own folder with actors/, for tasks with an entry_point",
    )


def run(arguments: argparse.Namespace) -> int:
    """Print one row a task; exit code 1 where the deadline cut episodes."""
    import dataclasses

    import torch

    from actors.evaluator import REPORTING_SEEDS
    from distributed.console import printer
    from distributed.errors import ClowderError, refusing
    from distributed.evaluation import evaluate_task
    from distributed.plan import make_plan
    from distributed.result import Result, result_table, task_result
    from distributed.trained_run import TrainedRun
    from distributed.versions import check_packages

    check_packages()
    if arguments.episodes is not None and arguments.episodes < 1:
        raise ClowderError(f"--episodes must be at least 1, not {arguments.episodes}")
    torch.set_num_threads(1)
    trained = TrainedRun.load(arguments.run, arguments.overrides, arguments.config_dir)
    names = [trained.short_name(task) for task in arguments.task or ()] or list(trained.config.actors)
    chosen = {name: trained.config.actors[name] for name in names}
    plan = make_plan(dataclasses.replace(trained.config, actors=chosen))
    tasks, unfinished = {}, 0
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
            )
        demonstrations = plan.demonstrations.get(name)
        tasks[actor.task] = task_result(
            played.returns,
            plan.tasks[name],
            demonstrations.random_return if demonstrations else None,
            demonstrations.demonstrator_return if demonstrations else None,
        )
        unfinished += played.unfinished
        print(f"{actor.task}: {len(played.returns)} episodes in {played.seconds:.0f} s", flush=True)
    result = Result(
        seed=trained.config.seed,
        policy_version=trained.counters["version"],
        decoding=trained.config.evaluation.decoding.describe(),
        tasks=tasks,
        learner_steps=trained.counters["step_count"],
        environment_steps=trained.extra["environment_steps"],
        wall_seconds=trained.extra["wall_seconds"],
        online_windows_learned=trained.counters["online_windows_learned"],
    )
    printer().print(result_table(result))
    if arguments.json:
        result.write(arguments.json)
    if unfinished:
        print(
            f"{unfinished} episodes did not end within {arguments.deadline:g} s and are not counted; raise --deadline"
        )
    return 1 if unfinished else 0
