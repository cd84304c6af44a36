"""What a policy reads before its own episode: the beginning of the best of the newest ones."""

import dataclasses

import numpy as np
import pytest

from actors.best_prompt import NEWEST, BestPrompt
from agent.context import Prompt
from tests.actors.countdown import TASK

PAIRED = dataclasses.replace(TASK, context_steps=4)


def played(best: BestPrompt, slot: int, value: int, episode_return: float, steps: int = 3) -> Prompt | None:
    best.begin(slot, {"mission": str(value)}, f"{value}.{episode_return}.{steps}")
    for step in range(steps):
        best.step(slot, {"left": np.array([10 * value + step])}, np.array(step % 2))
    return best.end(slot, episode_return)


def test_it_is_the_beginning_of_the_best_episode_and_told_only_when_it_changes() -> None:
    best = BestPrompt(PAIRED, 2)
    first = played(best, 0, 1, 0.5)
    assert first is not None and first.steps == 2 and first.texts == {"mission": "1"}
    assert first.observation["left"].tolist() == [[10], [11]] and first.action.tolist() == [0, 1]
    assert played(best, 1, 2, 0.4) is None
    better = played(best, 1, 3, 0.7, steps=1)
    assert better is not None and better.steps == 1 and better.observation["left"].tolist() == [[30]]
    for number in range(NEWEST - 1):
        assert played(best, 0, number, 0.1) is None
    again = played(best, 0, 9, 0.1)  # the best has grown old
    assert again is not None and again.texts == {"mission": "9"}


def test_slots_do_not_mix() -> None:
    best = BestPrompt(PAIRED, 2)
    best.begin(0, {}, "of 0")
    best.begin(1, {}, "of 1")
    for step in range(2):
        for slot in (0, 1):
            best.step(slot, {"left": np.array([100 * slot + step])}, np.array(slot))
    prompt = best.end(1, 1.0)
    assert prompt is not None and prompt.observation["left"].tolist() == [[100], [101]]
    assert prompt.action.tolist() == [1, 1] and best.episode_id == "of 1"


def test_a_context_of_one_step_has_no_room() -> None:
    with pytest.raises(ValueError, match="no room for a prompt"):
        BestPrompt(dataclasses.replace(TASK, context_steps=1), 2)
