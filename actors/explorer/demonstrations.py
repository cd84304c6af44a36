"""From what an explorer found to demonstration sets: its best way, and replays of it under sticky actions.

An explorer's emulator repeats exactly, evaluation's does not (Machado et al. 2018). So a way is also played open loop
under sticky actions, with many seeds, and what still earned points is kept (rejection sampling), with the actions that
were asked for as labels.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.config import ActorConfig
from actors.demonstrations.action_set import ActionSet, conform, write_action_set
from actors.demonstrations.card import write_card
from actors.demonstrations.demonstration_set import DemonstrationSetError, SetSettings
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.open_set import open_set, wanted_settings
from actors.explorer.emulator import Emulator
from actors.explorer.explorer import Explorer, ExplorerSettings
from actors.seeds import LAST_SEED

EXPERT = "go-explore"
STICKY = "repeat_action_probability"
PATIENCE = 25
"""Steps by which a replay may earn each point later than its original; further behind, it is given up."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A list of actions that earns ``score`` without sticky actions, ending with the step that earned the last point.

    Attributes:
        settings: of the explorer that found it.
        actions: indices, int32 [T].
        sums: score after each step, int64 [T].
    """

    settings: ExplorerSettings
    actions: np.ndarray
    sums: np.ndarray

    @property
    def score(self) -> int:
        """Points in the end."""
        return int(self.sums[-1])


def best_way(explorer: Explorer) -> Way | None:
    """The shortest way to the highest score, played again and checked; None where nothing was earned.

    Raises:
        RuntimeError: the emulator did not repeat.
    """
    if not explorer.finds:
        return None
    score = max(explorer.finds)
    settings = explorer.settings
    actions = explorer.tree.path(explorer.finds[score].node).astype(np.int32)
    game = Emulator(settings.task, full_action_space=settings.full_action_space)
    sums = np.cumsum([game.act(action) for action in actions.tolist()], dtype=np.int64)
    if sums[-1] != score:
        raise RuntimeError(f"{settings.task}: a way of {len(actions)} steps to {score} points gave {sums[-1]} again")
    return Way(settings, actions, sums)


@dataclasses.dataclass(frozen=True)
class Replay:
    """What one replay under sticky actions kept.

    Attributes:
        record: up to the last point that was earned; None where none was.
        whole: it earned what its original did.
    """

    record: ActionRecord | None
    whole: bool


def replay(way: Way, sticky: float, seed: int) -> Replay:
    """Play ``way`` once under sticky actions of ``seed``, as the adapter plays this seed.

    Its last action is held for up to `PATIENCE` more steps, since points may come late.
    """
    settings = way.settings
    game = Emulator(settings.task, sticky=sticky, seed=seed, full_action_space=settings.full_action_space)
    score = kept_score = kept = 0
    asked: list[int] = []
    played = [*way.actions.tolist(), *[int(way.actions[-1])] * PATIENCE][: settings.max_episode_steps]
    for action in played:
        reward = game.act(action)
        asked.append(action)
        score += reward
        if reward and score > kept_score:
            kept, kept_score = len(asked), score
        late = len(asked) - 1 - PATIENCE
        if score >= way.score or game.over or (late >= 0 and score < way.sums[late]):
            break
    if not kept:
        return Replay(None, whole=False)
    whole = kept_score >= way.score
    over = game.over and kept == len(asked)
    return Replay(make_record(asked[:kept], kept_score, seed, noisy=not whole, over=over), whole)


def make_record(
    actions: Sequence[int], score: int, seed: int, *, noisy: bool = False, over: bool = False
) -> ActionRecord:
    """The record of an episode that is cut after ``actions``, unless the game is ``over`` there."""
    taken = np.array(actions, np.int32)
    return ActionRecord(seed, taken, taken, np.ones(len(taken), bool), float(score), noisy=noisy, cut=not over)


@dataclasses.dataclass(frozen=True)
class StickyReplays:
    """Replays of several ways.

    Attributes:
        whole, partial: those that earned what their original did, and the best of the others that earned anything.
        tried: how many were played.
    """

    whole: list[ActionRecord]
    partial: list[ActionRecord]
    tried: int


def sticky_replays(
    ways: Sequence[Way], sticky: float, count: int, partial_share: float = 0.4, first_seed: int = 0
) -> Iterator[StickyReplays]:
    """Replays with ``count`` seeds, the ways taken in turn; yields how far it is after each.

    Partial ones are marked as noisy, since where sticky actions broke them off is no return of the demonstrator. They
    are at most ``partial_share`` of ``count``, those with the most points first.
    """
    if not 0 <= first_seed <= first_seed + count <= LAST_SEED:
        raise ValueError(f"seeds of replays are 0 to {LAST_SEED - 1}, not {first_seed} to {first_seed + count - 1}")
    if not 0.0 <= partial_share <= 1.0:
        raise ValueError(f"the share of partial replays must be between 0 and 1, not {partial_share}")
    whole: list[ActionRecord] = []
    partial: list[ActionRecord] = []
    for tried in range(1, count + 1):
        found = replay(ways[(tried - 1) % len(ways)], sticky, first_seed + tried - 1)
        if found.record is not None:
            (whole if found.whole else partial).append(found.record)
        best = sorted(partial, key=lambda each: (-each.episode_return, each.seed))[: int(partial_share * count)]
        yield StickyReplays(whole, sorted(best, key=lambda each: each.seed), tried)


def read_way(folder: Path, config: ActorConfig) -> Way:
    """The best episode of a set without sticky actions of the task of ``config``, as `write_ways` writes it.

    Raises:
        DemonstrationSetError: it is no such set.
    """
    opened = open_set(folder, without_sticky_actions(config), num_envs=1)
    opened.close()
    if not isinstance(opened, ActionSet):
        raise DemonstrationSetError(
            f"{folder} holds whole episodes; a way is read from seeds and actions (--form actions)"
        )
    settings = opened.settings
    actions = opened.record(int(opened.returns.argmax())).action
    limits = {name: settings.arguments[name] for name in ("full_action_space", "max_episode_steps")}
    of = ExplorerSettings(config.task, **limits)
    game = Emulator(of.task, full_action_space=of.full_action_space)
    return Way(of, actions, np.cumsum([game.act(action) for action in actions.tolist()], dtype=np.int64))


def without_sticky_actions(config: ActorConfig) -> ActorConfig:
    """The task of ``config`` as it is explored."""
    return dataclasses.replace(config, arguments={**config.arguments, STICKY: 0.0})


def stickiness(config: ActorConfig) -> float:
    """Probability of a repeated action under ``config``, the adapter's own where it says nothing."""
    arguments: dict[str, Any] = wanted_settings(config).arguments
    return float(arguments[STICKY])


def write_ways(folder: Path, config: ActorConfig, ways: Sequence[Way], command: str = "") -> SetSettings:
    """The set of ``ways`` without sticky actions; every episode is played through the adapter and checked. ``command``
    made it, for the card."""
    records = [make_record(way.actions.tolist(), way.score, way.settings.seed) for way in ways]
    settings = _write(folder, without_sticky_actions(config), records, failed=0, check=range(len(records)))
    write_card(folder, sees="simulator state", kept="the shortest way to the highest score", command=command)
    return settings


def write_replays(folder: Path, config: ActorConfig, replays: StickyReplays, command: str = "") -> SetSettings:
    """The set of ``replays`` under the sticky actions of ``config``; the first of either kind is checked. ``command``
    made it, for the card."""
    records = [*replays.whole, *replays.partial]
    failed = replays.tried - len(records)
    check = [0, len(replays.whole)] if replays.partial else [0]
    settings = _write(folder, config, records, failed, check)
    kept = f"{len(replays.whole)} replays that earned all points, {len(replays.partial)} cut at their last one"
    write_card(folder, sees="simulator state", kept=kept, command=command)
    return settings


def _write(
    folder: Path, config: ActorConfig, records: Sequence[ActionRecord], failed: int, check: Sequence[int]
) -> SetSettings:
    wanted = wanted_settings(config, EXPERT)
    settings = dataclasses.replace(wanted, random_return=config.random_return, failed_episodes=failed)
    write_action_set(folder, settings, [conform(record, settings.task) for record in records])
    written = open_set(folder, config, num_envs=1)
    try:
        for _ in written.episodes(check):
            pass
    finally:
        written.close()
    return settings
