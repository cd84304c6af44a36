"""Questions and captions whose truth is known: pictures of BabyAI rooms, and what stands in them.

A picture shows a whole room from above, 16 pixels a cell, 80 x 80 for the default level, whose rooms hold two things.
Nothing here is a stock: a seed makes a room.
"""

from __future__ import annotations

import numpy as np
from minigrid.core.constants import COLOR_NAMES

from actors.environments.babyai import make_level
from actors.environments.text_sources.source import Pair
from agent.task import ArraySpec

PIXELS_PER_CELL = 16
KINDS = ("key", "ball", "box")
PLURAL = {"key": "keys", "ball": "balls", "box": "boxes"}
QUESTION_STREAM = 0x9E
"""Separates the choice of a question from other generators made of the same seed."""


class _Rooms:
    """Rooms of one level of BabyAI, by seed."""

    def __init__(self, level: str = "GoToLocalS5N2") -> None:
        self._level = make_level(f"babyai/{level}", {})
        self._level.reset(seed=0)
        side = (self._level.height * PIXELS_PER_CELL, self._level.width * PIXELS_PER_CELL, 3)
        self.observation = {"picture": ArraySpec("image", side)}
        most = len(self._things()) + 2
        self.max_bytes = most * len("purple ball, ")

    def _room(self, seed: int) -> tuple[np.ndarray, list[tuple[str, str]]]:
        """Picture and (colour, kind) of all things, in alphabetical order."""
        self._level.reset(seed=seed)
        return self._level.get_frame(highlight=False, tile_size=PIXELS_PER_CELL), self._things()

    def _things(self) -> list[tuple[str, str]]:
        cells = self._level.grid.grid
        return sorted((cell.color, cell.type) for cell in cells if cell is not None and cell.type in KINDS)


class BabyAICaptions(_Rooms):
    """A picture, and all its things in alphabetical order: "blue key, green box, red ball"."""

    def pair(self, seed: int) -> Pair:
        """See `TextSource`."""
        picture, things = self._room(seed)
        return Pair({"picture": picture}, ", ".join(f"{colour} {kind}" for colour, kind in things))


class BabyAIQuestions(_Rooms):
    """A picture, a question and its answer.

    Four forms: the colour of the only thing of a kind, the kind of the only thing of a colour, the
    number of things of a kind, and whether there is a thing (as often yes as no). The last stands in where nothing is
    the only one of its kind or colour, so it is the most frequent.
    """

    LONGEST_QUESTION = 64

    def __init__(self, level: str = "GoToLocalS5N2") -> None:
        super().__init__(level)
        self.observation["question"] = ArraySpec("text", max_bytes=self.LONGEST_QUESTION)
        self.max_bytes = max(len(word) for word in (*COLOR_NAMES, *KINDS))

    def pair(self, seed: int) -> Pair:
        """See `TextSource`."""
        picture, things = self._room(seed)
        question, answer = self._ask(things, np.random.default_rng([seed, QUESTION_STREAM]))
        return Pair({"picture": picture, "question": question}, answer)

    def _ask(self, things: list[tuple[str, str]], random: np.random.Generator) -> tuple[str, str]:
        colours, kinds = [colour for colour, _ in things], [kind for _, kind in things]
        lone_kinds = [thing for thing in things if kinds.count(thing[1]) == 1]
        lone_colours = [thing for thing in things if colours.count(thing[0]) == 1]
        form = random.integers(4)
        if form == 0 and lone_kinds:
            colour, kind = lone_kinds[random.integers(len(lone_kinds))]
            return f"what color is the {kind}?", colour
        if form == 1 and lone_colours:
            colour, kind = lone_colours[random.integers(len(lone_colours))]
            return f"what is the {colour} thing?", kind
        if form == 2:
            kind = str(random.choice(KINDS))
            return f"how many {PLURAL[kind]} are there?", str(kinds.count(kind))
        if random.random() < 0.5:
            colour, kind = things[random.integers(len(things))]
            return f"is there a {colour} {kind}?", "yes"
        absent = [(colour, kind) for colour in COLOR_NAMES for kind in KINDS if (colour, kind) not in things]
        colour, kind = absent[random.integers(len(absent))]
        return f"is there a {colour} {kind}?", "no"
