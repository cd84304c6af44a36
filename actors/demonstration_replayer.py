"""`DemonstrationReplayer`: streams a set of demonstrations into replay, each episode once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence

import numpy as np

from actors.demonstrations.demonstration_set import DemonstrationSet
from actors.demonstrations.episode import Episode
from replay.waiting import Waiting
from replay.writer import EpisodeWriter

CONFIRM_SECONDS = 1.0
"""Longest wait, at the end of a `DemonstrationReplayer.run`, for replay to take what was written in it."""


@dataclasses.dataclass(frozen=True)
class ReplayerReport:
    """What a replayer has done.

    Attributes:
        cursor: what replay has confirmed; JSON-able. Give it to a new replayer of the same set and seed to go on.
        done: the whole set is in replay.
        episodes, num_episodes: of this replayer's share: written (also before a restart), and all.
        kept, in_set: episodes of the set that the task replays, by all its replayers, and all there are.
        steps, windows: written by this replayer.
        seconds: absolute, by ``episodes`` (reading or simulating them), ``writer`` and ``blocked`` (the part of
            ``writer`` that replay made it wait).
    """

    cursor: list[int]
    done: bool
    episodes: int
    num_episodes: int
    kept: int
    in_set: int
    steps: int
    windows: int
    seconds: dict[str, float]


class DemonstrationReplayer:
    """Writes the episodes of a set in an order shuffled by a seed.

    The whole set is in its table at the end, whose capacity must hold it. A set whose episodes are simulated hands
    over a few at a time, in the order in which they end. A restart at the cursor loses nothing: all windows of the
    episodes in it were taken by replay. What was written after it comes twice.

    Args:
        demonstrations: the set; closed by `close`.
        writer: for the source ``demonstrations``; closed by `close`.
        seed: of the order.
        cursor: of the replayer that this one replaces; empty to begin.
        keep: indices of the episodes to replay, of all its replayers; None for all.
        shard, shards: this replayer writes every ``shards``-th episode of the one order, from the ``shard``-th on.
    """

    def __init__(
        self,
        demonstrations: DemonstrationSet,
        writer: EpisodeWriter,
        seed: int = 0,
        cursor: Sequence[int] = (),
        *,
        keep: np.ndarray | None = None,
        shard: int = 0,
        shards: int = 1,
    ) -> None:
        in_set = demonstrations.num_episodes
        kept = np.ones(in_set, bool) if keep is None else np.isin(np.arange(in_set), keep)
        self._set = demonstrations
        self._writer = writer
        self._kept = int(kept.sum())
        order = np.random.default_rng([seed, in_set]).permutation(in_set)
        order = order[kept[order]][shard::shards].tolist()
        self._count = count = len(order)
        self._written = set(range(cursor[0])) | set(cursor[1:]) if cursor else set()
        if not self._written <= set(range(count)):
            raise ValueError(
                f"{demonstrations.folder} has {count} episodes to replay and the cursor is beyond them: the set has "
                "changed since the run began; start a new run"
            )
        self._confirmed = set(self._written)
        self._position = {index: position for position, index in enumerate(order)}
        left = [index for position, index in enumerate(order) if position not in self._written]
        self._source: Iterator[tuple[int, Episode] | None] = demonstrations.episodes(left)
        self._seconds = {"episodes": 0.0, "writer": 0.0}
        self._waiting = Waiting(f"the next episode of {demonstrations.folder}")

    @property
    def done(self) -> bool:
        """Every episode is in replay."""
        return len(self._written) == self._count

    @property
    def cursor(self) -> list[int]:
        """Positions in the order that replay has for certain: all below the first number, and the others."""
        taken = self._confirmed
        first = next(position for position in range(len(taken) + 1) if position not in taken)
        return [first, *sorted(position for position in taken if position > first)]

    def run(self, episodes: int, seconds: float = float("inf")) -> None:
        """Write until ``episodes`` more are in replay, ``seconds`` have passed or the set is `done`.

        Raises:
            DemonstrationSetError: the set is damaged, or an episode does not come out as recorded.
            ReplayUnavailable: replay took nothing within the writer's deadline.
        """
        until = time.monotonic() + seconds
        wanted = len(self._written) + episodes
        while not self.done and len(self._written) < wanted and time.monotonic() < until:
            started = time.perf_counter()
            with self._waiting:
                item = next(self._source)
                if item is None:
                    self._waiting.in_vain()
            taken = time.perf_counter()
            self._seconds["episodes"] += taken - started
            if item is not None:
                self._write(*item)
                self._seconds["writer"] += time.perf_counter() - taken
        self._confirm(CONFIRM_SECONDS)

    def report(self) -> ReplayerReport:
        """Counters so far."""
        return ReplayerReport(
            cursor=self.cursor,
            done=self.done,
            episodes=len(self._written),
            num_episodes=self._count,
            kept=self._kept,
            in_set=self._set.num_episodes,
            steps=self._writer.steps_written,
            windows=self._writer.windows_written,
            seconds={**self._seconds, "blocked": self._writer.blocked_seconds},
        )

    def close(self, deadline: float) -> bool:
        """Close the set, and the writer, which has ``deadline`` seconds to hand over; False where windows were lost."""
        self._set.close()
        kept = self._writer.close(deadline)
        if kept:
            self._confirmed = set(self._written)
        return kept

    def _confirm(self, seconds: float) -> None:
        """Move the cursor to what is written, where replay takes the rest of it in time."""
        if len(self._confirmed) < len(self._written) and self._writer.settle(seconds):
            self._confirmed = set(self._written)

    def _write(self, index: int, episode: Episode) -> None:
        self._writer.write_episode(
            observation=episode.observation,
            action=episode.action,
            reward=episode.reward,
            terminated=episode.terminated,
            truncated=episode.truncated,
            texts=episode.texts,
            label=episode.label,
            label_mask=episode.label_mask,
            success=episode.success,
            metadata={
                "episode_id": f"{self._set.folder.name}.{index}",
                "episode_index": index,
                "environment_seed": episode.seed,
                "expert": self._set.settings.expert,
            },
        )
        self._written.add(self._position[index])
