"""`ExplorationPlan`: what ``clowder explore`` was asked for, checked before any process starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST
from actors.demonstrations.open_set import open_set, wanted_settings
from actors.explorer import checkpoint
from actors.explorer.demonstrations import EXPERT, stickiness, without_sticky_actions
from actors.explorer.explorer import ExplorerSettings
from distributed.errors import ClowderError

FOLDER = "exploration"
"""Inside the set's folder: an archive for each seed, TensorBoard."""


class ExplorationFailed(ClowderError):
    """An explorer that cannot go on, or that found nothing."""

    exit_code = 1


@dataclasses.dataclass(frozen=True)
class ExplorationPlan:
    """What is to be explored.

    Attributes:
        config: the task as agents play it: sticky actions, action space, longest episode.
        frames: of each seed.
        seeds: of the explorers.
        out: folder of the set.
        processes: explorers at a time.
        replays: under sticky actions, of all ways together.
        partial_share: of the replays, those that are kept though they earned only a part; at most.
        overrides: further `ExplorerSettings`.
        command: that was given, for the cards of the sets.
    """

    config: ActorConfig
    frames: int
    seeds: tuple[int, ...]
    out: Path
    processes: int = 1
    replays: int = 100
    partial_share: float = 0.4
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    command: str = ""

    def settings(self, seed: int) -> ExplorerSettings:
        """Of one explorer."""
        arguments = wanted_settings(self.config).arguments
        of_task = {name: arguments[name] for name in ("full_action_space", "max_episode_steps")}
        return ExplorerSettings(self.config.task, seed, **of_task, **self.overrides)

    def archive(self, seed: int) -> Path:
        """Checkpoint of one explorer."""
        return self.out / FOLDER / f"seed{seed}" / checkpoint.ARCHIVE_FILE


def check_plan(plan: ExplorationPlan, resume: bool) -> None:
    """Refuse what cannot work, before any process starts; ValueError with the fix."""
    for name, least in (("frames", 1), ("processes", 1), ("replays", 0)):
        if getattr(plan, name) < least:
            raise ValueError(f"{name} must be at least {least}, not {getattr(plan, name)}")
    if not plan.seeds:
        raise ValueError("at least one seed is needed")
    if not 0.0 <= plan.partial_share <= 1.0:
        raise ValueError(f"the share of partial replays must be between 0 and 1, not {plan.partial_share}")
    if plan.config.entry_point or not plan.config.task.startswith("atari/"):
        raise ValueError(f"{plan.config.task} cannot be explored, only Atari games: their states can be returned to")
    if (plan.out / MANIFEST).exists():
        deterministic = stickiness(plan.config) == 0.0
        found = open_set(plan.out, without_sticky_actions(plan.config) if deterministic else plan.config)
        expert = found.settings.expert
        found.close()
        if expert != EXPERT:
            raise ValueError(f"{plan.out} holds episodes of {expert}, not of an exploration; choose another --out")
    elif plan.out.exists() and not (plan.out / FOLDER).exists() and any(plan.out.iterdir()):
        raise ValueError(f"{plan.out} holds other files; choose another --out")
    if (plan.out / FOLDER).exists() and not resume:
        raise ValueError(f"{plan.out} holds an exploration; give --resume to go on with it, or choose another --out")
    for seed in plan.seeds:
        settings = plan.settings(seed)
        if plan.archive(seed).exists():
            checkpoint.check(plan.archive(seed), settings)
