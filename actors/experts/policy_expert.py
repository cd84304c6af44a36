"""`PolicyExpert`: a trained agent as an expert. It sees what every agent sees: observations."""

from __future__ import annotations

import numpy as np

from actors.demonstrations.episode import ActionRecord
from actors.environments.vector_environment import VectorEnvironment, VectorStep
from actors.evaluator import random_action
from actors.experts.expert import Sees
from agent.agent import Agent
from agent.config import DecodingConfig
from agent.policy import Policy, make_policy
from agent.text_policy import TextPolicy

NOISE_STREAM = 0xA6


class PolicyGame:
    """One episode in which a policy chooses and its caller decides what is executed.

    Args:
        policy: for one slot, fresh.
        environment: one copy of the task; begun anew here.
        seed: of the episode.
    """

    def __init__(self, policy: Policy | TextPolicy, environment: VectorEnvironment, seed: int) -> None:
        self._policy, self._environment = policy, environment
        self._observation, self._first = environment.reset([0], [seed]), np.ones(1, bool)
        self._chosen = np.zeros(0)

    def choose(self) -> np.ndarray:
        """The policy's action for this step, [1, *action shape]. Once a step, whether or not it is executed."""
        self._chosen = self._policy.act(self._observation, self._first).action
        return self._chosen

    def execute(self, action: np.ndarray) -> VectorStep:
        """Make the step with ``action`` [1, *action shape]; the policy is told where it is not its own."""
        if not np.array_equal(action, self._chosen):
            self._policy.executed(action)
        step = self._environment.step(action)
        self._policy.rewarded(step.reward)
        self._observation, self._first = step.observation, step.done
        return step


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
        generator = np.random.default_rng([seed, NOISE_STREAM])
        game = self.begin(seed)
        actions, labels, total, done = [], [], 0.0, False
        while not done:
            label = game.choose()
            action = self._disturbed(label, noise, generator)
            step = game.execute(action)
            actions.append(action[0])
            labels.append(label[0])
            total += float(step.reward[0])
            done = bool(step.done[0])
        return ActionRecord(seed, np.array(actions), np.array(labels), np.ones(len(actions), bool), total, noise > 0)

    def begin(self, seed: int) -> PolicyGame:
        """An episode from a reset with ``seed``, for who decides what is executed; it ends the one before."""
        policy = make_policy(self._agent, self._task, 1, self._decoding, seed)
        policy.version = self._version
        return PolicyGame(policy, self._environment, seed)

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
