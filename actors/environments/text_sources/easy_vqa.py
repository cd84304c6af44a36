"""easy-VQA (Zhou 2019): 64 x 64 pictures of one shape each, 48,000 questions, 13 answers; the extra ``easy-vqa``.

Held-out seeds draw from its test split, all others from its training split.
"""

from __future__ import annotations

import functools
import importlib.util

import numpy as np
from PIL import Image

from actors.environments.failures import LibraryMissing
from actors.environments.text_sources.source import Pair
from actors.seeds import held_out
from agent.task import ArraySpec

Split = tuple[list[str], list[str], list[int], dict[int, str]]


class EasyVQA:
    """See `TextSource`."""

    def __init__(self) -> None:
        if importlib.util.find_spec("easy_vqa") is None:
            raise LibraryMissing(
                "text/easy-vqa needs easy-vqa, which is not installed; install it with: "
                "pip install -c constraints.txt easy-vqa"
            )
        longest = max(len(question) for test in (False, True) for question in self._split(test)[0])
        self.observation = {
            "picture": ArraySpec("image", (64, 64, 3)),
            "question": ArraySpec("text", max_bytes=longest),
        }
        self.max_bytes = max(len(answer) for test in (False, True) for answer in self._split(test)[1])

    @functools.cache  # noqa: B019  (one source a process)
    def _split(self, test: bool) -> Split:
        import easy_vqa

        if test:
            return *easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()
        return *easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()

    def pair(self, seed: int) -> Pair:
        """See `TextSource`."""
        questions, answers, pictures, paths = self._split(held_out(seed))
        index = int(np.random.default_rng(seed).integers(len(questions)))
        picture = np.array(Image.open(paths[pictures[index]], formats=["PNG"]).convert("RGB"))
        return Pair({"picture": picture, "question": questions[index]}, answers[index])
