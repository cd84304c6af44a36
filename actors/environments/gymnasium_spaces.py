"""Gymnasium spaces as `ArraySpec`s: what can be tokenised, and how values and actions are converted.

Observations: float boxes are continuous; uint8 boxes [height, width, 1 or 3] (or [height, width]) are images; integer
boxes, `Discrete`, `MultiDiscrete` and `MultiBinary` are discrete, counted from 0; strings are text; `Dict` and `Tuple`
become one array a leaf, keys joined by ".". Actions: `Discrete`, `MultiDiscrete` with equal sizes, `MultiBinary`,
bounded boxes. Everything else raises `SpaceNotSupported` with the reason and what to do.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

from actors.environments.failures import SpaceNotSupported
from agent.task import MAX_DISCRETE_VALUES, ArraySpec

MAX_ELEMENTS = 4096
"""Largest array that is not an image; each element may be a token."""
MIN_IMAGE_SIDE = 16
"""Side of Gato's patches; smaller uint8 arrays (grids of cells) are discrete values."""
CUSTOM_TEXT_BYTES = 256
"""Limit of a text whose space (a class of its own that samples strings) names none."""
PRACTICALLY_INFINITE = 1e30
"""Some environments write the largest float where they mean no bound."""


@dataclasses.dataclass(frozen=True)
class ObservationPart:
    """One array of the observation.

    Attributes:
        key: name in the task.
        path: keys and indices that lead to it in the environment's own observation.
        spec: its form.
        convert: from the environment's own value to an array in the dtype and shape of ``spec``, or a string; raises
            ValueError or TypeError where the value has another form.
    """

    key: str
    path: tuple[Any, ...]
    spec: ArraySpec
    convert: Callable[[Any], np.ndarray | str]

    def read(self, observation: Any) -> np.ndarray | str:
        """The value of this part; KeyError or IndexError where it is missing."""
        for step in self.path:
            observation = observation[step]
        return self.convert(observation)


@dataclasses.dataclass(frozen=True)
class ActionForm:
    """The action: its form, and the conversion of one action (array of ``spec.shape``) to the environment's own."""

    spec: ArraySpec
    convert: Callable[[np.ndarray], Any]


def observation_parts(space: spaces.Space, task_name: str) -> list[ObservationPart]:
    """Every array of an observation space; raises SpaceNotSupported naming task and key."""
    parts = []
    for path, leaf in _leaves(space, ()):
        key = ".".join(str(step) for step in path) or "observation"
        if "/" in key:
            raise SpaceNotSupported(f"{task_name}: the observation key {key!r} has a '/' in it; rename it in a wrapper")
        try:
            spec, convert = _observation_leaf(leaf)
        except SpaceNotSupported as error:
            raise SpaceNotSupported(f"{task_name}: observation {key!r} ({leaf}) cannot be tokenised: {error}") from None
        parts.append(ObservationPart(key, path, spec, convert))
    keys = [part.key for part in parts]
    if not keys or len(set(keys)) < len(keys):
        problem = "it is empty" if not keys else f"two parts have the same name among {sorted(keys)}; rename one"
        raise SpaceNotSupported(f"{task_name}: the observation ({space}) cannot be tokenised: {problem}")
    return parts


def action_form(space: spaces.Space, task_name: str) -> ActionForm:
    """The action of an action space; raises SpaceNotSupported naming the task."""
    try:
        return _action(space)
    except SpaceNotSupported as error:
        raise SpaceNotSupported(f"{task_name}: the action ({space}) cannot be tokenised: {error}") from None


def _leaves(space: spaces.Space, path: tuple[Any, ...]) -> Iterator[tuple[tuple[Any, ...], spaces.Space]]:
    if isinstance(space, spaces.Dict | spaces.Tuple):
        members = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for step, member in members:
            yield from _leaves(member, (*path, step))
    else:
        yield path, space


def _observation_leaf(space: spaces.Space) -> tuple[ArraySpec, Callable[[Any], np.ndarray | str]]:
    if isinstance(space, spaces.Box):
        return _box(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        return _counted(*_counts(space))
    if isinstance(space, spaces.Text):
        widest = max((len(character.encode()) for character in space.characters), default=1)
        return ArraySpec("text", max_bytes=max(1, space.max_length * widest)), _text
    if type(space).__module__.partition(".")[0] != "gymnasium" and isinstance(space.sample(), str):
        return ArraySpec("text", max_bytes=CUSTOM_TEXT_BYTES), _text
    raise SpaceNotSupported(
        f"a {type(space).__name__} has no fixed form; offer a Box, Discrete, MultiDiscrete, MultiBinary, Text, or a "
        "Dict or Tuple of these in a wrapper"
    )


def _box(space: spaces.Box) -> tuple[ArraySpec, Callable[[Any], np.ndarray]]:
    shape, kind = space.shape, space.dtype.kind
    if space.dtype == np.uint8 and len(shape) in (2, 3) and min(shape[:2]) >= MIN_IMAGE_SIDE:
        if len(shape) == 3 and shape[2] not in (1, 3):
            raise SpaceNotSupported(
                "an image has 1 or 3 channels, last; move the channels in a wrapper, and stack no frames (the agent "
                "sees earlier ones in its context)"
            )
        full = (*shape[:2], 1) if len(shape) == 2 else shape
        return ArraySpec("image", full), lambda value: _array(value, shape, "iu", np.uint8).reshape(full)
    if math.prod(shape) == 0:
        raise SpaceNotSupported("it has no elements; leave it out in a wrapper")
    if math.prod(shape) > MAX_ELEMENTS:
        raise SpaceNotSupported(
            f"it has {math.prod(shape)} elements, each of which is a token; at most {MAX_ELEMENTS} (images: uint8, "
            "height x width x 1 or 3)"
        )
    if kind != "f":
        return _counted(*_counts(space))
    full = shape or (1,)
    low, high = float(space.low.min()), float(space.high.max())
    spec = ArraySpec(
        "continuous",
        full,
        low=low if abs(low) < PRACTICALLY_INFINITE else -math.inf,
        high=high if abs(high) < PRACTICALLY_INFINITE else math.inf,
    )
    return spec, lambda value: _array(value, shape, "fiu", np.float32).reshape(full)


def _counts(space: spaces.Space) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """Shape, smallest value and number of values of each element of a space of integers."""
    if isinstance(space, spaces.Discrete):
        return (), np.array(int(space.start)), np.array(int(space.n))
    if isinstance(space, spaces.MultiDiscrete):
        return space.shape, space.start.astype(np.int64), space.nvec.astype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return space.shape, np.zeros(space.shape, np.int64), np.full(space.shape, 2)
    assert isinstance(space, spaces.Box)
    # In Python's integers: the span of an int64 box overflows int64.
    low = [int(n) for n in space.low.reshape(-1)]
    spans = [int(high) - start + 1 for start, high in zip(low, space.high.reshape(-1))]
    if max(spans) > MAX_DISCRETE_VALUES:
        raise SpaceNotSupported(
            f"its integers span {max(spans)} values, at most {MAX_DISCRETE_VALUES} have tokens; give narrower bounds, "
            "or floats, in a wrapper"
        )
    return space.shape, np.array(low, np.int64).reshape(space.shape), np.array(spans, np.int64).reshape(space.shape)


def _counted(
    shape: tuple[int, ...], start: np.ndarray, counts: np.ndarray
) -> tuple[ArraySpec, Callable[[Any], np.ndarray]]:
    """Discrete array whose elements are counted from ``start``."""
    if math.prod(shape) == 0 or math.prod(shape) > MAX_ELEMENTS:
        raise SpaceNotSupported(f"it has {math.prod(shape)} elements; 1 to {MAX_ELEMENTS} are possible")
    if counts.max() > MAX_DISCRETE_VALUES:
        raise SpaceNotSupported(f"it has {counts.max()} values, at most {MAX_DISCRETE_VALUES} have tokens")

    def convert(value: Any) -> np.ndarray:
        return np.asarray(_array(value, shape, "iub", np.int64) - start, np.int32)

    return ArraySpec("discrete", shape, num_values=int(counts.max())), convert


def _array(value: Any, shape: tuple[int, ...], kinds: str, dtype: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != shape:
        raise ValueError(f"has shape {array.shape}, its space says {shape}")
    if array.dtype.kind not in kinds:
        raise TypeError(f"has dtype {array.dtype}")
    return array.astype(dtype)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"is {type(value).__name__}, not a string")
    return value


def _action(space: spaces.Space) -> ActionForm:
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        return _continuous_action(space)
    if isinstance(space, spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary | spaces.Box):
        shape, start, counts = _counts(space)
        size = math.prod(shape)
        if size == 0:
            raise SpaceNotSupported("it has no elements; an agent needs something to choose")
        if counts.min() != counts.max():
            raise SpaceNotSupported(
                "its elements have different numbers of values, and the agent could choose one that does not exist; "
                "offer one Discrete of the combinations, or equal sizes, in a wrapper"
            )
        if counts.max() > MAX_DISCRETE_VALUES:
            raise SpaceNotSupported(f"it has {counts.max()} values, at most {MAX_DISCRETE_VALUES} have tokens")
        spec = ArraySpec("discrete", () if shape == () else (size,), num_values=int(counts.max()))
        dtype = space.dtype
        if isinstance(space, spaces.Discrete):
            return ActionForm(spec, lambda action: dtype.type(int(action) + int(start)))
        return ActionForm(spec, lambda action: (action.astype(np.int64).reshape(shape) + start).astype(dtype))
    raise SpaceNotSupported(
        f"a {type(space).__name__} is not one choice of fixed form; offer a Discrete, MultiDiscrete, MultiBinary or "
        "bounded Box in a wrapper"
    )


def _continuous_action(space: spaces.Box) -> ActionForm:
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if max(np.abs(low).max(initial=0), np.abs(high).max(initial=0)) >= PRACTICALLY_INFINITE:
        raise SpaceNotSupported("it is not bounded; give bounds in a wrapper (gymnasium.wrappers.RescaleAction)")
    if low.size == 0:
        raise SpaceNotSupported("it has no elements; an agent needs something to choose")
    shape, dtype = space.shape, space.dtype

    def convert(action: np.ndarray) -> np.ndarray:
        share = (np.clip(action.astype(np.float64), -1.0, 1.0).reshape(shape) + 1.0) / 2.0
        return (low + share * (high - low)).astype(dtype)

    return ActionForm(ArraySpec("continuous", (low.size,), low=-1.0, high=1.0), convert)
