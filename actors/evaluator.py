"""Evaluation: fixed seeds, each played to its end, by one version of the weights.

Seeds are given to slots *before* the first step (seed i to slot i mod E, one queue a slot) and every one is played to
its end. Taking the first N episodes to finish instead would favour short ones. An episode that the deadline cuts is
reported as unfinished and is in no average.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from actors.environments.vector_environment import Observation, VectorEnvironment
from agent.task import TaskSpec

if TYPE_CHECKING:  # `random_return` is called where nobody needs torch
    from agent.policy import Policy

BOOTSTRAP_RESAMPLES = 10_000

Chooser = Callable[[Observation, np.ndarray], np.ndarray]
"""(observation of E slots, is_first bool [E]) -> action [E, *action shape]."""


@dataclasses.dataclass(frozen=True)
class Foretold:
    """What was said at the first step of each of n episodes, and what came of it; NaN where nothing was said.

    Attributes:
        asked, achieved: the return that was asked for, and the rewards of the steps it speaks of: all of them, or the
            task's ``return_horizon``.
        valued, earned: what the critic says of the first action, and the discounted return; with a ``return_horizon``,
            of as many steps as its targets count, a context and these.
    """

    PAIRS: ClassVar = (("asked", "achieved"), ("valued", "earned"))
    """What was said, and what came of it."""
    asked: list[float] = dataclasses.field(default_factory=list)
    achieved: list[float] = dataclasses.field(default_factory=list)
    valued: list[float] = dataclasses.field(default_factory=list)
    earned: list[float] = dataclasses.field(default_factory=list)

    def means(self, said: str, came: str) -> tuple[float, float] | None:
        """Means of two of these over the episodes of which something was said; None where there are none."""
        pairs = self.pairs(said, came)
        return (sum(s for s, _ in pairs) / len(pairs), sum(c for _, c in pairs) / len(pairs)) if pairs else None

    def pairs(self, said: str, came: str) -> list[tuple[float, float]]:
        """Two of these of each episode of which something was said."""
        both = zip(getattr(self, said), getattr(self, came))
        return [(a, b) for a, b in both if not math.isnan(a) and not math.isnan(b)]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """n finished episodes, in the order of the seeds that were asked.

    Attributes:
        returns: undiscounted, raw, float64 [n].
        lengths: steps, int64 [n].
        successes: the environment's own word on each episode, bool [n]; None where it never says.
        foretold: what was said at the first step of each, and what came of it.
        seeds: int64 [n].
        versions: policy version of each episode, int64 [n]: all the same; -1 for random actions.
        unfinished: seeds whose episode the deadline cut or that never began.
        seconds: wall time.
    """

    returns: np.ndarray
    lengths: np.ndarray
    successes: np.ndarray | None
    foretold: Foretold
    seeds: np.ndarray
    versions: np.ndarray
    unfinished: tuple[int, ...]
    seconds: float

    @property
    def episodes(self) -> int:
        """Finished episodes n."""
        return len(self.returns)

    @property
    def mean_return(self) -> float:
        """Mean over finished episodes; NaN where none finished."""
        return float(self.returns.mean()) if len(self.returns) else float("nan")

    @property
    def ci95_mean_return(self) -> tuple[float, float]:
        """95% interval of `mean_return` over episodes."""
        return ci95(self.returns)


def ci95(values: np.ndarray | Sequence[float]) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the mean, 10,000 resamples of the episodes, fixed seed; NaN for none."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return float("nan"), float("nan")
    draws = np.random.default_rng(0).integers(0, len(values), (BOOTSTRAP_RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def evaluate(
    policy: Policy,
    environment: VectorEnvironment,
    seeds: Sequence[int],
    deadline: float,
    progressed: Callable[[], object] = lambda: None,
    discount: float = 1.0,
) -> Evaluation:
    """Play one episode of each seed with one version of the policy.

    Args:
        policy: with as many slots as the environment.
        environment: E slots; every one is reset here, so what it played before is lost.
        seeds: of the episodes' resets; distinct.
        deadline: seconds this may take; what is unfinished then is reported so.
        progressed: called at every step.
        discount: of what the critic says.

    Raises:
        RuntimeError: the policy's weights changed in the middle of the round.
    """
    version = policy.version
    played = _play(
        environment,
        seeds,
        deadline,
        lambda obs, first: policy.act(obs, first).action,
        heard=policy.rewarded,
        said=lambda: (policy.asked_return(), policy.action_value()),
        progressed=progressed,
        discount=discount,
    )
    if policy.version != version:
        raise RuntimeError(
            f"{environment.task.name}: weights went from version {version} to {policy.version} during an evaluation; "
            "give the evaluator a policy of its own"
        )
    return dataclasses.replace(played, versions=np.full(played.episodes, version, np.int64))


def random_return(environment: VectorEnvironment, episodes: int, seed: int, deadline: float = 600.0) -> float:
    """Mean return of ``episodes`` episodes of uniform random actions, with environment seeds ``seed``, ``seed + 1``...

    Raises:
        TimeoutError: not all of them ended within ``deadline`` seconds.
    """
    task, generator = environment.task, np.random.default_rng(seed)
    shape = (environment.num_envs, *task.action.shape)
    played = _play(
        environment,
        range(seed, seed + episodes),
        deadline,
        lambda observation, is_first: random_action(task, shape, generator),
    )
    if played.unfinished:
        raise TimeoutError(
            f"{task.name}: {len(played.unfinished)} of {episodes} random episodes did not end within {deadline:g} s; "
            "ask for fewer, or set random_return in the actor config"
        )
    return played.mean_return


def random_action(task: TaskSpec, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    """Uniform random actions of a task, of this shape, in the dtype of its action spec."""
    if task.says_text:
        return generator.integers(1, 128, shape).astype(np.uint8)
    if task.action.kind == "discrete":
        return generator.integers(0, task.action.num_values, shape).astype(task.action.dtype)
    return generator.uniform(-1.0, 1.0, shape).astype(task.action.dtype)


def _play(
    environment: VectorEnvironment,
    seeds: Sequence[int],
    deadline: float,
    choose: Chooser,
    heard: Callable[[np.ndarray], None] = lambda reward: None,
    said: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None,
    progressed: Callable[[], object] = lambda: None,
    discount: float = 1.0,
) -> Evaluation:
    """The loop of `evaluate` and `random_return`; ``heard`` is told every step's rewards, and ``said`` says after each
    choice which returns [E] are asked for and what the choice is worth [E]."""
    started = time.monotonic()
    if len(set(seeds)) != len(seeds) or not len(seeds):
        raise ValueError(f"{environment.task.name}: evaluation needs distinct seeds and at least one, not {seeds!r}")
    num_envs = environment.num_envs
    queues = [deque(seeds[slot::num_envs]) for slot in range(num_envs)]
    playing = [queue.popleft() if queue else None for queue in queues]
    # A vector environment steps all its slots: those with no seed left play on, unrecorded.
    observation = environment.reset(range(num_envs), [seeds[0] if seed is None else seed for seed in playing])
    is_first = np.ones(num_envs, bool)
    returns, lengths = np.zeros(num_envs, np.float64), np.zeros(num_envs, np.int64)
    asked, valued = np.full(num_envs, np.nan), np.full(num_envs, np.nan)
    achieved, earned = np.zeros(num_envs, np.float64), np.zeros(num_envs, np.float64)
    horizon = environment.task.return_horizon
    counted = environment.task.context_steps + horizon
    finished: dict[int, tuple[float, int, bool | None, tuple[float, ...]]] = {}

    while len(finished) < len(seeds) and time.monotonic() - started < deadline:
        action = choose(observation, is_first)
        if said is not None and is_first.any():
            for held, new in zip((asked, valued), said()):
                held[is_first] = new[is_first]
        step = environment.step(action)
        heard(step.reward)
        progressed()
        observation, is_first = step.observation, step.done.copy()
        returns += step.reward
        achieved += step.reward * (lengths < (horizon or math.inf))
        earned += step.reward * discount**lengths * (lengths < (counted if horizon else math.inf))
        lengths += 1
        for slot in np.flatnonzero(step.done):
            seed = playing[slot]
            if seed is not None:
                success = None if step.success is None else bool(step.success[slot])
                told = tuple(float(each[slot]) for each in (asked, achieved, valued, earned))
                finished[seed] = (float(returns[slot]), int(lengths[slot]), success, told)
                playing[slot] = queues[slot].popleft() if queues[slot] else None
        if is_first.any():
            ended = np.flatnonzero(is_first).tolist()
            begun = [seeds[0] if playing[slot] is None else playing[slot] for slot in ended]
            observation = with_slots(observation, ended, environment.reset(ended, begun))
            returns[ended], achieved[ended], earned[ended], lengths[ended] = 0.0, 0.0, 0.0, 0

    done = [seed for seed in seeds if seed in finished]
    successes = [finished[seed][2] for seed in done]
    return Evaluation(
        returns=np.array([finished[seed][0] for seed in done], np.float64),
        lengths=np.array([finished[seed][1] for seed in done], np.int64),
        successes=None if None in successes or not done else np.array(successes, bool),
        foretold=Foretold(*([finished[seed][3][each] for seed in done] for each in range(4))),
        seeds=np.array(done, np.int64),
        versions=np.full(len(done), -1, np.int64),
        unfinished=tuple(seed for seed in seeds if seed not in finished),
        seconds=time.monotonic() - started,
    )


def with_slots(observation: Observation, slots: Sequence[int], fresh: Observation) -> Observation:
    """The observation of E slots with those of ``slots`` replaced by ``fresh`` (n = len(slots) values a key)."""
    merged: Observation = {}
    for key, values in observation.items():
        new = list(values) if isinstance(values, list) else values.copy()
        for row, slot in enumerate(slots):
            new[slot] = fresh[key][row]
        merged[key] = new
    return merged
