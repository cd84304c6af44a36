"""What experts do wrong: each is an answer that names task, expert and seed, and the other episodes stay."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from actors.demonstrations.episode import ActionRecord
from actors.demonstrations.episode_maker import TimeLimitReached, time_limit
from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import record
from actors.demonstrations.recording import RecordingFailed
from tests.actors.demonstrations.sets import CARTPOLE, played


class Faulty:
    """Random play, except for what `wrong` makes of the seeds 1 and 3."""

    name, sees = "faulty", "observations"

    def __init__(self, wrong: Callable[[ActionRecord], object], seeds: tuple[int, ...] = (1, 3)) -> None:
        self.wrong, self.seeds = wrong, seeds

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        made = dataclasses.replace(played(CARTPOLE, seed), noisy=noise > 0)
        return self.wrong(made) if seed in self.seeds else made


def raises(_: ActionRecord) -> None:
    raise KeyError("no such joint")


def loops(_: ActionRecord) -> None:
    while True:
        try:
            for _ in itertools.count():
                time.sleep(0.01)
        except Exception:  # experts catch what their libraries raise; the deadline is no Exception
            pass


WRONG = {
    "raises": (raises, "KeyError: 'no such joint'"),
    "loops for ever": (loops, "no episode within the deadline of 0.5 s"),
    "returns nothing": (lambda record: None, "AttributeError"),
    "another seed": (lambda record: dataclasses.replace(record, seed=record.seed + 50), "an episode of seed 5"),
    "an action out of range": (lambda record: dataclasses.replace(record, action=record.action + 7), "outside"),
    "no number": (lambda record: dataclasses.replace(record, episode_return=np.nan), "return is nan"),
    "another return": (lambda record: dataclasses.replace(record, episode_return=1e6), "played again it gives"),
    "too few steps": (
        lambda r: dataclasses.replace(r, action=r.action[:3], label=r.label[:3], label_mask=r.label_mask[:3]),
        "goes on after 3 steps",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_an_expert_does_wrong_is_said_and_left_out(case: str, tmp_path: Path) -> None:
    wrong, what = WRONG[case]
    said: list[str] = []
    report = record(
        CARTPOLE, Faulty(wrong), 4, tmp_path, form="actions", random_seconds=0, episode_deadline=0.5, said=said.append
    )
    opened = open_set(tmp_path, CARTPOLE)
    assert opened.seeds.tolist() == [0, 2, 4, 5] and report.failed == opened.settings.failed_episodes == 2
    assert len(said) == 2
    for seed, line in zip((1, 3), said, strict=True):
        assert f"gymnasium/CartPole-v1, expert faulty, seed {seed}: " in line and what in line


def test_an_expert_that_is_only_wrong_ends_the_recording_and_the_set_stays(tmp_path: Path) -> None:
    expert = Faulty(raises, seeds=tuple(range(2, 99)))
    with pytest.raises(RecordingFailed, match=r"3 times in a row.*seed 4: KeyError.*keeps the 2 episodes"):
        record(CARTPOLE, expert, 9, tmp_path, random_seconds=0)
    opened = open_set(tmp_path, CARTPOLE)
    assert opened.seeds.tolist() == [0, 1] and opened.settings.failed_episodes == 0  # they are tried again
    expert.seeds = ()
    assert record(CARTPOLE, expert, 4, tmp_path, random_seconds=0).failed == 0
    assert open_set(tmp_path, CARTPOLE).seeds.tolist() == [0, 1, 2, 3]


def test_a_set_begins_with_an_episode_without_noise(tmp_path: Path) -> None:
    expert = Faulty(raises, seeds=(0,))
    record(CARTPOLE, expert, 2, tmp_path, form="actions", random_seconds=0, noise_levels=[0.1])
    opened = open_set(tmp_path, CARTPOLE)
    assert opened.seeds.tolist() == [2, 3] and opened.noisy.tolist() == [False, True]


def test_a_time_limit_that_is_kept_leaves_nothing_behind() -> None:
    with time_limit(0.2):
        pass
    time.sleep(0.3)
    with pytest.raises(TimeLimitReached), time_limit(0.05):
        time.sleep(5)
