"""`record`: an expert plays, the task's own adapter plays it again, and the episodes go into a set on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from actors.config import ActorConfig
from actors.demonstrations.action_set import conform, write_action_set
from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.open_set import wanted_settings
from actors.demonstrations.recording import Recording, RecordOrder, RecordReport
from actors.experts.expert import Expert
from actors.experts.make import make_expert


def record(
    config: ActorConfig,
    expert: str | Expert,
    episodes: int,
    out: Path,
    *,
    progress: Callable[[RecordReport], None] | None = None,
    said: Callable[[str], None] = lambda line: None,
    **settings: Any,
) -> RecordReport:
    """`record_order` of a `RecordOrder` with these ``settings``."""
    return record_order(RecordOrder(config, episodes, Path(out), **settings), expert, progress=progress, said=said)


def record_order(
    order: RecordOrder,
    expert: str | Expert,
    *,
    progress: Callable[[RecordReport], None] | None = None,
    said: Callable[[str], None] = lambda line: None,
) -> RecordReport:
    """Record until the set of ``order`` has its episodes; a set of the same task that is there is continued.

    In this process; `distributed.recording` has the same with several. ``expert`` is one, or its name. Seeds count up;
    an episode that the environment calls failed, or that the expert did not give, is left out and the next seed is
    tried. ``progress`` is told when the set has grown, ``said`` of each problem, in one line.

    Raises:
        DemonstrationSetError: the folder holds a set of another task, other settings or another expert, or other files.
        RecordingFailed: the expert failed, or gave nothing that is an episode, too often in a row.
        OSError: the disk is full or not writable; the set holds all episodes before that and can be continued.
    """
    player = make_expert(expert, order.config) if isinstance(expert, str) else expert
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
