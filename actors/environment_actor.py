"""`EnvironmentActor`: plays one task in E environments with the newest policy and writes what happened to replay."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import threading
import time
import zlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from actors.actor_report import ActorReport, FinishedEpisode
from actors.best_prompt import BestPrompt
from actors.config import ActorConfig
from actors.environments.failures import EnvironmentFailed, NotFinite
from actors.environments.make import make_environment
from actors.environments.vector_environment import Observation, VectorEnvironment, VectorStep
from actors.evaluator import with_slots
from actors.seeds import ENVIRONMENT_SEEDS
from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.writer import EpisodeWriter

if TYPE_CHECKING:
    from agent.policy import Policy
    from agent.sampling import Action
    from agent.text_policy import TextPolicy

GOOD_SHARE = 0.8
"""Gato's filter for imitation: (return - random) / (expert - random) is at least this."""
FAILURES_IN_A_ROW = 2
"""Environments are made anew after so many failures; the next one without a finished episode between is raised."""

READY_SECONDS = 0.5
"""Longest wait for replay before an episode begins, in one call of `EnvironmentActor.run`."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ActorIdentity:
    """Who writes: ``incarnation`` counts restarts of ``actor_id``; ``seed`` is the run's."""

    actor_id: str
    incarnation: int = 0
    seed: int = 0

    def environment_seed(self, episode_index: int) -> int:
        """Seed of an episode: distinct within an incarnation, and spread over [3,000,000, 2**31) between them."""
        start = zlib.crc32(f"{self.seed}/{self.actor_id}/{self.incarnation}".encode())
        return ENVIRONMENT_SEEDS + (start + episode_index) % (2**31 - ENVIRONMENT_SEEDS)


def good_filter(task: TaskSpec, good_return: float | None, share: float = GOOD_SHARE) -> Callable[[float], bool] | None:
    """Gato's filter on an episode's return, or None where the random or the expert's return is unknown."""
    if good_return is None or not good_return > task.random_return:
        return None
    least = task.random_return + share * (good_return - task.random_return)
    return lambda episode_return: episode_return >= least


class BestFilter:
    """Whether an episode's return is in the best quarter of an actor's newest episodes, itself included.

    Which of them stay is for the table to say, which lets the lowest leave; this only spares it what could not.
    """

    EPISODES = 64

    def __init__(self) -> None:
        self._returns: collections.deque[float] = collections.deque(maxlen=self.EPISODES)

    def __call__(self, episode_return: float) -> bool:
        """Take the return of an episode that ended; True for the best."""
        self._returns.append(episode_return)
        return episode_return >= float(np.quantile(self._returns, 0.75))


class EnvironmentActor:
    """The loop: observe -> `Policy.act` -> `VectorEnvironment.step` -> `EpisodeWriter.step`. See also `connect`.

    Args:
        config: of the task.
        environment: E environments; closed by `close`.
        policy: with E slots; its weights are swapped by its owner between two calls of `run`.
        writers: one for each slot; closed by `close`.
        identity: goes into every window.
        remake: makes the environments anew after one of them raised; `make_environment` where None.
    """

    def __init__(
        self,
        config: ActorConfig,
        environment: VectorEnvironment,
        policy: Policy | TextPolicy,
        writers: Sequence[EpisodeWriter],
        identity: ActorIdentity,
        remake: Callable[[], VectorEnvironment] | None = None,
    ) -> None:
        if len(writers) != environment.num_envs:
            raise ValueError(
                f"{config.task}: {environment.num_envs} environments need as many writers, not {len(writers)}"
            )
        self.environment, self.policy, self.writers, self.identity = environment, policy, list(writers), identity
        self._task, self._num_envs = environment.task, environment.num_envs
        self._remake = remake or (lambda: make_environment(config, len(writers)))
        self._observation: Observation = {}
        self._is_first = np.ones(self._num_envs, bool)
        self._returns = np.zeros(self._num_envs, np.float64)
        self._lengths = np.zeros(self._num_envs, np.int64)
        self._episodes_begun = self._episodes = self._steps = self._failures = self._failures_in_a_row = 0
        self._finished: list[FinishedEpisode] = []
        self._best_prompt = BestPrompt(self._task, self._num_envs) if config.acting_prompt == "best" else None
        self._seconds = {"environment": 0.0, "policy": 0.0, "writer": 0.0}

    @classmethod
    def connect(
        cls,
        config: ActorConfig,
        environment: VectorEnvironment,
        policy: Policy | TextPolicy,
        identity: ActorIdentity,
        address: str,
        replay: ReplayConfig,
        *,
        good_return: float | None = None,
        good_share: float = GOOD_SHARE,
        stop: threading.Event | None = None,
    ) -> EnvironmentActor:
        """An actor with writers of its own to the replay server at ``address``.

        Args:
            good_return: the expert's return that Gato's filter compares with; None where there is no expert, and then
                no episode is good.
            good_share: of the way from the random return to it, from which an episode is good.
            stop: when set, no writer waits any more.
        """
        task, decoding = environment.task, policy.decoding
        fields = {
            "actor_id": identity.actor_id,
            "incarnation": identity.incarnation,
            "temperature": decoding.temperature,
            "top_p": decoding.top_p,
            "decoding": getattr(decoding, task.action.kind),
            "kappa": decoding.kappa if decoding.returns == "tilted" else 0.0,
        }
        is_best = BestFilter() if replay.best_capacity else None  # of all slots together
        writers = [
            EpisodeWriter(
                address,
                task,
                "online",
                replay,
                is_good=good_filter(task, good_return, good_share),
                is_best=is_best,
                metadata=fields,
                seed=zlib.crc32(f"{identity}/{slot}".encode()),
                stop=stop,
            )
            for slot in range(environment.num_envs)
        ]
        return cls(config, environment, policy, writers, identity)

    def run(self, steps: int) -> int:
        """Take ``steps`` steps in each of the E environments; returns how many were taken.

        They are fewer where replay takes no more windows: an actor waits for it before an episode begins, at most
        `READY_SECONDS`, so that its owner can look at other things and call again.

        Raises:
            EnvironmentFailed: an environment raised, or gave NaN or an infinite number, for the third time in a row;
                names the task and the step.
            InvalidEnvironmentOutput: at once, since an environment that breaks its own specification otherwise will
                again.
            ReplayUnavailable: replay took nothing within its write deadline.
        """
        for taken in range(steps):
            started = time.perf_counter()
            if not self._writers_ready():
                self._seconds["writer"] += time.perf_counter() - started
                return taken
            ready = time.perf_counter()
            try:
                self._begin_episodes()
                begun = time.perf_counter()
                chosen = self.policy.act(self._observation, self._is_first)
                acted = time.perf_counter()
                step = self.environment.step(chosen.action)
            except (EnvironmentFailed, NotFinite) as failure:
                self._recover(failure)
                continue
            stepped = time.perf_counter()
            self.policy.rewarded(step.reward)
            self._write(chosen, step)
            written = time.perf_counter()
            self._seconds["environment"] += (begun - ready) + (stepped - acted)
            self._seconds["policy"] += acted - begun
            self._seconds["writer"] += (ready - started) + (written - stepped)
        return steps

    def report(self) -> ActorReport:
        """Counters so far, and the episodes that finished since the last call."""
        finished, self._finished = tuple(self._finished), []
        return ActorReport(
            environment_steps=self._steps,
            frames=self._steps * self._task.action_repeat,
            episodes=self._episodes,
            windows=sum(writer.windows_written for writer in self.writers),
            good_windows=sum(writer.good_windows_written for writer in self.writers),
            failures=self._failures,
            finished=finished,
            seconds={**self._seconds, "blocked": sum(writer.blocked_seconds for writer in self.writers)},
            policy_version=self.policy.version,
            policy_age=time.time() - self.policy.published_at if self.policy.published_at else float("nan"),
        )

    def close(self, deadline: float) -> bool:
        """Close the environments, and give the writers ``deadline`` seconds together to hand over what they hold.

        False where some windows were dropped.
        """
        until = time.monotonic() + deadline
        self.environment.close()
        return all([writer.close(max(0.0, until - time.monotonic())) for writer in self.writers])

    def _writers_ready(self) -> bool:
        """Whether the writers of all slots that begin an episode may begin one; waits a little."""
        until = time.monotonic() + READY_SECONDS
        return all(
            self.writers[slot].ready(max(0.0, until - time.monotonic())) for slot in np.flatnonzero(self._is_first)
        )

    def _begin_episodes(self) -> None:
        """Reset the slots whose episode ended, each with a seed of its own."""
        slots = np.flatnonzero(self._is_first).tolist()
        if not slots:
            return
        indices = range(self._episodes_begun, self._episodes_begun + len(slots))
        self._episodes_begun += len(slots)
        seeds = [self.identity.environment_seed(index) for index in indices]
        fresh = self.environment.reset(slots, seeds)
        self._observation = with_slots(self._observation, slots, fresh) if self._observation else fresh
        self._returns[slots], self._lengths[slots] = 0.0, 0
        for row, (slot, index, seed) in enumerate(zip(slots, indices, seeds)):
            observation, texts = self._of_slot(fresh, row)
            episode_id = f"{self.identity.actor_id}.{self.identity.incarnation}.{index}"
            metadata = {
                "episode_id": episode_id,
                "episode_index": index,
                "environment_seed": seed,
            }
            self.writers[slot].begin(observation, texts, metadata)
            if self._best_prompt is not None:
                self._best_prompt.begin(slot, texts, episode_id)

    def _write(self, chosen: Action, step: VectorStep) -> None:
        """Hand one step of every slot to its writer, and note the episodes that ended."""
        self._returns += step.reward
        self._lengths += 1
        self._steps += self._num_envs
        done, version, published_at = step.done, self.policy.version, self.policy.published_at
        asked = self.policy.asked()
        prompt_id = None if self._best_prompt is None else self._best_prompt.episode_id
        for slot, writer in enumerate(self.writers):
            if self._best_prompt is not None:
                self._best_prompt.step(slot, self._of_slot(self._observation, slot)[0], chosen.action[slot])
            success = bool(step.success[slot]) if step.success is not None and done[slot] else None
            good_before = writer.good_episodes
            writer.step(
                chosen.action[slot],
                float(step.reward[slot]),
                bool(step.terminated[slot]),
                bool(step.truncated[slot]),
                self._of_slot(step.observation, slot)[0],
                policy_version=version,
                log_prob=chosen.log_prob[slot],
                return_asked=None if asked is None else asked[slot],
                published_at=published_at,
                prompt_episode_id=prompt_id,
                success=success,
            )
            if done[slot]:
                good = writer.good_episodes > good_before
                self._finished.append(
                    FinishedEpisode(float(self._returns[slot]), int(self._lengths[slot]), success, good, version)
                )
                self._episodes += 1
                self._failures_in_a_row = 0
                if self._best_prompt is not None and (prompt := self._best_prompt.end(slot, self._returns[slot])):
                    self.policy.read_first(prompt)
        self._observation, self._is_first = step.observation, done.copy()

    def _recover(self, failure: EnvironmentFailed | NotFinite) -> None:
        """Forget the episodes in hand (their windows in replay stay) and make the environments anew; not for ever."""
        self._failures += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row > FAILURES_IN_A_ROW:
            raise EnvironmentFailed(
                f"{self._task.name}: failed {self._failures_in_a_row} times without one finished episode between, "
                f"last at step {self._steps // self._num_envs} of actor {self.identity.actor_id}: {failure}"
            ) from failure
        log.warning("%s: environments are made anew after a failure: %s", self._task.name, failure)
        with contextlib.suppress(Exception):  # what failed may not close either
            self.environment.close()
        self.environment = self._remake()
        self._observation, self._is_first = {}, np.ones(self._num_envs, bool)

    def _of_slot(self, observation: Observation, row: int) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        """One slot's arrays and texts."""
        arrays, texts = {}, {}
        for key, values in observation.items():
            if isinstance(values, list):
                texts[key] = values[row]
            else:
                arrays[key] = values[row]
        return arrays, texts
