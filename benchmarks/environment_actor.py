"""Environment actor: steps a second beside the bare environment and policy, and memory of its process.

    python -m benchmarks.environment_actor --task atari/pong [--rounds 10] [--out FILE]

Two players take turns in one process, so that a noisy machine disturbs both alike: the actor, with its windows going to
a replay server of its own process, and the bare vector environment with the same policy class and nothing else. Figures
are medians over the turns. Memory is that of fresh processes that do the same, one for each way to load Reverb.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from actors.config import ActorConfig
from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import with_slots
from agent.config import AgentConfig
from agent.policy import Policy
from benchmarks.actor_parts import make_actor, make_player
from distributed.compose import actor_configs, compose
from distributed.report import write_report
from replay.config import ReplayConfig
from replay.server import start_replay_server

MEMORY_DEADLINE = 300.0
"""Seconds that a child process may take, imports included."""


class BarePlayer:
    """The least loop: act, step, reset what ended."""

    def __init__(self, environment: VectorEnvironment, policy: Policy) -> None:
        self._environment, self._policy = environment, policy
        self._seed = 0
        self._observation = environment.reset(range(environment.num_envs), self._seeds(environment.num_envs))
        self._is_first = np.ones(environment.num_envs, bool)

    def run(self, steps: int) -> None:
        """Take so many steps in each environment."""
        for _ in range(steps):
            step = self._environment.step(self._policy.act(self._observation, self._is_first).action)
            self._observation, self._is_first = step.observation, step.done
            if step.done.any():
                ended = np.flatnonzero(step.done).tolist()
                fresh = self._environment.reset(ended, self._seeds(len(ended)))
                self._observation = with_slots(self._observation, ended, fresh)

    def _seeds(self, count: int) -> list[int]:
        self._seed += count
        return list(range(self._seed - count, self._seed))


def steps_per_second(runs: list[Callable[[int], object]], num_envs: int, rounds: int, seconds: float) -> list[float]:
    """Median environment steps a second of each of ``runs``, which take turns of about ``seconds``."""
    steps = []
    for run in runs:
        run(20)  # warm-up
        started = time.perf_counter()
        run(20)
        steps.append(max(5, int(20 * seconds / (time.perf_counter() - started))))
    rates: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, count, found in zip(runs, steps, rates):
            started = time.perf_counter()
            run(count)
            found.append(count * num_envs / (time.perf_counter() - started))
    return [statistics.median(found) for found in rates]


def measure_speed(
    actor_config: ActorConfig,
    agent_config: AgentConfig,
    replay: ReplayConfig,
    address: str,
    rounds: int,
    seconds: float,
) -> dict[str, Any]:
    """The actor beside the bare player."""
    actor = make_actor(actor_config, agent_config, replay, address)
    environment, policy = make_player(actor_config, agent_config)
    bare = BarePlayer(environment, policy)
    own, other = steps_per_second([actor.run, bare.run], environment.num_envs, rounds, seconds)
    report = actor.report()
    actor.close(10.0)
    environment.close()
    busy = sum(report.seconds[part] for part in ("environment", "policy", "writer"))
    return {
        "actor_steps_per_second": own,
        "actor_frames_per_second": own * environment.task.action_repeat,
        "bare_steps_per_second": other,
        "actor_over_bare": own / other,
        "actor_time": {part: spent / busy for part, spent in report.seconds.items()},
        "windows_written": report.windows,
    }


def measure_memory(
    actor_config: ActorConfig, agent_config: AgentConfig, replay: ReplayConfig, address: str, steps: int
) -> dict[str, Any]:
    """Memory of a fresh process."""
    order = {
        "actor": dataclasses.asdict(actor_config),
        "agent": dataclasses.asdict(agent_config),
        "replay": dataclasses.asdict(replay),
        "address": address,
        "steps": steps,
    }
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.actor_memory"],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        timeout=MEMORY_DEADLINE,
    )
    if child.returncode:
        raise RuntimeError(f"the process with replay.loader={replay.loader} failed:\n{child.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return figures


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Environment actor: steps a second and memory")
    parser.add_argument("--task", default="atari/pong", help="a task that has an actor config")
    parser.add_argument("--model", default="tiny", help="model preset")
    parser.add_argument("--rounds", type=int, default=10, help="turns of each player")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of a turn")
    parser.add_argument("--memory-steps", type=int, default=200, help="steps of each environment before memory is read")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    names = [name for name, config in actor_configs().items() if config.task == options.task]
    if not names:
        known = sorted({config.task for config in actor_configs().values()})
        parser.error(f"no actor config for {options.task}; there are {', '.join(known)}")
    config = compose([f"actors=[{names[0]}]", f"model={options.model}"])
    actor_config = config.actors[names[0]]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    environment, _ = make_player(actor_config, config.agent)
    task = environment.task
    environment.close()
    with start_replay_server([task], config.replay) as server:
        speed = measure_speed(
            actor_config, config.agent, config.replay, server.address, options.rounds, options.seconds
        )
        memory = {
            loader: measure_memory(
                actor_config,
                config.agent,
                dataclasses.replace(config.replay, loader=loader),
                server.address,
                options.memory_steps,
            )
            for loader in ("light", "plain")
        }
    figures = {
        "task": options.task,
        "num_envs": actor_config.envs_per_actor,
        "context_steps": actor_config.context_steps,
        "model": dataclasses.asdict(config.agent),
        "threads": 1,
        "rounds": options.rounds,
        **speed,
        "memory": memory,
    }
    write_report("benchmarks.environment_actor", figures, options.out)


if __name__ == "__main__":
    main()
