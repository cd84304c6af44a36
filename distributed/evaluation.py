"""One round of evaluation of a checkpoint on one task: episodes on fixed seeds, and a video."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from actors.config import ActorConfig
from actors.evaluator import Foretold, evaluate
from actors.seeds import MONITORING_SEEDS, REPORTING_SEEDS
from actors.text_scores import TextScores
from distributed.parameter_store import Published
from distributed.plan import RunPlan

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.config import DecodingConfig
    from agent.context import Prompt

EPISODES_AT_ONCE = 20
"""Environments of one evaluation; seeds are given to slots beforehand, so the number changes no episode's seed."""


@dataclasses.dataclass(frozen=True)
class Round:
    """What one task's evaluation gave.

    Attributes:
        task: task name.
        version: of the policy.
        returns: of the finished episodes, in the order of their seeds.
        foretold: what was said at their first steps, and what came of it.
        unfinished: episodes that the deadline cut.
        seconds: wall time, video included.
        video: where it was written; None for none.
        no_video: why the video that was asked for could not be written; empty where it was, or none was asked for.
        text: further scores of a text task.
    """

    task: str
    version: int
    returns: list[float]
    foretold: Foretold
    unfinished: int
    seconds: float
    video: str | None = None
    no_video: str = ""
    text: TextScores | None = None


class EvaluationStopped(Exception):
    """For whoever is called at every step of an evaluation: raised, it ends there."""


def final_round(
    plan: RunPlan,
    name: str,
    agent: Agent,
    version: int,
    seconds: float,
    video: Path | None,
    progressed: Callable[[], object] = lambda: None,
) -> Round:
    """The reporting episodes of one task, and its video; ``progressed`` is called at every step of them."""
    actor, config = plan.actor(name), plan.config.evaluation
    return evaluate_task(
        agent,
        version,
        actor,
        config.decoding,
        episodes=config.final_episodes or actor.evaluation_episodes,
        first_seed=REPORTING_SEEDS,
        seconds=seconds,
        seed=plan.config.seed,
        video=video,
        video_steps=config.video_steps,
        progressed=progressed,
        discount=plan.config.learner.discount,
    )


def monitoring_round(
    plan: RunPlan,
    name: str,
    agent: Agent,
    published: Published,
    number: int,
    progressed: Callable[[], object] = lambda: None,
) -> Round:
    """Episodes of one task with the weights ``published``, on monitoring seeds that differ from round to round;
    ``progressed`` is called at every step."""
    from agent.weights import load_weights

    load_weights(agent, published.weights)
    config = plan.config.evaluation
    return evaluate_task(
        agent,
        published.version,
        plan.actor(name),
        config.decoding,
        episodes=config.episodes,
        first_seed=MONITORING_SEEDS + number * config.episodes,
        seconds=60 * config.final_minutes if config.every_steps else max(10.0, config.every_seconds),
        seed=number,
        progressed=progressed,
        discount=plan.config.learner.discount,
    )


def evaluate_task(
    agent: Agent,
    version: int,
    actor: ActorConfig,
    decoding: DecodingConfig,
    *,
    episodes: int,
    first_seed: int,
    seconds: float,
    seed: int = 0,
    prompt: Prompt | None = None,
    video: Path | None = None,
    video_steps: int = 500,
    progressed: Callable[[], object] = lambda: None,
    discount: float = 1.0,
) -> Round:
    """Play ``episodes`` episodes with seeds from ``first_seed``, within ``seconds``; then record the first as a video.

    ``discount`` is of values of tasks without one of their own. A video that cannot be written costs no scores.

    Raises ValueError where the task of ``actor`` is not one that the agent was trained on.
    """
    from actors.environments.make import make_environment
    from actors.text_evaluation import evaluate_text
    from agent.policy import make_policy
    from agent.text_policy import TextPolicy

    started = time.monotonic()
    if actor.task not in agent.tasks:
        raise ValueError(f"these weights were not trained on {actor.task}; they know {', '.join(agent.tasks)}")
    task = agent.tasks[actor.task]
    environment = make_environment(actor, min(episodes, EPISODES_AT_ONCE))
    try:
        policy = make_policy(agent, task, environment.num_envs, decoding, seed, prompt)
        policy.version = version
        seeds, text = range(first_seed, first_seed + episodes), None
        if isinstance(policy, TextPolicy):
            played, text = evaluate_text(policy, environment, seeds, seconds, progressed)
        else:
            own = task.discount
            played = evaluate(policy, environment, seeds, seconds, progressed, discount if own is None else own)
    finally:
        environment.close()
    left = seconds - (time.monotonic() - started)
    no_video = ""
    if video is not None and text is None and left > 1.0:
        try:
            record(agent, actor, decoding, seed=first_seed, path=video, steps=video_steps)
        except Exception as error:  # a full disk, ffmpeg, what draws the pictures: the scores are there already
            video, no_video = None, f"{type(error).__name__}: {error}"
    else:
        video = None
    return Round(
        task=actor.task,
        version=version,
        returns=[float(value) for value in played.returns],
        foretold=played.foretold,
        unfinished=len(played.unfinished),
        seconds=time.monotonic() - started,
        video=None if video is None else str(video),
        no_video=no_video,
        text=text,
    )


def record(agent: Agent, actor: ActorConfig, decoding: DecodingConfig, *, seed: int, path: Path, steps: int) -> int:
    """Write a video of one episode of at most ``steps`` steps; returns the number of pictures."""
    from actors.environments.make import make_environment
    from actors.video import record_video
    from agent.policy import Policy

    if agent.tasks[actor.task].says_text:
        raise ValueError(f"{actor.task} has no video: its episodes are one step; see clowder ask and clowder evaluate")
    environment = make_environment(actor, 1)
    try:
        policy = Policy(agent, agent.tasks[actor.task], 1, decoding, seed)
        return record_video(policy, environment, seed, path, max_steps=steps)
    finally:
        environment.close()
