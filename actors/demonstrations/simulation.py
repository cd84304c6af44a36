"""Makes episodes again from seeds and actions, in several environments at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from actors.demonstrations.episode import ActionRecord, Episode
from actors.environments.vector_environment import Observation, VectorEnvironment, VectorStep
from agent.task import TaskSpec

RETURN_TOLERANCE = 1e-3
"""Of a return, relative above 1: far above rounding, far below what another version of a simulator changes."""


class ReplayMismatch(ValueError):
    """An episode that was simulated again is not the one that was recorded."""


def simulate(
    environment: VectorEnvironment,
    record_of: Callable[[int], ActionRecord],
    order: Sequence[int],
    patience: float = 0.1,
) -> Iterator[tuple[int, Episode] | None]:
    """Play ``record_of(index)`` for each index of ``order``; yields (index, `Episode`) as they finish.

    E episodes run in lock step, one in each slot, so what comes out first is shuffled a little where lengths differ.
    Yields None after ``patience`` seconds in which nothing finished. Slots for which no episode is left repeat their
    last one, unrecorded, since a vector steps all its slots.

    Raises:
        ReplayMismatch: another length, or a return that differs by more than `RETURN_TOLERANCE`.
    """
    if not len(order):
        return
    todo = iter(order)
    slots = []
    for slot in range(environment.num_envs):
        index = next(todo, None)
        slots.append(_Playback(environment, slot, record_of(order[0] if index is None else index), index))
    running = sum(playback.index is not None for playback in slots)
    heard = time.monotonic()
    while running:
        step = environment.step(np.stack([playback.record.action[playback.step] for playback in slots]))
        for slot, playback in enumerate(slots):
            if not playback.take(step):
                continue
            if playback.index is not None:
                yield playback.index, playback.episode(step)
                heard = time.monotonic()
                running -= 1
            index = next(todo, None)
            running += index is not None
            if running:
                record = playback.record if index is None else record_of(index)
                slots[slot] = _Playback(environment, slot, record, index)
        if running and time.monotonic() - heard > patience:
            yield None
            heard = time.monotonic()


class _Playback:
    """One slot of the vector, playing one record; its arrays are made once, since the length is known."""

    def __init__(self, environment: VectorEnvironment, slot: int, record: ActionRecord, index: int | None) -> None:
        self.record = record
        self.index = index
        self.step = 0
        self._slot = slot
        task: TaskSpec = environment.task
        self._name = f"{task.name}, episode {index} with seed {record.seed}"
        length = len(record.action)
        if not length:
            raise ReplayMismatch(f"{self._name}: the record has no actions")
        first = environment.reset([slot], [record.seed])
        self._texts = {key: str(first[key][0]) for key, spec in task.observation.items() if spec.kind == "text"}
        rows = length + 1 if index is not None else 0
        self._observation = {
            key: np.empty((rows, *spec.shape), spec.dtype)
            for key, spec in task.observation.items()
            if spec.kind != "text"
        }
        self._reward = np.empty(length, np.float32)
        self._store(first, 0)

    def _store(self, observation: Observation, row: int) -> None:
        if self.index is not None:
            for key, array in self._observation.items():
                array[self.step] = observation[key][row]

    def take(self, step: VectorStep) -> bool:
        """Keep what one step of the vector gave this slot; True where its episode ended."""
        self._reward[self.step] = step.reward[self._slot]
        self.step += 1
        self._store(step.observation, self._slot)
        done = bool(step.terminated[self._slot] or step.truncated[self._slot])
        length = len(self.record.action)
        if self.record.cut and self.step == length:
            return True
        if done != (self.step == length):
            what = f"ended after {self.step} of {length} recorded steps" if done else f"goes on after {length} steps"
            raise ReplayMismatch(f"{self._name}: played again, it {what}")
        return done

    def episode(self, step: VectorStep) -> Episode:
        """What was kept, after the last step ``step``; checks the return."""
        record = self.record
        episode = Episode(
            observation=self._observation,
            texts=self._texts,
            action=record.action,
            label=record.label,
            label_mask=record.label_mask,
            reward=self._reward,
            terminated=bool(step.terminated[self._slot]),
            truncated=bool(step.truncated[self._slot]) or (record.cut and not step.terminated[self._slot]),
            seed=record.seed,
            success=None if step.success is None else bool(step.success[self._slot]),
            noisy=record.noisy,
        )
        recorded, now = record.episode_return, episode.episode_return
        if not abs(now - recorded) <= RETURN_TOLERANCE * max(1.0, abs(recorded)):
            raise ReplayMismatch(f"{self._name}: recorded with return {recorded:.6g}, played again it gives {now:.6g}")
        return episode
