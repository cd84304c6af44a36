"""Evaluation of a text task: answers scored as any return, and beside it what the score is worth.

An accuracy alone says little: a guess may be right often, and a question may give its answer away. So the same
questions are also asked without their picture, and the most frequent answer is counted.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from actors.environments.checked import CheckedEnvironment
from actors.environments.text import TextEnvironment, same
from actors.evaluator import Evaluation
from actors.text_scores import TextScores
from agent.task import text_bytes, text_of

if TYPE_CHECKING:
    from agent.text_policy import TextPolicy

BLANK = 127
"""Value of all pixels of a picture that is taken away."""


def evaluate_text(
    policy: TextPolicy, environment: CheckedEnvironment, seeds: Sequence[int], deadline: float
) -> tuple[Evaluation, TextScores]:
    """Ask what each seed asks, with and without its picture, and score the right answers.

    Args:
        policy: with as many slots as the environment.
        environment: of a text task.
        seeds: of the questions.
        deadline: seconds this may take; what was not asked then is reported as unfinished.
    """
    started = time.monotonic()
    inner = environment.environment
    assert isinstance(inner, TextEnvironment)
    task, num_envs = environment.task, environment.num_envs
    pictures = [key for key, spec in task.observation.items() if spec.kind == "image"]
    right: list[float] = []
    blind: list[bool] = []
    truths: list[str] = []
    nats, tokens = 0.0, 0
    while len(right) < len(seeds) and time.monotonic() - started < deadline:
        asked = list(seeds[len(right) : len(right) + num_envs])
        count = len(asked)
        observation = environment.reset(range(num_envs), asked + [asked[0]] * (num_envs - count))
        truth = inner.truth()
        if pictures:
            grey = observation | {key: np.full_like(observation[key], BLANK) for key in pictures}
            said = policy.act(grey, np.ones(num_envs, bool)).action
            blind += [same(text_of(data), wanted) for data, wanted in zip(said, truth)][:count]
        of_each, tokens_of_each = policy.score(
            observation, np.stack([text_bytes(text, task.action.max_bytes) for text in truth])
        )
        nats, tokens = nats + float(of_each[:count].sum()), tokens + int(tokens_of_each[:count].sum())
        step = environment.step(policy.act(observation, np.ones(num_envs, bool)).action)
        right += step.reward[:count].tolist()
        truths += truth[:count]
    done = len(right)
    evaluation = Evaluation(
        returns=np.array(right, np.float64),
        lengths=np.ones(done, np.int64),
        successes=np.array(right, bool) if done else None,
        seeds=np.array(seeds[:done], np.int64),
        versions=np.full(done, policy.version, np.int64),
        unfinished=tuple(seeds[done:]),
        seconds=time.monotonic() - started,
    )
    size = sum(len(text.encode()) for text in truths)
    most = collections.Counter(text.strip().casefold() for text in truths).most_common(1)
    scores = TextScores(
        accuracy=evaluation.mean_return,
        without_picture=sum(blind) / done if blind else math.nan,
        most_frequent_answer=most[0][1] / done if most else math.nan,
        perplexity=math.exp(nats / tokens) if tokens else math.nan,
        bits_per_byte=nats / math.log(2) / size if size else math.nan,
    )
    return evaluation, scores
