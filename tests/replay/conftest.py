"""One real replay server in a process of its own, shared by all tests here; every test has tasks of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from agent.task import ArraySpec, TaskSpec
from replay.config import ReplayConfig
from replay.server import ServerHandle, start_replay_server

NAMES = (
    "steps",
    "whole",
    "horizon",
    "coverage",
    "good",
    "keep",
    "errors",
    "demonstrations",
    "loader",
    "given_up",
    "lengths",
)


def make_task(name: str, **changes: Any) -> TaskSpec:
    """A task with an array of every kind."""
    observation = {
        "image": ArraySpec("image", (6, 8, 3)),
        "grid": ArraySpec("discrete", (3, 3, 2), num_values=11),
        "direction": ArraySpec("discrete", (), num_values=4),
        "position": ArraySpec("continuous", (2,)),
        "mission": ArraySpec("text", max_bytes=40),
    }
    action = ArraySpec("continuous", (2,), -1.0, 1.0)
    return TaskSpec(f"test/{name}", observation, action, **changes)


def make_episode(task: TaskSpec, steps: int, seed: int) -> dict[str, Any]:
    """Arguments of `EpisodeWriter.write_episode` for an episode of random values."""
    random = np.random.default_rng([seed, steps])
    observation: dict[str, np.ndarray] = {}
    for key, spec in task.observation.items():
        shape = (steps + 1, *spec.shape)
        if spec.kind == "image":
            observation[key] = random.integers(0, 256, shape).astype(np.uint8)
        elif spec.kind == "discrete":
            observation[key] = random.integers(0, spec.num_values, shape).astype(np.int32)
        elif spec.kind == "continuous":
            observation[key] = random.normal(size=shape).astype(np.float32)
    return {
        "observation": observation,
        "texts": {"mission": f"go to the öl {seed}"},
        "action": random.uniform(-1, 1, (steps, *task.action.shape)).astype(np.float32),
        "label": random.uniform(-1, 1, (steps, *task.action.shape)).astype(np.float32),
        "label_mask": random.random(steps) < 0.5,
        "reward": random.normal(size=steps).astype(np.float32),
        "terminated": seed % 2 == 0,
        "truncated": seed % 2 == 1,
        "policy_version": random.integers(0, 2**40, steps),
        "log_prob": random.normal(size=(steps, task.action_tokens)).astype(np.float32),
        "metadata": {"episode_id": f"e{seed}", "episode_index": seed, "environment_seed": 100 + seed},
    }


@pytest.fixture(scope="session")
def task() -> Callable[..., TaskSpec]:
    return make_task


@pytest.fixture(scope="session")
def episode() -> Callable[[TaskSpec, int, int], dict[str, Any]]:
    return make_episode


@pytest.fixture(scope="session")
def server() -> Iterator[ServerHandle]:
    handle = start_replay_server([make_task(name) for name in NAMES], ReplayConfig())
    yield handle
    begin = time.monotonic()
    handle.stop()
    assert time.monotonic() - begin < 8.0
    assert not handle.alive()
