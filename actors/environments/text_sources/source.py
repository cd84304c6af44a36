"""The interface of what the text tasks are made of, and `Pair`, one of its items."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from agent.task import ArraySpec


@dataclasses.dataclass(frozen=True)
class Pair:
    """What is observed, by key (a picture, a question), and the text that is the right thing to say."""

    observation: dict[str, Any]
    said: str


class TextSource(Protocol):
    """A stock of pairs, drawn by seed; the seeds of evaluation (`actors.seeds.held_out`) never draw what others do.

    Attributes:
        observation: specs of what is observed.
        max_bytes: longest text that is said, UTF-8.
    """

    observation: dict[str, ArraySpec]
    max_bytes: int

    def pair(self, seed: int) -> Pair:
        """The pair of a seed, always the same."""
        ...
