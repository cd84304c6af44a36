"""`PolicyExpert`: a trained agent as an expert. It sees what every agent sees: observations."""

from __future__ import annotations

import numpy as np

from actors.demonstrations.episode import ActionRecord
from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import random_action
from actors.experts.expert import Sees
from agent.agent import Agent
from agent.config import DecodingConfig
from agent.policy import make_policy

NOISE_STREAM = 0xA6


class PolicyExpert:
    """Plays one task with an agent's weights; see `actors.experts.expert.Expert`.

    Args:
        name: of the expert, with the version of the weights: another version is another expert.
        agent: with its weights; the task of ``environment`` must be one of its own.
        environment: one copy of the task; closed by `close`.
        decoding: how actions are chosen. The seed of an episode decides its sampling too.
        version: of the weights.

    Raises:
        ValueError: the agent was not trained on the task, or the environment's spaces are not those it was trained on.
    """

    sees: Sees = "observations"

    def __init__(
        self, name: str, agent: Agent, environment: VectorEnvironment, decoding: DecodingConfig, version: int
    ) -> None:
        self.name = name
        asked = environment.task
        if asked.name not in agent.tasks:
            raise ValueError(f"{name} was not trained on {asked.name}; it knows {', '.join(agent.tasks)}")
        self._task = agent.tasks[asked.name]
        for part in ("observation", "action"):
            ours, theirs = getattr(self._task, part), getattr(asked, part)
            if ours != theirs:
                raise ValueError(f"{name} was trained on {asked.name} with {part} {ours}, which is {theirs} now")
        self._agent, self._environment, self._decoding, self._version = agent, environment, decoding, version

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; labels are the policy's own choice where ``noise`` has another action executed."""
        environment, task = self._environment, self._task
        policy = make_policy(self._agent, task, 1, self._decoding, seed)
        policy.version = self._version
        generator = np.random.default_rng([seed, NOISE_STREAM])
        observation, first = environment.reset([0], [seed]), np.ones(1, bool)
        actions, labels, total, done = [], [], 0.0, False
        while not done:
            label = policy.act(observation, first).action
            action = self._disturbed(label, noise, generator)
            if action is not label:
                policy.executed(action)
            step = environment.step(action)
            policy.rewarded(step.reward)
            observation, first = step.observation, step.done
            actions.append(action[0])
            labels.append(label[0])
            total += float(step.reward[0])
            done = bool(step.done[0])
        return ActionRecord(seed, np.array(actions), np.array(labels), np.ones(len(actions), bool), total, noise > 0)

    def _disturbed(self, label: np.ndarray, noise: float, generator: np.random.Generator) -> np.ndarray:
        """What is executed, [1, *action shape]: ``label`` itself where nothing disturbs it."""
        spec = self._task.action
        if not noise:
            return label
        if spec.kind == "continuous":
            return np.clip(label + generator.normal(0.0, noise, label.shape), spec.low, spec.high).astype(spec.dtype)
        if spec.kind == "text":
            raise ValueError(f"{self.name} takes no noise on {self._task.name}: a text has no disturbed form")
        return random_action(self._task, label.shape, generator) if generator.random() < noise else label

    def close(self) -> None:
        """Close the environment."""
        self._environment.close()
