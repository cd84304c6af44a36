"""`ActionWriter`: appends episodes to an action set, which is written whole now and then."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from actors.demonstrations.action_set import write_action_set
from actors.demonstrations.demonstration_set import SetSettings
from actors.demonstrations.episode import ActionRecord

SAVE_SECONDS = 20.0
"""The set is written at most this often; a killed recording loses no more than this."""


class ActionWriter:
    """Keeps the records (seeds and actions: small) and replaces the set on disk by a longer one."""

    def __init__(self, folder: Path, settings: SetSettings, records: list[ActionRecord]) -> None:
        self.settings = settings
        self.seeds = [each.seed for each in records]
        self._folder, self._records = folder, records
        self._saved_at = time.monotonic()

    def append(self, record: ActionRecord) -> None:
        """Add one episode."""
        self._records.append(record)
        self.seeds.append(record.seed)
        if time.monotonic() - self._saved_at > SAVE_SECONDS:
            self._save()

    def finish(self, failed_episodes: int) -> None:
        """Write what there is."""
        self.settings = dataclasses.replace(self.settings, failed_episodes=failed_episodes)
        self._save()

    def _save(self) -> None:
        if self._records:
            write_action_set(self._folder, self.settings, self._records)
        self._saved_at = time.monotonic()
