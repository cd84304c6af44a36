"""`episode_columns`: a whole episode as the columns that windows are cut from, checked against its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from agent.task import TaskSpec
from replay.step_buffer import checked
from replay.window import OBSERVATION_PREFIX, window_signature


def episode_columns(
    task: TaskSpec,
    observation: Mapping[str, np.ndarray],
    values: Mapping[str, Any],
    terminated: bool,
    truncated: bool,
) -> dict[str, np.ndarray]:
    """All columns of T steps but ``metadata``: [T, *shape], observations [T + 1, *shape].

    Args:
        task: whose episode it is.
        observation: by key, texts ignored.
        values: action, label and reward, and where they are not None label_mask, policy_version and log_prob.
        terminated, truncated: of the last step.

    Raises:
        ValueError: naming the column that is missing or has another dtype or shape than the task says.
    """
    steps = len(values["reward"])
    if steps < 1:
        raise ValueError(f"{task.name}: an episode has at least one step")
    step = np.arange(steps)
    columns: dict[str, Any] = {
        "label_mask": np.ones(steps, bool),
        "terminated": (step == steps - 1) & terminated,
        "truncated": (step == steps - 1) & truncated,
        "is_first": step == 0,
        "policy_version": np.full(steps, -1, np.int64),
        "log_prob": np.full((steps, task.action_tokens), np.nan, np.float32),
        "return_asked": np.zeros((steps, 3), np.float32),
    }
    columns.update({name: value for name, value in values.items() if value is not None})
    for name, (dtype, shape) in window_signature(task).items():
        if name.startswith(OBSERVATION_PREFIX):
            value = observation.get(name.removeprefix(OBSERVATION_PREFIX))
            columns[name] = checked(task, name, value, dtype, (steps + 1, *shape))
        elif name != "metadata":
            columns[name] = checked(task, name, columns.get(name), dtype, (steps, *shape))
    return columns
