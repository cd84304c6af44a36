"""`make_sets`: the demonstration sets of an exploration, from the archives of its seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from actors.explorer import checkpoint
from actors.explorer.demonstrations import (
    StickyReplays,
    Way,
    best_way,
    stickiness,
    sticky_replays,
    write_replays,
    write_ways,
)
from distributed.exploration_plan import ExplorationFailed, ExplorationPlan
from distributed.stop_request import StopRequest

DETERMINISTIC = "deterministic"
"""Inside the set's folder: the set of the ways themselves, without sticky actions."""
SAY_SECONDS = 5.0
KEEP_SHARE = 0.8
"""Ways with less than this share of the best score are left out of the sets, as by Gato's filter."""


def make_sets(plan: ExplorationPlan, stop: StopRequest, say: Callable[[str], None]) -> list[Path]:
    """Demonstration sets of what was explored so far: of the best ways, and of their replays under sticky actions.

    The set in ``plan.out`` is that of the task as the actor config has it. Where that is with sticky actions, the ways
    themselves are a second set, in the folder `DETERMINISTIC` inside it.

    Raises:
        ExplorationFailed: nothing was found, or no replay earned all that its way does.
    """
    ways = _ways(plan, say)
    sticky = stickiness(plan.config)
    deterministic = plan.out / DETERMINISTIC if sticky else plan.out
    write_ways(deterministic, plan.config, ways, plan.command)
    say(f"{deterministic}: {len(ways)} episodes without sticky actions, {_scores(ways)}")
    if not sticky or not plan.replays:
        return [deterministic]
    found = StickyReplays([], [], 0)
    said = time.monotonic()
    for found in sticky_replays(ways, sticky, plan.replays, plan.partial_share):
        if stop.requested:
            return [deterministic]
        if time.monotonic() - said > SAY_SECONDS:
            say(f"{found.tried} of {plan.replays} replays under sticky actions: {len(found.whole)} whole")
            said = time.monotonic()
    if not found.whole:
        raise ExplorationFailed(
            f"none of {found.tried} replays under sticky actions earned what the way itself does; ask for more with "
            f"--replays, or learn from {deterministic}"
        )
    write_replays(plan.out, plan.config, found, plan.command)
    say(
        f"{plan.out}: {len(found.whole)} whole and {len(found.partial)} partial replays under sticky actions "
        f"{sticky:g}, of {found.tried}"
    )
    return [plan.out, deterministic]


def _ways(plan: ExplorationPlan, say: Callable[[str], None]) -> list[Way]:
    found = [best_way(checkpoint.load(plan.archive(seed), plan.settings(seed))) for seed in plan.seeds]
    ways = [way for way in found if way is not None]
    if not ways:
        raise ExplorationFailed(
            f"{plan.config.task} gave no points within {plan.frames:,} frames, so there is nothing to demonstrate; go "
            "on with --resume and more --frames, or with more --seeds"
        )
    best = max(way.score for way in ways)
    kept = [way for way in ways if way.score >= KEEP_SHARE * best]
    if len(kept) < len(plan.seeds):
        say(f"{len(plan.seeds) - len(kept)} seeds reached less than {KEEP_SHARE:.0%} of {best:,} and are left out")
    return kept


def _scores(ways: list[Way]) -> str:
    return ", ".join(f"seed {way.settings.seed}: {way.score:,} in {len(way.actions):,} steps" for way in ways)
