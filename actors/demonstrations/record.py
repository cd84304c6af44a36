"""`record`: an expert plays, the task's own adapter plays it again, and the episodes go into a set on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from actors.config import ActorConfig
from actors.demonstrations.action_set import conform, write_action_set
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.open_set import wanted_settings
from actors.demonstrations.recording import Form, Recording, RecordOrder, RecordReport
from actors.experts.expert import Expert
from actors.experts.make import make_expert


def record(
    config: ActorConfig,
    expert: str | Expert,
    episodes: int,
    out: Path,
    *,
    form: Form = "minari",
    noise_levels: Sequence[float] = (),
    noise_share: float = 0.5,
    start_seed: int = 0,
    random_seconds: float = 10.0,
    episode_deadline: float = 3600.0,
    command: str = "",
    progress: Callable[[RecordReport], None] | None = None,
    said: Callable[[str], None] = lambda line: None,
) -> RecordReport:
    """Record until the set in ``out`` has ``episodes`` episodes; a set of the same task that is there is continued.

    In this process; `distributed.recording` has the same with several. Arguments as in `RecordOrder`; ``expert`` is
    one, or its name. Seeds count up from ``start_seed``; an episode that the environment calls failed, or that the
    expert did not give, is left out and the next seed is tried. A new set also gets the return of uniform random
    actions, measured for ``random_seconds`` beyond the fewest episodes, since short ones with rare rewards need many.

    Raises:
        DemonstrationSetError: ``out`` holds a set of another task, other settings or another expert, or other files.
        RecordingFailed: the expert failed, or gave nothing that is an episode, too often in a row.
        OSError: the disk is full or not writable; the set holds all episodes before that and can be continued.
    """
    order = RecordOrder(
        config, episodes, Path(out), form, tuple(noise_levels), noise_share, start_seed, episode_deadline,
        random_seconds, command,
    )  # fmt: skip
    player = make_expert(expert, config) if isinstance(expert, str) else expert
    recording = Recording(order, player, said)
    maker = order.maker(player)
    try:
        while not recording.done:
            if recording.take(maker.make(*recording.deal())) and progress is not None:
                progress(recording.report())
    finally:
        recording.close()
        maker.close()
    return recording.report()


def pack_action_set(
    out: Path, config: ActorConfig, expert: str, records: Sequence[ActionRecord], random: float | None
) -> None:
    """An action set of ``config``'s task from records made elsewhere; malformed ones raise ValueError."""
    settings = dataclasses.replace(wanted_settings(config, expert), random_return=random)
    write_action_set(out, settings, [conform(each, settings.task) for each in records])
