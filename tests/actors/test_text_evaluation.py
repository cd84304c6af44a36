"""What is said of text tasks: accuracy with and without the picture, constant answers, perplexity."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from actors.config import ActorConfig
from actors.environments.checked import CheckedEnvironment
from actors.environments.make import make_environment
from actors.environments.text import make_source
from actors.seeds import REPORTING_SEEDS
from actors.text_evaluation import BLANK, evaluate_text
from agent.agent import Agent
from agent.config import AgentConfig
from agent.sampling import Action
from agent.task import text_bytes
from agent.text_policy import TextPolicy

SEEDS = range(REPORTING_SEEDS, REPORTING_SEEDS + 23)


def environment_of(task: str, slots: int, **arguments: object) -> CheckedEnvironment:
    return make_environment(ActorConfig(task=task, context_steps=1, arguments=arguments), slots)


def policy_of(environment: CheckedEnvironment) -> TextPolicy:
    torch.manual_seed(0)
    agent = Agent(AgentConfig(width=32, layers=1, heads=2), [environment.task])
    return TextPolicy(agent, environment.task, environment.num_envs)


class Seer:
    """Knows what is right where it sees a picture, says no where it does not; scores as an untrained policy."""

    def __init__(self, environment: CheckedEnvironment) -> None:
        self.version = 3
        self._environment, self.score = environment, policy_of(environment).score

    def act(self, observation: dict[str, Any], is_first: np.ndarray) -> Action:
        truth = self._environment.environment.truth()  # type: ignore[attr-defined]
        size = self._environment.task.action.max_bytes
        said = [
            text_bytes("no" if (picture == BLANK).all() else text, size)
            for picture, text in zip(observation["picture"], truth)
        ]
        return Action(np.stack(said), np.full((len(said), size), np.nan, np.float32))


@pytest.mark.parametrize("slots", [5, 40])
def test_accuracies_are_those_of_the_questions_asked(slots: int) -> None:
    environment = environment_of("text/babyai-questions", slots)
    truths = [make_source("text/babyai-questions", {}).pair(seed).said for seed in SEEDS]
    evaluation, scores = evaluate_text(Seer(environment), environment, SEEDS, 60.0)  # type: ignore[arg-type]
    assert scores.texts == evaluation.episodes == 23 and scores.accuracy == evaluation.mean_return == 1.0
    assert scores.without_picture == pytest.approx(truths.count("no") / 23)
    assert scores.most_frequent_answer == pytest.approx(max(map(truths.count, truths)) / 23)
    assert evaluation.unfinished == () and (evaluation.versions == 3).all()


def test_perplexity_does_not_hang_on_the_number_of_slots() -> None:
    results = []
    for slots in (4, 23):
        environment = environment_of("text/sonnets", slots, files=["sonnets"], passage_bytes=64)
        evaluation, scores = evaluate_text(policy_of(environment), environment, SEEDS, 60.0)
        assert evaluation.episodes == 0 and math.isnan(scores.accuracy) and scores.texts == 23
        results.append((scores.perplexity, scores.bits_per_byte))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    perplexity, bits = results[0]
    assert 300 < perplexity < 1500  # untrained: about as many as there are pieces
    words = [make_source("text/sonnets", {"files": ["sonnets"], "passage_bytes": 64}).pair(seed).said for seed in SEEDS]
    tokens = sum(len(policy_of(environment).agent.text.encode(text)) + 1 for text in words)
    assert bits == pytest.approx(math.log2(perplexity) * tokens / sum(len(text.encode()) for text in words), rel=1e-6)


def test_a_deadline_leaves_the_rest_unasked() -> None:
    environment = environment_of("text/babyai-captions", 4)
    evaluation, scores = evaluate_text(policy_of(environment), environment, SEEDS, 0.0)
    assert len(evaluation.unfinished) == 23 and scores.texts == 0 and math.isnan(scores.perplexity)
