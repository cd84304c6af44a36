"""`Recording`: deals seeds out and puts what comes of them into a set, in the order of the seeds.

So the set is the same however many processes play, and in whatever order they answer; what is in it after a kill is a
beginning of it. Who plays is no business of this file: `record` does it here, `distributed.recording` in processes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST, ActionSet
from actors.demonstrations.action_writer import ActionWriter
from actors.demonstrations.card import write_card
from actors.demonstrations.demonstration_set import DemonstrationSetError, SetSettings, check_settings
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.episode_maker import Attempt, EpisodeMaker
from actors.demonstrations.minari_set import METADATA, MinariSet, read_metadata
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import wanted_settings
from actors.environments.make import make_environment
from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import random_return
from actors.experts.expert import Expert
from actors.experts.weak_expert import PREFIX
from actors.seeds import LAST_SEED

RANDOM_EPISODES = (20, 500)
"""Fewest and most episodes of uniform random actions that measure the random return."""
MOST_FAILURES = 20
"""Failed episodes in a row after which recording gives up."""
MOST_ERRORS = 3
"""The same for an expert that raises, takes too long or returns nonsense; with and without noise apart."""

Form = Literal["minari", "actions"]


class RecordingFailed(RuntimeError):
    """The expert gives no more episodes; the set holds those before."""


@dataclasses.dataclass(frozen=True)
class RecordOrder:
    """What to record. Plain data: it travels to recording processes.

    Attributes:
        config: of the task.
        episodes: in the set when it is done.
        out: folder of the set.
        form: whole episodes, or seeds and actions.
        noise_levels, noise_share: a share of the episodes, spread evenly, is played under injected noise, the levels
            taken in turn (DART, Laskey et al. 2017).
        start_seed: of the first episode; the others count up.
        episode_deadline: seconds that the expert may take for one episode.
        random_seconds: for measuring uniform random play of a new set, beyond the fewest episodes.
        command: that was given, for the set's card.
    """

    config: ActorConfig
    episodes: int
    out: Path
    form: Form = "minari"
    noise_levels: Sequence[float] = ()
    noise_share: float = 0.5
    start_seed: int = 0
    episode_deadline: float = 3600.0
    random_seconds: float = 10.0
    command: str = ""

    def __post_init__(self) -> None:
        if self.episodes < 1:
            raise ValueError(f"asked to record {self.episodes} episodes; ask for at least 1")
        if not 0 <= self.start_seed < LAST_SEED:
            raise ValueError(
                f"start_seed must be 0 to {LAST_SEED - 1}, not {self.start_seed}: evaluation uses those above"
            )
        if self.noise_levels and not 0 <= self.noise_share < 1:
            raise ValueError(
                f"noise_share must be at least 0 and below 1, not {self.noise_share}: some episodes are the expert's "
                "own"
            )
        if not self.episode_deadline > 0:
            raise ValueError(f"episode_deadline must be above 0 seconds, not {self.episode_deadline}")

    def maker(self, expert: Expert) -> EpisodeMaker:
        """Who makes its episodes in one process."""
        return EpisodeMaker(expert, make_environment(self.config, 1), self.form == "minari", self.episode_deadline)


@dataclasses.dataclass(frozen=True)
class RecordReport:
    """How far a recording is.

    Attributes:
        episodes, wanted: in the set, and asked for.
        failed: seeds of this recording and earlier ones that are not in the set because the expert failed.
        steps: of the episodes that this call added.
        last_return: of the newest episode; NaN before the first.
        random_return: measured mean return of uniform random actions.
        seconds: since the call began.
    """

    episodes: int
    wanted: int
    failed: int
    steps: int
    last_return: float
    random_return: float
    seconds: float


class Recording:
    """One set while it is recorded. Use: while not `done`: `deal` a seed while it `wants` one, `take` the answers.

    Args:
        order: see there.
        expert: that plays; only its name and what it says of itself are used here.
        said: is told each problem with an episode, in one line.

    Raises:
        DemonstrationSetError: ``order.out`` holds a set of another task, settings or expert, or other files.
    """

    def __init__(self, order: RecordOrder, expert: Expert, said: Callable[[str], None] = lambda line: None) -> None:
        self.order = order
        self._expert, self._said = expert, said
        self._started = time.monotonic()
        settings, records = _existing(order, expert.name)
        if settings is None:
            environment = make_environment(order.config, 1)
            try:
                measured = measure_random_return(environment, order.start_seed, order.random_seconds)
            finally:
                environment.close()
            settings = dataclasses.replace(wanted_settings(order.config, expert.name), random_return=measured)
        if order.noise_levels and settings.task.says_text:
            raise ValueError(f"{settings.task.name} takes no noise: a text has no disturbed form; leave --noise out")
        self._settings = settings
        self._writer: MinariWriter | ActionWriter
        with self._disk():
            if order.form == "minari":
                self._writer = MinariWriter(order.out, settings)
            else:
                self._writer = ActionWriter(order.out, settings, records)
        self._next = self._due = max([order.start_seed - 1, *self._writer.seeds]) + 1
        self._answers: dict[int, Attempt] = {}
        self._clean = bool(self._writer.seeds)
        self._failed = self._failed_before = settings.failed_episodes
        self._failures, self._errors = 0, {False: 0, True: 0}
        self._steps, self._newest = 0, float("nan")

    @property
    def done(self) -> bool:
        """The set has its episodes."""
        return len(self._writer.seeds) >= self.order.episodes

    @property
    def wants(self) -> bool:
        """More seeds should be played now than those that were dealt and may still succeed."""
        hopeless = sum(bool(each.problem) for each in self._answers.values())
        return len(self._writer.seeds) + self.waiting - hopeless < self.order.episodes

    @property
    def waiting(self) -> int:
        """Seeds that were dealt and are not yet in the set or left out: in play, or before their turn."""
        return self._next - self._due

    def deal(self) -> tuple[int, float]:
        """The next seed and the noise it is played with, which hangs on the seed alone."""
        seed, order = self._next, self.order
        self._next += 1
        return seed, noise_of(seed - order.start_seed, order.noise_levels, order.noise_share)

    def take(self, attempt: Attempt) -> bool:
        """The answer to a seed; True where the set grew. What came before its turn waits.

        Raises:
            RecordingFailed: the expert failed too often in a row.
            OSError: the disk is full or not writable; the set holds the episodes before.
        """
        before = len(self._writer.seeds)
        self._answers[attempt.seed] = attempt
        while self._due in self._answers:
            self._accept(self._answers.pop(self._due))
            self._due += 1
        return len(self._writer.seeds) > before

    def _accept(self, attempt: Attempt) -> None:
        if attempt.problem:
            self._refused(attempt)
            return
        noisy = attempt.noise > 0
        self._failures, self._errors[noisy] = 0, 0
        if self.done or (noisy and not self._clean):
            return  # a set begins with an episode of the expert's own, or its mean return would have no meaning
        assert attempt.record is not None
        with self._disk():
            if isinstance(self._writer, ActionWriter):
                self._writer.append(attempt.record)
            else:
                assert attempt.rows is not None
                self._writer.append_rows(attempt.rows, attempt.facts)
        self._clean = True
        self._failed_before = self._failed
        self._steps += attempt.facts["total_steps"]
        self._newest = attempt.facts["episode_return"]

    def _refused(self, attempt: Attempt) -> None:
        self._failed += 1
        if not attempt.error:
            self._failures += 1
            if self._failures >= MOST_FAILURES:
                raise RecordingFailed(
                    f"{self._expert.name} failed {self._failures} times in a row on {self.order.config.task}, seeds up "
                    f"to {attempt.seed}, noise {attempt.noise:g}; take less noise or another expert"
                )
            return
        self._said(f"{attempt.problem}; this seed is left out")
        self._errors[attempt.noise > 0] += 1
        if self._errors[attempt.noise > 0] >= MOST_ERRORS:
            raise RecordingFailed(
                f"{self._expert.name} gave no episode {MOST_ERRORS} times in a row, the last time: {attempt.problem}. "
                f"{self.order.out} keeps the {len(self._writer.seeds)} episodes before"
            )

    def report(self) -> RecordReport:
        """So far."""
        measured = self._settings.random_return
        return RecordReport(
            episodes=len(self._writer.seeds),
            wanted=self.order.episodes,
            failed=self._failed,
            steps=self._steps,
            last_return=self._newest,
            random_return=float("nan") if measured is None else measured,
            seconds=time.monotonic() - self._started,
        )

    def close(self) -> None:
        """Bring settings and card up to date; also after an interruption."""
        with self._disk():
            # Seeds that failed after the last episode are tried again by whoever continues; counted then.
            self._writer.finish(self._failed if self.done else self._failed_before)
            if self._writer.seeds:
                order = self.order
                write_card(
                    order.out,
                    sees=getattr(self._expert, "sees", ""),
                    noise={"levels": list(order.noise_levels), "share": order.noise_share}
                    if order.noise_levels
                    else {},
                    kept="every episode"
                    + ("" if self._expert.name.startswith(PREFIX) else " that the environment does not call failed"),
                    command=order.command,
                )

    def _disk(self) -> _Disk:
        return _Disk(self.order.out)


class _Disk:
    """Says what a failed write means for the set."""

    def __init__(self, out: Path) -> None:
        self._out = out

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            raise OSError(
                error.errno,
                f"cannot write {self._out} ({error.strerror or error}); it can be read and holds the episodes written "
                "before: free space and give the same command again to continue",
            ) from error


def measure_random_return(environment: VectorEnvironment, seed: int, seconds: float) -> float:
    """Mean return of uniform random actions, with seeds from ``seed`` on, of as many episodes as `RANDOM_EPISODES` and
    ``seconds`` allow."""
    fewest, most = RANDOM_EPISODES
    means: list[float] = []
    started = time.monotonic()
    while len(means) * fewest < most and (not means or time.monotonic() - started < seconds):
        means.append(random_return(environment, fewest, seed + len(means) * fewest))
    return sum(means) / len(means)


def noise_of(index: int, levels: Sequence[float], share: float) -> float:
    """Noise of the ``index``-th seed: of any n first, floor(n * share) are noisy; the levels take turns."""
    if not levels or int((index + 1) * share) == int(index * share):
        return 0.0
    return float(levels[int(index * share) % len(levels)])


def _existing(order: RecordOrder, expert: str) -> tuple[SetSettings | None, list[ActionRecord]]:
    """Settings and, for an action set, records of the set that is to be continued; None for a new one."""
    out, form, config = order.out, order.form, order.config
    opened: MinariSet | ActionSet
    if (out / MANIFEST).exists() and form == "actions":
        opened = ActionSet(out, lambda: make_environment(config, 1))
    elif (out / "data" / METADATA).exists() and form == "minari":
        if not read_metadata(out / "data" / METADATA).get("total_episodes") and not (out / "data" / "0").exists():
            return None, []  # interrupted before its first episode
        opened = MinariSet(out)
    else:
        # What an interruption before the first whole set leaves is no reason to refuse.
        found = [path for path in out.rglob("*") if path.is_file() and not path.name.startswith((".", "episodes-"))]
        if found:
            raise DemonstrationSetError(
                f"{out} holds no set of form {form} but other files ({found[0].name}, ...); choose another --out"
            )
        return None, []
    check_settings(opened.settings, wanted_settings(config), out)
    if opened.settings.expert != expert:
        raise DemonstrationSetError(
            f"{out} holds episodes of {opened.settings.expert}, not of {expert}; choose another --out"
        )
    records = [opened.record(i) for i in range(opened.num_episodes)] if isinstance(opened, ActionSet) else []
    return opened.settings, records
