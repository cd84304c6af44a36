"""Windows to tensors: random crops of the task's context, and image shifts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from agent.inputs import TaskInputs, action_elements, encode_texts
from agent.task import TaskSpec
from agent.tokenizer import TextTokenizer
from replay.window import Window


@dataclasses.dataclass(frozen=True)
class Crop:
    """Steps ``start`` to ``stop`` of a window."""

    window: Window
    start: int
    stop: int

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.stop - self.start


def random_crop(window: Window, context_steps: int, rng: np.random.Generator) -> Crop:
    """A uniformly placed crop of ``context_steps`` steps, or the whole window where it is shorter."""
    length = min(context_steps, window.length)
    start = int(rng.integers(window.length - length + 1))
    return Crop(window, start, start + length)


def shift_image(frames: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Move uint8 [C, height, width, channels] by up to ``pixels`` in each direction, the same for all frames."""
    down, right = rng.integers(-pixels, pixels + 1, size=2)
    height, width = frames.shape[1:3]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]


@dataclasses.dataclass(frozen=True)
class Labels:
    """Actions to imitate for n crops: [n, C, elements], and bool [n, C] where they may be learned from."""

    action: torch.Tensor
    mask: torch.Tensor


def collate(
    task: TaskSpec,
    crops: Sequence[Crop],
    tokenizer: TextTokenizer,
    rng: np.random.Generator,
    past_action_dropout: float = 0.0,
    image_shift: int = 0,
) -> tuple[TaskInputs, Labels]:
    """n crops of one task as preallocated tensors."""
    count, steps = len(crops), max(crop.length for crop in crops)
    arrays: dict[str, np.ndarray] = {}
    for key, spec in task.observation.items():
        if spec.kind == "text":
            continue
        arrays[key] = np.zeros((count, steps, *spec.shape), spec.dtype)
        for row, crop in zip(arrays[key], crops):
            values = crop.window.observation[key][crop.start : crop.stop]
            if spec.kind == "image" and image_shift:
                values = shift_image(values, image_shift, rng)
            row[: crop.length] = values
    dtype = np.int64 if task.action.kind == "discrete" else np.float32
    action = np.zeros((count, steps, task.action_tokens), dtype)
    label = np.zeros_like(action)
    mask = np.zeros((count, steps), bool)
    for row, crop in enumerate(crops):
        chosen = slice(crop.start, crop.stop)
        action[row, : crop.length] = action_elements(crop.window.action[chosen], task)
        label[row, : crop.length] = action_elements(crop.window.label[chosen], task)
        mask[row, : crop.length] = crop.window.label_mask[chosen]
    inputs = TaskInputs(
        task,
        {key: torch.from_numpy(array) for key, array in arrays.items()},
        encode_texts(task, [crop.window.metadata.texts for crop in crops], tokenizer),
        torch.from_numpy(action),
        torch.from_numpy(rng.random(count) < past_action_dropout),
        torch.tensor([crop.length for crop in crops]),
    )
    return inputs, Labels(torch.from_numpy(label), torch.from_numpy(mask))
