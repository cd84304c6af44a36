"""A task of four places and two actions, a learner of it that needs no server, and what its policy does there."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np
import torch

from agent.agent import Agent
from agent.config import AgentConfig, DecodingConfig
from agent.policy import Policy
from agent.task import ArraySpec, TaskSpec
from learner.batch_source import TaskSources
from learner.config import LearnerConfig
from learner.learner import Learner
from replay.window import Window, WindowMetadata
from tests.learner.windows import ListStream

PLACES = 4
TASK = TaskSpec(
    "test/places",
    {"place": ArraySpec("discrete", (), num_values=PLACES)},
    ArraySpec("discrete", (), num_values=2),
    return_range=(0.0, 1.0),
    value_range=(0.0, 1.0),
    context_steps=3,
)


def episode(places: list[int], actions: list[int], rewards: list[float], source: str = "online", **about) -> Window:
    """An episode that terminates; ``places`` are those where the actions were taken."""
    steps = len(actions)
    return Window(
        {"place": np.array([*places, 0], np.int32)},
        np.array(actions, np.int32),
        np.array(actions, np.int32),
        np.ones(steps, bool),
        np.array(rewards, np.float32),
        np.arange(steps) == steps - 1,
        np.zeros(steps, bool),
        np.arange(steps) == 0,
        np.zeros(steps, np.int64),
        np.zeros((steps, 1), np.float32),
        np.zeros((steps, 3), np.float32),
        WindowMetadata(TASK.name, source, "0.0.0", steps=steps, **about),
    )


def shown(places: list[int], actions: list[int], rewards: list[float]) -> Window:
    """As `episode`, of a demonstration: how likely its actions were is not known."""
    one = episode(places, actions, rewards, "demonstrations")
    return dataclasses.replace(one, log_prob=np.full_like(one.log_prob, np.nan))


ARM = dataclasses.replace(TASK, name="test/arm", action=ArraySpec("continuous", (2,), -1.0, 1.0))


def reaches(places: list[int], actions: list[tuple[float, float]], rewards: list[float], **changes) -> Window:
    """As `episode`, of the task whose action is two numbers."""
    plain = episode(places, [0] * len(actions), rewards)
    moved = np.array(actions, np.float32)
    likelihood = np.full((len(actions), 2), np.nan, np.float32)
    return dataclasses.replace(plain, action=moved, label=moved, log_prob=likelihood, **changes)


def make_learner(
    windows: list[Window],
    task: TaskSpec = TASK,
    returns: str = "off",
    value_bins: int | None = None,
    objectives: Mapping[str, str] | None = None,
    beside: tuple[TaskSpec, list[Window]] | None = None,
    **changes: object,
) -> Learner:
    """It improves, or is told returns where ``returns`` are not off and it has no bins for values.

    ``beside``: another task and its windows, half of each batch.
    """
    torch.manual_seed(0)
    value_bins = (51 if returns == "off" else 0) if value_bins is None else value_bins
    each_task = [(task, windows), *([beside] if beside else [])]
    config_of_agent = AgentConfig(width=32, layers=1, heads=2, value_bins=value_bins, returns=returns)
    agent = Agent(config_of_agent, [one for one, _ in each_task])
    sources = {}
    for one, its_windows in each_task:
        by_source: dict[str, list[Window]] = {}
        for window in its_windows:
            source = "demonstrations" if window.metadata.source == "demonstrations" else "online"
            by_source.setdefault(source, []).append(window)
        streams = {source: ListStream(each) for source, each in by_source.items()}
        sources[one.name] = TaskSources(one, 1.0, (0.5, 0.5), streams, objectives=objectives or {})
    config = LearnerConfig(
        objective="advantage_filtered" if value_bins else "return_conditioned",
        windows_per_batch=32,
        tokens_per_row=4 * task.context_steps + 3,
        learning_rate=3e-3,
        warmup_steps=5,
        weight_decay=0.0,
        prompt_share=0.0,
        prefetch_batches=0,
        steps=10_000,
        **{"target_rate": 0.05, "discount": 1.0, "imitation_share": 0.0} | changes,
    )
    return Learner(agent, sources, config, 0)


def probabilities(
    learner: Learner, places: list[int], actions: list[int], asked: float | None = None, task: TaskSpec = TASK
) -> np.ndarray:
    """Of both actions at the last of ``places``, after ``actions`` at those before."""
    decoding = DecodingConfig(returns="none" if asked is None else "target", return_target=asked or 0.0)
    policy = Policy(learner.agent.eval(), task, 1, decoding, seed=0)
    for number, place in enumerate(places):
        chosen = policy.act({"place": np.array([place])}, np.array([number == 0]))
        if number < len(actions):
            policy.executed(np.array([actions[number]]))
    probability = float(np.exp(chosen.log_prob[0, 0]))
    return np.array([probability, 1 - probability])[:: 1 if chosen.action[0] == 0 else -1]
