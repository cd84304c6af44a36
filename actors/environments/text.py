"""Text tasks: a picture and a question, a picture alone, or nothing is observed; the action is a text.

``text/babyai-questions`` and ``text/babyai-captions`` (pictures of BabyAI rooms), ``text/easy-vqa`` (the extra of that
name), and any other name with ``arguments.files``: passages of documents. An episode is one step, and its reward is 1
where exactly the right text was said (spaces and case aside), else 0: so the mean return is the answer accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from actors.environments.failures import EnvironmentFailed, UnknownTask
from actors.environments.text_sources.documents import Documents
from actors.environments.text_sources.source import Pair, TextSource
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec, TaskSpec, text_bytes, text_of

NAMED = ("babyai-captions", "babyai-questions", "easy-vqa")
"""Sources that a task name says; any other task of this domain is made of documents."""
RENDERED_PIXELS = 320


def make_source(task_name: str, arguments: dict[str, Any]) -> TextSource:
    """What a task draws from.

    Raises:
        UnknownTask: with the nearest names.
        ValueError: an argument that the source does not know, or cannot use.
    """
    name = task_name.removeprefix("text/")
    try:
        if name == "easy-vqa":
            from actors.environments.text_sources.easy_vqa import EasyVQA

            return EasyVQA(**arguments)
        if name in NAMED:
            from actors.environments.text_sources.babyai_pictures import BabyAICaptions, BabyAIQuestions

            return (BabyAICaptions if name == "babyai-captions" else BabyAIQuestions)(**arguments)
        if "files" not in arguments:
            raise UnknownTask(task_name, [f"text/{known}" for known in NAMED], what="task without arguments.files")
        return Documents(**arguments)
    except TypeError as error:
        raise ValueError(f"{task_name}: arguments: {error}") from None


def same(said: str, truth: str) -> bool:
    """Whether two texts are the same but for spaces at their ends and case."""
    return said.strip().casefold() == truth.strip().casefold()


class TextEnvironment:
    """E slots that draw from one source; see `VectorEnvironment`."""

    def __init__(self, task: TaskSpec, source: TextSource, num_envs: int) -> None:
        self.task = task
        self.num_envs = num_envs
        self._source = source
        self._pairs = [Pair({}, "")] * num_envs
        self._answers = [""] * num_envs

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin episodes; see `VectorEnvironment.reset`."""
        for slot, seed in zip(slots, seeds, strict=True):
            try:
                self._pairs[slot], self._answers[slot] = self._source.pair(int(seed)), ""
            except Exception as error:
                raise EnvironmentFailed(
                    f"{self.task.name}, slot {slot}: seed {seed} raised {type(error).__name__}: {error}"
                ) from error
        return self._observe(slots)

    def step(self, action: np.ndarray) -> VectorStep:
        """Say a text in all slots, ``action`` uint8 [E, max_bytes]; see `VectorEnvironment.step`."""
        self._answers = [text_of(data) for data in action]
        right = np.array([same(said, pair.said) for said, pair in zip(self._answers, self._pairs, strict=True)])
        ended = np.ones(self.num_envs, bool)
        return VectorStep(self._observe(range(self.num_envs)), right.astype(np.float32), ended, ~ended, success=right)

    def truth(self) -> list[str]:
        """What is right to say in each slot."""
        return [pair.said for pair in self._pairs]

    def render(self, slot: int) -> np.ndarray:
        """The picture, if any, above what was asked and said, uint8 [height, width, 3]."""
        observation, strip = self._pairs[slot].observation, 64
        picture = Image.new("RGB", (RENDERED_PIXELS, RENDERED_PIXELS + strip))
        if "picture" in observation:
            shown = Image.fromarray(observation["picture"]).resize(
                (RENDERED_PIXELS, RENDERED_PIXELS), Image.Resampling.NEAREST
            )
            picture.paste(shown)
        lines = [observation.get("question", ""), f"> {self._answers[slot]}", f"({self._pairs[slot].said})"]
        for row, line in enumerate(lines):
            ImageDraw.Draw(picture).text((4, RENDERED_PIXELS + 4 + 20 * row), line[:52], fill="white")
        return np.asarray(picture)

    def close(self) -> None:
        """Nothing is held."""

    def _observe(self, slots: Sequence[int]) -> Observation:
        rows = [self._pairs[slot].observation for slot in slots]
        return {
            key: [row[key] for row in rows] if spec.kind == "text" else np.stack([row[key] for row in rows])
            for key, spec in self.task.observation.items()
        }


def make(task_name: str, num_envs: int, **arguments: Any) -> TextEnvironment:
    """E slots of one task; ``arguments`` go to its source."""
    source = make_source(task_name, arguments)
    task = TaskSpec(
        name=task_name,
        observation=source.observation,
        action=ArraySpec("text", (source.max_bytes,), max_bytes=source.max_bytes),
        context_steps=1,
        max_episode_steps=1,
    )
    for seed in range(3):  # a source whose texts are too long is refused now
        text_bytes(source.pair(seed).said, source.max_bytes)
    return TextEnvironment(task, source, num_envs)
