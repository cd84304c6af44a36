"""`record`: an expert plays, the task's own adapter plays it again, and the episodes go into a set on disk."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST, ActionSet, conform, write_action_set
from actors.demonstrations.demonstration_set import DemonstrationSetError, SetSettings, check_settings
from actors.demonstrations.episode import ActionRecord, Episode
from actors.demonstrations.minari_set import METADATA, MinariSet, read_metadata
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import wanted_settings
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment
from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import random_return
from actors.experts.make import make_expert
from actors.seeds import LAST_SEED

RANDOM_EPISODES = (20, 500)
"""Fewest and most episodes of uniform random actions that measure the random return."""
MOST_FAILURES = 20
"""Failed episodes in a row after which recording gives up."""
SAVE_SECONDS = 20.0
"""An action set is written whole at most this often; a killed recording loses no more than this."""

Form = Literal["minari", "actions"]


@dataclasses.dataclass(frozen=True)
class RecordReport:
    """How far a recording is.

    Attributes:
        episodes, wanted: in the set, and asked for.
        failed: episodes of this recording and earlier ones that are not in the set because the expert failed.
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


class _SetWriter(Protocol):
    settings: SetSettings
    seeds: list[int]

    def append(self, record: ActionRecord, episode: Episode) -> None: ...

    def finish(self, failed_episodes: int) -> None: ...


def record(
    config: ActorConfig,
    expert_name: str,
    episodes: int,
    out: Path,
    *,
    form: Form = "minari",
    noise_levels: Sequence[float] = (),
    noise_share: float = 0.5,
    start_seed: int = 0,
    random_seconds: float = 10.0,
    progress: Callable[[RecordReport], None] | None = None,
) -> RecordReport:
    """Record until the set in ``out`` has ``episodes`` episodes; a set of the same task that is there is continued.

    With ``noise_levels``, a share ``noise_share`` of the episodes, spread evenly, is played under injected noise, the
    levels taken in turn (DART, Laskey et al. 2017). Seeds count up from ``start_seed``; an episode that the environment
    calls failed is left out and the next seed is tried. A new set also gets the return of uniform random actions,
    measured for ``random_seconds`` beyond the fewest episodes, since short ones with rare rewards need many.

    Raises:
        DemonstrationSetError: ``out`` holds a set of another task, other settings or another expert, or other files.
        RuntimeError: the expert failed `MOST_FAILURES` times in a row.
        OSError: the disk is full or not writable; the set holds all episodes before that and can be continued.
    """
    if episodes < 1:
        raise ValueError(f"asked to record {episodes} episodes; ask for at least 1")
    if not 0 <= start_seed < LAST_SEED:
        raise ValueError(f"start_seed must be 0 to {LAST_SEED - 1}, not {start_seed}: evaluation uses those above")
    if noise_levels and not 0 <= noise_share < 1:
        raise ValueError(
            f"noise_share must be at least 0 and below 1, not {noise_share}: some episodes are the expert's own"
        )
    started = time.monotonic()
    expert = make_expert(expert_name, config)
    settings, records = _existing(config, expert_name, out, form)
    environment = make_environment(config, 1)
    try:
        if settings is None:
            measured = measure_random_return(environment, start_seed, random_seconds)
            settings = dataclasses.replace(wanted_settings(config, expert_name), random_return=measured)
        writer: _SetWriter = (
            MinariWriter(out, settings) if form == "minari" else _ActionSetWriter(out, settings, records)
        )
        failed, in_a_row, steps, newest = settings.failed_episodes, 0, 0, float("nan")

        def report() -> RecordReport:
            random = float("nan") if settings.random_return is None else settings.random_return
            return RecordReport(len(writer.seeds), episodes, failed, steps, newest, random, time.monotonic() - started)

        seed = max([start_seed - 1, *writer.seeds]) + 1
        try:
            while len(writer.seeds) < episodes:
                noise = noise_of(len(writer.seeds), noise_levels, noise_share)
                played = conform(expert.play(seed, noise), settings.task)
                episode = _again(environment, played)
                seed += 1
                if episode.success is False:
                    failed, in_a_row = failed + 1, in_a_row + 1
                    if in_a_row >= MOST_FAILURES:
                        raise RuntimeError(
                            f"{expert_name} failed {in_a_row} times in a row on {config.task}, seeds up to {seed - 1}, "
                            f"noise {noise:g}; take less noise or another expert"
                        )
                    continue
                writer.append(dataclasses.replace(played, episode_return=episode.episode_return), episode)
                in_a_row, steps, newest = 0, steps + episode.length, episode.episode_return
                if progress is not None:
                    progress(report())
        finally:
            writer.finish(failed)
        return report()
    except OSError as error:
        raise OSError(
            error.errno,
            f"cannot write {out} ({error.strerror or error}); it can be read and holds the episodes written before: "
            "free space and give the same command again to continue",
        ) from error
    finally:
        environment.close()


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
    """Noise of episode ``index``: of any n first episodes, floor(n * share) are noisy; the levels take turns."""
    if not levels or int((index + 1) * share) == int(index * share):
        return 0.0
    return float(levels[int(index * share) % len(levels)])


def pack_action_set(
    out: Path, config: ActorConfig, expert: str, records: Sequence[ActionRecord], random: float | None
) -> None:
    """An action set of ``config``'s task from records made elsewhere; malformed ones raise ValueError."""
    settings = dataclasses.replace(wanted_settings(config, expert), random_return=random)
    write_action_set(out, settings, [conform(each, settings.task) for each in records])


def _again(environment: VectorEnvironment, played: ActionRecord) -> Episode:
    return next(item[1] for item in simulate(environment, lambda _: played, [0]) if item is not None)


def _existing(config: ActorConfig, expert: str, out: Path, form: Form) -> tuple[SetSettings | None, list[ActionRecord]]:
    """Settings and, for an action set, records of the set that is to be continued; None for a new one."""
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


class _ActionSetWriter:
    """Keeps the records and writes the whole set now and then."""

    def __init__(self, folder: Path, settings: SetSettings, records: list[ActionRecord]) -> None:
        self.settings = settings
        self.seeds = [each.seed for each in records]
        self._folder, self._records = folder, records
        self._saved_at = time.monotonic()

    def append(self, record: ActionRecord, episode: Episode) -> None:
        self._records.append(record)
        self.seeds.append(record.seed)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def finish(self, failed_episodes: int) -> None:
        self.settings = dataclasses.replace(self.settings, failed_episodes=failed_episodes)
        self._save()

    def _save(self) -> None:
        if self._records:
            write_action_set(self._folder, self.settings, self._records)
        self._saved_at = time.monotonic()
