"""`Window`: consecutive timesteps of one episode, as raw values, in the form replay holds them.

Replay stores raw values; the agent's tokenizer reads them when they are learned from, so that the tokenizer can change
without voiding data.
"""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np

from agent.task import TaskSpec

SCHEMA_VERSION = 3


@dataclasses.dataclass(frozen=True)
class WindowMetadata:
    """What is true of a whole window. Stored as one JSON byte column.

    Attributes:
        task: task name.
        source: ``online`` or ``demonstrations``.
        episode_id: unique in the run: ``<actor_id>.<incarnation>.<episode_index>`` or ``<set>.<episode index>``.
        actor_id, incarnation, episode_index: who made it; the index counts episodes of that incarnation.
        environment_seed: seed of the episode's reset.
        start_step: absolute step in the episode of the window's first step.
        steps: steps L of the window; replay holds columns of one length for all windows, and zeros fill the rest.
        texts: value of each text observation (UTF-8), constant within an episode.
        expert: name of the expert, for demonstrations.
        has_reward: False where the source knows no rewards.
        success: the environment's own word on the episode, where known at emission.
        episode_return: undiscounted return of the whole episode, where known at emission.
        tail_steps: steps after the last step of the window that the reward column runs on.
        tail_terminated: True when the episode terminates within the tail: nothing comes after it.
        temperature, top_p, decoding, kappa: how the actor sampled.
        prompt_episode_id: episode whose beginning the actor had read before this one when the window went out; None: no
            prompt. A better one is read as soon as it is there, by episodes under way too.
        published_at: time (seconds since the epoch) at which the newest policy version used was published; 0 if none.
        schema_version: of this form.
    """

    task: str
    source: str
    episode_id: str
    actor_id: str = ""
    incarnation: int = 0
    episode_index: int = 0
    environment_seed: int = 0
    start_step: int = 0
    steps: int = 0
    texts: dict[str, str] = dataclasses.field(default_factory=dict)
    expert: str | None = None
    has_reward: bool = True
    success: bool | None = None
    episode_return: float | None = None
    tail_steps: int = 0
    tail_terminated: bool = False
    temperature: float = 1.0
    top_p: float = 1.0
    decoding: str = "sample"
    kappa: float = 0.0
    prompt_episode_id: str | None = None
    published_at: float = 0.0
    schema_version: int = SCHEMA_VERSION

    def encode(self) -> np.ndarray:
        """UTF-8 JSON as uint8 [n]."""
        return np.frombuffer(json.dumps(vars(self)).encode(), np.uint8)  # asdict copies deeply, ten times slower

    @classmethod
    def decode(cls, data: np.ndarray) -> WindowMetadata:
        """Inverse of `encode`; another schema version raises ValueError."""
        fields: dict[str, Any] = json.loads(data.tobytes())
        if fields.get("schema_version") != SCHEMA_VERSION:
            raise ValueError(
                f"window has schema version {fields.get('schema_version')}, this Clowder reads {SCHEMA_VERSION}; "
                "start the replay server anew"
            )
        return cls(**fields)


@dataclasses.dataclass(frozen=True)
class Window:
    """L consecutive timesteps of one episode (L at most the configured window length S).

    Attributes:
        observation: array observations by key, each [L + 1, *shape]: the last is what followed the last step, also at
            truncation. Text observations are not here but in ``metadata.texts``.
        action: action executed, [L, *action shape].
        label: action to imitate, same shape (differs under injected noise or an oracle).
        label_mask: bool [L], where the label may be learned from.
        reward: raw rewards, float32 [L + tail_steps]; it runs on past the window, see `WindowMetadata.tail_steps`.
        terminated, truncated, is_first: bool [L].
        policy_version: int64 [L], -1 for demonstrations.
        log_prob: float32 [L, action tokens], under the distribution really sampled from; NaN for demonstrations.
        return_asked: float32 [L, 3]: value, bin, mode (0 none, 1 target, 2 tilted); zeros where none was asked.
        metadata: see `WindowMetadata`.
    """

    observation: dict[str, np.ndarray]
    action: np.ndarray
    label: np.ndarray
    label_mask: np.ndarray
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray
    is_first: np.ndarray
    policy_version: np.ndarray
    log_prob: np.ndarray
    return_asked: np.ndarray
    metadata: WindowMetadata

    @property
    def length(self) -> int:
        """Number of steps L."""
        return len(self.terminated)


OBSERVATION_PREFIX = "observation/"


def window_signature(task: TaskSpec) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
    """Dtype and cell shape (one timestep) of every replay column of a task; ``metadata`` is a column of bytes."""
    action = (task.action.dtype, task.action.shape)
    columns: dict[str, tuple[np.dtype, tuple[int, ...]]] = {
        OBSERVATION_PREFIX + key: (spec.dtype, spec.shape)
        for key, spec in task.observation.items()
        if spec.kind != "text"
    }
    columns |= {
        "action": action,
        "label": action,
        "label_mask": (np.dtype(bool), ()),
        "reward": (np.dtype(np.float32), ()),
        "terminated": (np.dtype(bool), ()),
        "truncated": (np.dtype(bool), ()),
        "is_first": (np.dtype(bool), ()),
        "policy_version": (np.dtype(np.int64), ()),
        "log_prob": (np.dtype(np.float32), (task.action_tokens,)),
        "return_asked": (np.dtype(np.float32), (3,)),
        "metadata": (np.dtype(np.uint8), ()),
    }
    return columns


def column_length(name: str, steps: int, tail: int) -> int:
    """Rows that a column of `window_signature` has in a window of ``steps`` steps and ``tail`` more rewards."""
    return steps + (name.startswith(OBSERVATION_PREFIX)) + (tail if name == "reward" else 0)


def check_window(window: Window, task: TaskSpec) -> None:
    """Raise ValueError, naming the column and the step, where a window does not fit its task's signature."""
    where = f"{task.name}, episode {window.metadata.episode_id}"
    signature = window_signature(task)
    length = window.length
    for name, (dtype, shape) in signature.items():
        if name == "metadata":
            continue
        if name.startswith(OBSERVATION_PREFIX):
            array = window.observation.get(name.removeprefix(OBSERVATION_PREFIX))
        else:
            array = getattr(window, name)
        expected = column_length(name, length, window.metadata.tail_steps)
        if array is None:
            raise ValueError(f"{where}: column {name} is missing")
        if array.dtype != dtype or array.shape != (expected, *shape):
            raise ValueError(
                f"{where}: column {name} is {array.dtype} {array.shape}, the task says {dtype} {(expected, *shape)}"
            )
        finite_needed = dtype.kind == "f" and name not in ("log_prob", "return_asked")
        if finite_needed and not np.isfinite(array).all():
            step = int(np.argwhere(~np.isfinite(array.reshape(expected, -1)).all(axis=1))[0, 0])
            raise ValueError(f"{where}: column {name} is not finite at step {window.metadata.start_step + step}")
    if math.isnan(window.metadata.episode_return or 0.0):
        raise ValueError(f"{where}: episode_return is NaN")
