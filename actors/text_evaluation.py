"""Evaluation of a text task: answers scored as any return, and beside it what the score is worth.

An accuracy alone says little: a guess may be right often, and a question may give its answer away. So the same
questions are also asked without their picture, and the most frequent answer is counted.
"""

from __future__ import annotations

import collections
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from actors.environments.checked import CheckedEnvironment
from actors.environments.text import TextEnvironment, same
from actors.evaluator import Evaluation, Foretold
from actors.text_scores import TextScores
from agent.task import text_bytes, text_of

if TYPE_CHECKING:
    from agent.text_policy import TextPolicy

BLANK = 127
"""Value of all pixels of a picture that is taken away."""


def evaluate_text(
    policy: TextPolicy,
    environment: CheckedEnvironment,
    seeds: Sequence[int],
    deadline: float,
    progressed: Callable[[], object] = lambda: None,
) -> tuple[Evaluation, TextScores]:
    """Ask what each seed asks, with and without its picture, and score the right texts.

    Where nothing is observed nothing is said, so that no episode is played: only the right texts are scored.

    Args:
        policy: with as many slots as the environment.
        environment: of a text task.
        seeds: of the questions.
        deadline: seconds this may take; what was not asked then is reported as unfinished.
        progressed: called after every few questions.
    """
    started = time.monotonic()
    inner = environment.environment
    assert isinstance(inner, TextEnvironment)
    task, num_envs = environment.task, environment.num_envs
    pictures = [key for key, spec in task.observation.items() if spec.kind == "image"]
    first = np.ones(num_envs, bool)
    right: list[float] = []
    blind: list[bool] = []
    truths: list[str] = []
    nats, tokens = 0.0, 0
    while len(truths) < len(seeds) and time.monotonic() - started < deadline:
        asked = list(seeds[len(truths) : len(truths) + num_envs])
        count = len(asked)
        observation = environment.reset(range(num_envs), asked + [asked[0]] * (num_envs - count))
        truth = inner.truth()
        said = np.stack([text_bytes(text, task.action.max_bytes) for text in truth])
        nats_of, tokens_of = policy.score(observation, said)
        nats, tokens = nats + float(nats_of[:count].sum()), tokens + int(tokens_of[:count].sum())
        if pictures:
            grey = observation | {key: np.full_like(observation[key], BLANK) for key in pictures}
            answers = policy.act(grey, first).action
            blind += [same(text_of(data), wanted) for data, wanted in zip(answers, truth)][:count]
        if observation:
            right += environment.step(policy.act(observation, first).action).reward[:count].tolist()
        truths += truth[:count]
        progressed()
    done = len(truths)
    evaluation = Evaluation(
        returns=np.array(right, np.float64),
        lengths=np.ones(len(right), np.int64),
        successes=np.array(right, bool) if right else None,
        foretold=Foretold(),
        seeds=np.array(seeds[: len(right)], np.int64),
        versions=np.full(len(right), policy.version, np.int64),
        unfinished=tuple(seeds[done:]),
        seconds=time.monotonic() - started,
    )
    size = sum(len(text.encode()) for text in truths)
    most = collections.Counter(text.strip().casefold() for text in truths).most_common(1)
    scores = TextScores(
        texts=done,
        accuracy=evaluation.mean_return,
        without_picture=sum(blind) / done if blind else math.nan,
        most_frequent_answer=most[0][1] / done if most and right else math.nan,
        perplexity=math.exp(nats / tokens) if tokens else math.nan,
        bits_per_byte=nats / math.log(2) / size if size else math.nan,
    )
    return evaluation, scores
