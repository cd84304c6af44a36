"""Documents: passages of text files, nothing observed. What is learned is to go on with a text (Reed et al. 2022, 2.2:
random windows of documents)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from actors.environments.text_sources.source import Pair
from actors.seeds import held_out
from agent.task import ArraySpec

HELD_OUT_SHARE = 0.1
"""Of each document, at its end."""


def shipped_texts() -> dict[str, Path]:
    """Files of the texts that come with Clowder, by name."""
    found = importlib.util.find_spec("configs")
    roots = [Path(place) / "texts" for place in (found.submodule_search_locations or ())] if found else []
    return {path.stem: path for root in roots for path in sorted(root.glob("*.txt"))}


class Documents:
    """Passages of whole words that begin anywhere; see `TextSource`.

    Args:
        files: paths of UTF-8 files, or names of shipped texts.
        passage_bytes: longest passage.

    Raises:
        ValueError: a file is missing, no UTF-8, or too short.
    """

    def __init__(self, files: Sequence[str], passage_bytes: int = 256) -> None:
        if isinstance(files, str) or not files:
            raise ValueError("arguments.files must be a list of text files, or of names of shipped texts")
        if not 16 <= passage_bytes <= 65536:
            raise ValueError(f"arguments.passage_bytes must be between 16 and 65536, not {passage_bytes}")
        self.observation: dict[str, ArraySpec] = {}
        self.max_bytes = passage_bytes
        self._learned: list[list[str]] = []
        self._kept: list[list[str]] = []
        for name in files:
            words = self._words(str(name))
            cut = int(len(words) * (1 - HELD_OUT_SHARE))
            for stock, part in ((self._learned, words[:cut]), (self._kept, words[cut:])):
                if sum(len(word) + 1 for word in part) < passage_bytes:
                    raise ValueError(
                        f"{name} is too short: a passage of {passage_bytes} bytes does not fit the "
                        f"{100 * HELD_OUT_SHARE:.0f}% of it that are held out; lower arguments.passage_bytes"
                    )
                stock.append(part)

    def pair(self, seed: int) -> Pair:
        """See `TextSource`. Documents are drawn by their length."""
        stock = self._kept if held_out(seed) else self._learned
        random = np.random.default_rng(seed)
        lengths = np.array([len(words) for words in stock])
        words = stock[random.choice(len(stock), p=lengths / lengths.sum())]
        # The last words of a document begin no passage, so that all are about equally long.
        start = int(random.integers(max(1, len(words) - self.max_bytes // 8)))
        chosen: list[str] = []
        size = -1
        for word in words[start:]:
            size += 1 + len(word.encode())
            if size > self.max_bytes:
                break
            chosen.append(word)
        return Pair({}, " ".join(chosen))

    def _words(self, name: str) -> list[str]:
        path = shipped_texts().get(name, Path(name).expanduser())
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ValueError(
                f"arguments.files: {name} cannot be read ({error.strerror}); shipped texts: "
                f"{', '.join(shipped_texts()) or 'none'}"
            ) from None
        except UnicodeDecodeError as error:
            raise ValueError(f"arguments.files: {name} is not UTF-8 ({error.reason} at byte {error.start})") from None
        words = text.replace("\0", " ").split()
        longest = max((len(word.encode()) for word in words), default=0)
        if longest > self.max_bytes:
            raise ValueError(f"arguments.files: {name} has a word of {longest} bytes; raise arguments.passage_bytes")
        return words
