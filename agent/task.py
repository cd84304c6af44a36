"""`TaskSpec`: the only description of a task that the agent, the replay and the learner ever see.

Adapters (``actors/environments``) convert Gymnasium spaces and dm_env specs into it; it is JSON-able, so that it
travels in checkpoints, demonstration sets and Ray messages as plain data.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
from typing import Any, Literal

import numpy as np

Kind = Literal["continuous", "discrete", "image", "text"]

_DTYPES: dict[str, str] = {"continuous": "float32", "discrete": "int32", "image": "uint8", "text": "uint8"}
MAX_DISCRETE_VALUES = 1024
"""Gato reserves 1,024 ids for discrete values (Reed et al. 2022, section 2.1)."""
LEARNER_SETTINGS = (
    "discount",
    "value_temperature",
    "imitation_share",
    "imitation_weighting",
    "critic_gradient",
    "entropy_floor",
    "prior_weight",
    "calibration",
)
"""Settings of `learner.config.LearnerConfig`, each in [0, 1], that a task may have of its own."""


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """One array of an observation or an action, for one environment and one timestep.

    Attributes:
        kind: ``continuous`` (float32), ``discrete`` (int32 in ``[0, num_values)``), ``image`` (uint8, height x width x
            channels) or ``text`` (UTF-8, at most ``max_bytes``; in an observation a string that is constant within an
            episode, as an action bytes with zeros behind them, see `text_bytes`).
        shape: shape of one value, without batch or time. ``()`` for a scalar and for text that is observed,
            ``(max_bytes,)`` for text that is an action.
        low, high: bounds of a continuous array (the widest over its elements); infinite where unbounded. A continuous
            *action* must be bounded: the adapter rescales every element to [-1, 1].
        num_values: number of values of a discrete array.
        max_bytes: longest text in bytes.
    """

    kind: Kind
    shape: tuple[int, ...] = ()
    low: float = -math.inf
    high: float = math.inf
    num_values: int = 0
    max_bytes: int = 0

    def __post_init__(self) -> None:
        if any(not isinstance(n, numbers.Integral) or n < 0 for n in self.shape):
            raise ValueError(f"an array has sizes of at least 0, whole numbers, not {self.shape}")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        _need(numbers.Real, "an array", low=self.low, high=self.high)
        _need(numbers.Integral, "an array", num_values=self.num_values, max_bytes=self.max_bytes)
        if not isinstance(self.kind, str) or self.kind not in _DTYPES:
            raise ValueError(f"array kind must be one of {sorted(_DTYPES)}, not {self.kind!r}")
        if self.kind == "discrete" and not 1 <= self.num_values <= MAX_DISCRETE_VALUES:
            raise ValueError(f"a discrete array needs 1 to {MAX_DISCRETE_VALUES} values, not {self.num_values}")
        if self.kind == "image" and len(self.shape) != 3:
            raise ValueError(f"an image needs shape (height, width, channels), not {self.shape}")
        if self.kind == "text" and (self.max_bytes < 1 or self.shape not in ((), (self.max_bytes,))):
            raise ValueError("a text has max_bytes of at least 1, and shape () or, as an action, (max_bytes,)")

    @property
    def dtype(self) -> np.dtype:
        """NumPy dtype in which replay and adapters hold this array."""
        return np.dtype(_DTYPES[self.kind])

    @property
    def size(self) -> int:
        """Number of elements of one value (1 for a scalar)."""
        return math.prod(self.shape)

    def to_json(self) -> dict[str, Any]:
        """Plain-data form; infinities become ``None``."""
        data = dataclasses.asdict(self)
        data["shape"] = list(self.shape)
        data["low"] = None if math.isinf(self.low) else self.low
        data["high"] = None if math.isinf(self.high) else self.high
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> ArraySpec:
        """Inverse of `to_json`; unknown keys raise TypeError, what is no such object at all ValueError."""
        if not isinstance(data, dict):
            raise ValueError(f"an array is described by an object, not by {data!r}")
        data = dict(data)
        low, high = data.pop("low", None), data.pop("high", None)
        return cls(**data, low=-math.inf if low is None else low, high=math.inf if high is None else high)


@dataclasses.dataclass(frozen=True)
class TaskSpec:
    """A task as the agent sees it.

    Attributes:
        name: ``domain/name``, stable for ever: ``dm_control/cartpole-swingup``, ``atari/boxing``, ``babyai/GoToLocal``.
        observation: arrays of one observation; always read in the lexicographic order of keys (Reed et al. 2022, 2.1).
        action: discrete (shape ``()`` or ``(n,)``), continuous in [-1, 1] (shape ``(n,)``), or text (an answer, a
            caption, a passage): then an episode is one step, and there may be nothing to observe.
        instruction: fixed text of the task, if any.
        random_return, reference_return: fixed returns that `normalised` maps to 0 and 1; NaN where unknown.
        return_horizon: steps after a window's last step that its reward column runs on (0: none).
        ends_counted: whether a termination in these steps counts for a critic, as nothing that came after it; otherwise
            its own word on a crop's last state stands there.
        return_range: lowest and highest return to come that a return token tells apart; None where there is none. Fixed
            for ever, like the returns above: bins of checkpoints and of data must mean the same.
        value_range: lowest and highest discounted return to come, between which action values are learned; None where
            they are not. Fixed for ever too.
        discount, value_temperature, imitation_share, imitation_weighting, critic_gradient, entropy_floor,
            prior_weight, calibration: `LEARNER_SETTINGS`; None where the task has none of its own.
        context_steps: timesteps the agent reads, in training and at acting alike.
        action_repeat: simulator frames for each step.
        max_episode_steps: longest episode in steps; 0 where unbounded.
    """

    name: str
    observation: dict[str, ArraySpec]
    action: ArraySpec
    instruction: str | None = None
    random_return: float = math.nan
    reference_return: float = math.nan
    return_horizon: int = 0
    ends_counted: bool = True
    return_range: tuple[float, float] | None = None
    value_range: tuple[float, float] | None = None
    discount: float | None = None
    value_temperature: float | None = None
    imitation_share: float | None = None
    imitation_weighting: float | None = None
    critic_gradient: float | None = None
    entropy_floor: float | None = None
    prior_weight: float | None = None
    calibration: float | None = None
    context_steps: int = 8
    action_repeat: int = 1
    max_episode_steps: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or self.name.count("/") != 1 or not all(self.name.split("/")):
            raise ValueError(f"a task name has the form domain/name, not {self.name!r}")
        _need(numbers.Real, self.name, random_return=self.random_return, reference_return=self.reference_return)
        for field in ("return_horizon", "context_steps", "action_repeat", "max_episode_steps"):
            _need(numbers.Integral, self.name, **{field: getattr(self, field)})
        if not isinstance(self.instruction, str | None):
            raise ValueError(f"{self.name}: the instruction is a text, not {self.instruction!r}")
        if not self.observation and not self.says_text:
            raise ValueError(f"{self.name}: the observation has no arrays")
        for key, spec in self.observation.items():
            if spec.kind == "text" and spec.shape:
                raise ValueError(f"{self.name}: {key!r} is a text that is observed, which has shape ()")
        if self.instruction == "":
            raise ValueError(f"{self.name}: the instruction is empty; leave it out")
        if self.action.kind == "image" or (self.says_text and not self.action.shape):
            raise ValueError(
                f"{self.name}: an action is discrete, continuous or text of shape (max_bytes,), not {self.action.kind} "
                f"of shape {self.action.shape}"
            )
        if self.says_text and (self.context_steps, self.max_episode_steps) != (1, 1):
            raise ValueError(f"{self.name}: where the action is text, context_steps and max_episode_steps are 1")
        if self.action.kind == "continuous" and (self.action.low, self.action.high) != (-1.0, 1.0):
            raise ValueError(f"{self.name}: continuous actions are given in [-1, 1]; the adapter rescales them")
        if self.context_steps < 1 or self.return_horizon < 0:
            raise ValueError(f"{self.name}: context_steps must be at least 1 and return_horizon at least 0")
        for name in LEARNER_SETTINGS:
            if (own := getattr(self, name)) is not None and not 0 <= own <= 1:
                raise ValueError(f"{self.name}: {name} must be between 0 and 1, not {own}")
        for name in ("return_range", "value_range"):
            if (given := getattr(self, name)) is not None:
                low, high = map(float, given)  # a list, where it comes from a configuration
                if not (math.isfinite(low) and math.isfinite(high) and low < high):
                    raise ValueError(f"{self.name}: {name} must be two finite numbers, low and high, not {low}, {high}")
                object.__setattr__(self, name, (low, high))
        object.__setattr__(self, "observation", dict(sorted(self.observation.items())))

    @property
    def domain(self) -> str:
        """Part of the name before the slash."""
        return self.name.split("/")[0]

    @property
    def says_text(self) -> bool:
        """Whether the action is text."""
        return self.action.kind == "text"

    @property
    def action_tokens(self) -> int:
        """Tokens of one action: one for each element; of a text the most it may have, one for each byte."""
        return max(1, self.action.size)

    def normalised(self, episode_return: float) -> float:
        """(return - random) / (reference - random); NaN where a reference is missing."""
        span = self.reference_return - self.random_return
        return (episode_return - self.random_return) / span if span else math.nan

    def to_json(self) -> dict[str, Any]:
        """Plain-data form; NaN becomes ``None``."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["observation"] = {key: spec.to_json() for key, spec in self.observation.items()}
        data["action"] = self.action.to_json()
        for key in ("random_return", "reference_return"):
            data[key] = None if math.isnan(data[key]) else data[key]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TaskSpec:
        """Inverse of `to_json`; unknown keys raise TypeError, what is no such object at all ValueError."""
        if not isinstance(data, dict) or not all(isinstance(data.get(key), dict) for key in ("observation", "action")):
            raise ValueError("a task is an object with an observation and an action, which are objects too")
        data = dict(data)
        data["observation"] = {key: ArraySpec.from_json(spec) for key, spec in data["observation"].items()}
        data["action"] = ArraySpec.from_json(data["action"])
        for key in ("random_return", "reference_return"):
            data[key] = math.nan if data.get(key) is None else data[key]
        return cls(**data)

    def dumps(self) -> str:
        """One line of JSON."""
        return json.dumps(self.to_json(), sort_keys=True)


def _need(kind: type, where: str, **values: object) -> None:
    """Raise ValueError, naming the field, where a value is not of a kind of numbers: it may come from a file."""
    for name, value in values.items():
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{where}: {name} must be a number ({kind.__name__.lower()}), not {value!r}")


def text_bytes(text: str, max_bytes: int) -> np.ndarray:
    """A text as an action: its UTF-8 bytes with zeros behind them, uint8 [max_bytes].

    Raises:
        ValueError: it is empty, longer than that, or holds a zero itself.
    """
    data = text.encode()
    if not data or len(data) > max_bytes or 0 in data:
        raise ValueError(f"a text of 1 to {max_bytes} bytes without zeros is needed, not {len(data)} ({text[:40]!r})")
    return np.frombuffer(data.ljust(max_bytes, b"\0"), np.uint8)


def text_of(data: np.ndarray) -> str:
    """Inverse of `text_bytes`; what is not UTF-8 becomes U+FFFD."""
    return data.tobytes().rstrip(b"\0").decode(errors="replace")
