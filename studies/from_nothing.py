"""Learning without demonstrations: `experiment=cartpole` or `experiment=balance`, beside PPO of stable-baselines3.

    python -m studies.from_nothing --task cartpole [--seeds 0 1 2 3 4] [--out docs/results/cartpole.json]

Each seed is one `clowder train`, in ``runs/<task>-seed<N>`` (kept, and not trained again), evaluated in step with the
learner by the policy as it acts, on monitoring seeds, and at the end on reporting seeds. *Solved at* is the first of
three evaluations in a row that reach the bar; *held* says whether all later ones did. PPO plays the same environment
(through the same adapter), with settings of RL Baselines3 Zoo for CartPole, and is evaluated as often, as it acts and
greedily, on 100 monitoring seeds. CPU seconds are of whole processes; evaluations are left out for PPO and included for
Clowder.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import importlib.util
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from actors.config import ActorConfig
from actors.environments.make import make_environment
from actors.seeds import MONITORING_SEEDS
from distributed.compose import compose
from distributed.metrics import read_rows
from distributed.report import write_report
from distributed.seed_curves import Panel, draw
from studies.runs import cpu_seconds, final_result, trained

EXPERIMENTS = {"cartpole": ("cartpole_v1", 475.0), "balance": ("cartpole_balance_grid", 900.0)}
"""Actor config and bar of each task, by the name of its experiment."""
IN_A_ROW = 3
EPISODES = 100
TESTED_AT_ONCE = 20
"""Environments of PPO's evaluation."""


@dataclasses.dataclass(frozen=True)
class Point:
    """One evaluation: after so many environment steps, the mean return of the policy as it acts."""

    environment_steps: int
    mean_return: float


def solved_at(points: Sequence[Point], bar: float) -> int | None:
    """Environment steps of the first of three evaluations in a row that reach the bar; None where there are none."""
    for first in range(len(points) - IN_A_ROW + 1):
        if all(point.mean_return >= bar for point in points[first : first + IN_A_ROW]):
            return points[first].environment_steps
    return None


def held(points: Sequence[Point], bar: float) -> bool:
    """Whether it is solved, and every evaluation from then on reaches the bar."""
    at = solved_at(points, bar)
    return at is not None and all(point.mean_return >= bar for point in points if point.environment_steps >= at)


def clowder(experiment: str, seed: int, runs: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """Train one seed, unless it is there, and read its evaluations."""
    name, bar = EXPERIMENTS[experiment]
    folder = runs / f"{experiment}-seed{seed}"
    task = compose([f"experiment={experiment}"]).actors[name].task
    trained(folder, [f"experiment={experiment}", f"seed={seed}", *overrides])
    evaluated = f"evaluation/return/{task}"
    points = [
        Point(row["environment_steps"], row["values"][evaluated])
        for row in read_rows(folder / "metrics.jsonl")
        if evaluated in row["values"]
    ]
    result = final_result(folder)
    return {
        "seed": seed,
        "points": [dataclasses.asdict(point) for point in points],
        "solved_at": solved_at(points, bar),
        "held": held(points, bar),
        "final": result.tasks[task].mean_return,
        "final_ci95": result.tasks[task].ci95_mean_return,
        "environment_steps": result.environment_steps,
        "learner_steps": result.learner_steps,
        "cpu_seconds": cpu_seconds(folder),
    }


class Adapted(gymnasium.Env[np.ndarray, int]):
    """One environment of Clowder as Gymnasium has them; arrays of an observation are laid end to end."""

    def __init__(self, config: ActorConfig, seed: int, stride: int = 1) -> None:
        self._environment = make_environment(config, 1)
        size = sum(spec.size for spec in self._environment.task.observation.values())
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(self._environment.task.action.num_values)  # type: ignore[assignment]
        self._next, self._stride = seed, stride

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Without a ``seed``, episodes have those that begin with its own, ``stride`` apart."""
        super().reset(seed=seed)
        if seed is None:
            seed = self._next
            self._next += self._stride
        return self._flat(self._environment.reset([0], [seed])), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        """One step."""
        step = self._environment.step(np.array([action], np.int32))
        return (
            self._flat(step.observation),
            float(step.reward[0]),
            bool(step.terminated[0]),
            bool(step.truncated[0]),
            {},
        )

    def _flat(self, observation: dict[str, Any]) -> np.ndarray:
        return np.concatenate([np.ravel(value[0]) for value in observation.values()]).astype(np.float32)


def vector(config: ActorConfig, seed: int, count: int) -> Any:
    """``count`` environments for stable-baselines3, whose episodes all have seeds of their own, from ``seed`` on.

    `make_vec_env` seeds neighbours alike: what one of them plays, the next has played before.
    """
    from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor

    return VecMonitor(DummyVecEnv([functools.partial(Adapted, config, seed + place, count) for place in range(count)]))


def ppo(experiment: str, seed: int, steps: int, every: int) -> dict[str, Any]:
    """Train PPO for so many environment steps, evaluating it every so many, sampled (as it acts) and greedily."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.evaluation import evaluate_policy

    torch.set_num_threads(1)
    name, bar = EXPERIMENTS[experiment]
    actor = compose([f"experiment={experiment}"]).actors[name]
    training = vector(actor, 10_000 * seed, 8)
    # RL Baselines3 Zoo's settings for CartPole-v1, without their decay.
    model = PPO(
        "MlpPolicy", training, n_steps=32, batch_size=256, n_epochs=20, gae_lambda=0.8, gamma=0.98, ent_coef=0.0,
        learning_rate=1e-3, clip_range=0.2, seed=seed, device="cpu",
    )  # fmt: skip
    points: list[Point] = []
    greedy: list[Point] = []
    spent = 0.0
    while model.num_timesteps < steps:
        began = time.process_time()
        model.learn(every, reset_num_timesteps=False)
        spent += time.process_time() - began
        for found, deterministic in ((points, False), (greedy, True)):
            with closing(vector(actor, MONITORING_SEEDS, TESTED_AT_ONCE)) as testing:
                mean, _ = evaluate_policy(model, testing, EPISODES, deterministic=deterministic)
            found.append(Point(model.num_timesteps, float(np.mean(mean))))
        print(f"PPO, seed {seed}: {points[-1]} (greedy {greedy[-1].mean_return:.0f})", flush=True)
    training.close()
    return {
        "seed": seed,
        "points": [dataclasses.asdict(point) for point in points],
        "greedy": [dataclasses.asdict(point) for point in greedy],
        "solved_at": solved_at(points, bar),
        "solved_at_greedy": solved_at(greedy, bar),
        "held": held(points, bar),
        "cpu_seconds": spent,
    }


def between(experiment: str, overrides: Sequence[str]) -> int:
    """Environment steps between two evaluations of Clowder's runs."""
    config = compose([f"experiment={experiment}", *overrides])
    actor = config.actors[EXPERIMENTS[experiment][0]]
    return config.evaluation.every_steps * config.cluster.serial_steps * actor.num_actors * actor.envs_per_actor


def panel(task: str, report: Mapping[str, Any]) -> Panel:
    """Returns of both agents' evaluations by environment steps."""
    curves = {
        label: [{point["environment_steps"]: point["mean_return"] for point in run["points"]} for run in report[key]]
        for label, key in (("Clowder", "clowder"), ("PPO", "ppo"))
        if report[key]
    }
    return Panel(task, ("environment steps", "return"), curves, {"solved": report["bar"]})


def main() -> None:
    """Train what is missing, print JSON and a table."""
    parser = argparse.ArgumentParser(description="learning without demonstrations, beside PPO")
    parser.add_argument("--task", choices=tuple(EXPERIMENTS), default="cartpole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--ppo-steps", type=int, help="of PPO (default: as many as Clowder's; 0: without PPO)")
    parser.add_argument("--out", type=Path, help="write the JSON here too, and a PNG beside it")
    parser.add_argument("overrides", nargs="*", help="key=value of the runs")
    options = parser.parse_args()
    if options.ppo_steps != 0 and importlib.util.find_spec("stable_baselines3") is None:
        parser.error("PPO needs stable-baselines3: pip install -c constraints.txt -e '.[bench]'")
    bar, every = EXPERIMENTS[options.task][1], between(options.task, options.overrides)
    if not every:
        parser.error("evaluation.every_steps must be above 0: when it is solved is read off these evaluations")
    ours = [clowder(options.task, seed, options.runs, options.overrides) for seed in options.seeds]
    steps = max(run["environment_steps"] for run in ours) if options.ppo_steps is None else options.ppo_steps
    theirs = [ppo(options.task, seed, steps, every) for seed in options.seeds] if steps else []
    report = {"bar": bar, "clowder": ours, "ppo": theirs}
    write_report("studies.from_nothing", report, options.out)
    if options.out is not None:
        draw([panel(options.task, report)], options.out.with_suffix(".png"))
    print("\n| agent | seed | solved at | held | final | environment steps | CPU s |\n|---|---|---|---|---|---|---|")
    for run in ours:
        low, high = run["final_ci95"]
        final = f"{run['final']:.1f} ({low:.1f} to {high:.1f})"
        cpu = "-" if run["cpu_seconds"] is None else f"{run['cpu_seconds']:.0f}"
        cells = ["Clowder", run["seed"], run["solved_at"], run["held"], final, run["environment_steps"], cpu]
        print(f"| {' | '.join(map(str, cells))} |")
    for run in theirs:
        last, solved = run["points"][-1], f"{run['solved_at']} (greedy {run['solved_at_greedy']})"
        final, steps = f"{last['mean_return']:.1f}", last["environment_steps"]
        cells = ["PPO", run["seed"], solved, run["held"], final, steps, f"{run['cpu_seconds']:.0f}"]
        print(f"| {' | '.join(map(str, cells))} |")


if __name__ == "__main__":
    main()
