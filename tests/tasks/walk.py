"""One task through what a trained task goes through: adapter, writer, replay, sampler, tokenizer, embedding."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from actors.config import ActorConfig
from actors.environments.make import make_environment
from actors.evaluator import random_action
from actors.reference import references
from agent.agent import Agent
from agent.config import AgentConfig
from agent.tokenizer import TextTokenizer
from distributed.commands.tasks import token_counter
from learner.crop import collate, last_crop
from replay.config import ReplayConfig
from replay.sampler import WindowSampler
from replay.window import check_window
from replay.writer import EpisodeWriter

REPLAY = ReplayConfig(window_length=16, window_stride=8, write_deadline=20.0, poll_seconds=0.1)
STEPS = 3


count_tokens = functools.cache(token_counter)


def walk(task_name: str, address: str) -> None:
    """Play a few steps of the task at a replay server that has its tables; assertions say what went wrong."""
    environment = make_environment(ActorConfig(task=task_name), 1)
    task, listed = environment.task, references()[task_name]
    assert dataclasses.replace(listed.task, context_steps=task.context_steps) == task or _nan_equal(listed.task, task)
    writer = EpisodeWriter(address, task, "online", REPLAY)
    observation = environment.reset([0], [1])
    texts = {key: value[0] for key, value in observation.items() if isinstance(value, list)}
    arrays = [{key: value[0] for key, value in observation.items() if key not in texts}]
    writer.begin(arrays[0], texts, {"episode_id": task_name})
    random, rewards = np.random.default_rng(0), []
    for index in range(STEPS):
        action = random_action(task, (1, *task.action.shape), random)
        step = environment.step(action)
        assert not step.done[0], "no task of the catalogue ends that soon by itself"
        arrays.append({key: value[0].copy() for key, value in step.observation.items() if key not in texts})
        rewards.append(step.reward[0])
        writer.step(action[0], float(step.reward[0]), False, index == STEPS - 1, arrays[-1])
    environment.close()
    assert writer.close(20.0)
    sampler = WindowSampler(address, task, "online", REPLAY)
    window = None
    for _ in range(200):
        window = sampler.get(0.1)
        if window is not None and window.length == STEPS:
            break
    sampler.close()
    assert window is not None and window.length == STEPS
    check_window(window, task)
    for key, values in window.observation.items():
        np.testing.assert_array_equal(values, np.stack([each[key] for each in arrays]))
    np.testing.assert_array_equal(window.reward, np.array(rewards, np.float32))
    tokenizer = TextTokenizer.default()
    inputs, labels = collate(task, [last_crop(window, STEPS)], tokenizer, np.random.default_rng(0))
    assert labels.mask.all()
    for index, embedding in enumerate(("per_element", "fused")):
        agent = Agent(AgentConfig(observation_embedding=embedding), [task], tokenizer)
        embedded = agent.embed(inputs)
        tokens = int(agent.valid_positions(inputs).sum()) // STEPS
        assert embedded.isfinite().all() and embedded.shape[:2] == (1, STEPS)
        most = count_tokens()(listed.task, listed.texts)[index]
        assert tokens == most if not texts or embedding == "fused" else tokens <= most + 64


def _nan_equal(one: object, other: object) -> bool:
    return repr(one) == repr(other)
