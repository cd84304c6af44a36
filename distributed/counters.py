"""`Counters`: what all environment actors have done so far, totals that never go backward.

An actor reports *absolute* counts of its own incarnation, so a lost, repeated or late report is harmless; the total is
the sum over incarnations. A process that dies loses at most what it did since its last report.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

COUNTED = ("environment_steps", "frames", "episodes", "windows", "good_windows", "failures")
"""What is counted: vector slots' steps, simulator frames, finished episodes, windows written, those to ``good``, and
times that environments raised or gave NaN and were made anew."""


class Counters:
    """Counts by (actor, incarnation), kept with the learner's checkpoint."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, int], dict[str, int]] = {}
        self._tasks: dict[tuple[str, int], str] = {}

    def next_incarnation(self, actor_id: str) -> int:
        """A number that no process of this actor has had, in this run or in the runs it resumes."""
        return 1 + max((incarnation for actor, incarnation in self._counts if actor == actor_id), default=-1)

    def begin(self, task: str, actor_id: str) -> int:
        """Register a new process of ``actor_id`` that plays ``task``; returns its incarnation."""
        incarnation = self.next_incarnation(actor_id)
        self._counts[actor_id, incarnation] = dict.fromkeys(COUNTED, 0)
        self._tasks[actor_id, incarnation] = task
        return incarnation

    def update(self, actor_id: str, incarnation: int, counts: Mapping[str, int]) -> None:
        """Take absolute counts of one incarnation; a count below the one known is a late report and is ignored.

        Raises KeyError for an incarnation that was never begun, or a name that is not in `COUNTED`.
        """
        known = self._counts[actor_id, incarnation]
        for name, value in counts.items():
            known[name] = max(known[name], int(value))

    def totals(self, task: str | None = None) -> dict[str, int]:
        """Sums over all incarnations, of one task or of all."""
        sums = dict.fromkeys(COUNTED, 0)
        for key, counts in self._counts.items():
            if task is None or self._tasks[key] == task:
                for name, value in counts.items():
                    sums[name] += value
        return sums

    def by_task(self) -> dict[str, dict[str, int]]:
        """`totals` of every task seen."""
        return {task: self.totals(task) for task in sorted(set(self._tasks.values()))}

    def state(self) -> dict[str, Any]:
        """JSON-able form. All incarnations of an actor are folded into its newest, so that it stays small."""
        folded: dict[tuple[str, str], dict[str, int]] = defaultdict(lambda: dict.fromkeys(COUNTED, 0))
        newest: dict[tuple[str, str], int] = {}
        for key, counts in self._counts.items():
            entry = (key[0], self._tasks[key])
            newest[entry] = max(key[1], newest.get(entry, 0))
            for name, value in counts.items():
                folded[entry][name] += value
        return {
            "actors": [
                {"actor": actor, "task": task, "incarnation": newest[actor, task], "counts": counts}
                for (actor, task), counts in sorted(folded.items())
            ]
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> Counters:
        """Inverse of `state`: the same totals, and incarnations that continue."""
        counters = cls()
        for entry in json.loads(json.dumps(state))["actors"]:
            key = (entry["actor"], int(entry["incarnation"]))
            counters._counts[key] = dict.fromkeys(COUNTED, 0) | {k: int(v) for k, v in entry["counts"].items()}
            counters._tasks[key] = entry["task"]
        return counters
