"""Windows to tensors: random crops of the task's context, and image shifts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from agent.inputs import TaskInputs, action_elements, encode_said, encode_texts
from agent.task import TaskSpec
from agent.tokenizer import TextTokenizer, encode_return
from replay.window import Window


@dataclasses.dataclass(frozen=True)
class Crop:
    """Steps ``start`` to ``stop`` of a window, read after those of ``prompt``, if any.

    ``objective``: by which it is learned from, where one is chosen for its source; None: as the learner's has it.
    """

    window: Window
    start: int
    stop: int
    prompt: Crop | None = None
    objective: str | None = None

    @property
    def length(self) -> int:
        """Number of steps."""
        return self.stop - self.start


def random_crop(window: Window, context_steps: int, rng: np.random.Generator) -> Crop:
    """A uniformly placed crop of ``context_steps`` steps, or the whole window where it is shorter."""
    length = min(context_steps, window.length)
    start = int(rng.integers(window.length - length + 1))
    return Crop(window, start, start + length)


def last_crop(window: Window, steps: int) -> Crop:
    """The last ``steps`` steps, or the whole window where it is shorter."""
    return Crop(window, max(0, window.length - steps), window.length)


def shift_image(frames: np.ndarray, pixels: int, rng: np.random.Generator) -> np.ndarray:
    """Move uint8 [C, height, width, channels] by up to ``pixels`` in each direction, the same for all frames."""
    down, right = rng.integers(-pixels, pixels + 1, size=2)
    height, width = frames.shape[1:3]
    rows = np.clip(np.arange(height) - down, 0, height - 1)
    columns = np.clip(np.arange(width) - right, 0, width - 1)
    return frames[:, rows][:, :, columns]


def returns_to_come(window: Window, horizon: int) -> np.ndarray:
    """Sum of the next ``horizon`` rewards of each step (0: of all to the episode's end), float32 [L].

    NaN where it is not known: no rewards, a tail too short, or an end other than termination. A time limit is no end:
    what would have come is unknown.
    """
    reward, length = window.reward.astype(np.float64), window.length
    if not window.metadata.has_reward:
        return np.full(length, np.nan, np.float32)
    sums = np.concatenate(([0.0], np.cumsum(reward)))
    step = np.arange(length)
    last = step + horizon if horizon else np.full(length, len(reward) + 1)
    ends = bool(window.terminated[-1]) or window.metadata.tail_terminated  # then no reward follows
    known = (last <= len(reward)) | ends
    return np.where(known, sums[np.minimum(last, len(reward))] - sums[step], np.nan).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Labels:
    """What is to be learned from n crops.

    Attributes:
        action: to imitate, [n, C, elements].
        mask: bool [n, C], where it may be learned from.
        window: int64 [n], which window of the group a crop belongs to, counting up: a prompt comes before the crop that
            it is read before, and both have the same number.
        prompt: bool [n], which crops are prompts.
        reward, terminated: float32 and bool [n, C], what followed the action; zeros past a crop's length.
        rewarded: bool [n], whether its rewards are known.
        judged: bool [n], whether a critic, where there is one, learns from it.
        log_prob: float32 [n, C], of the executed action where it was sampled, the sum over its tokens; NaN where it is
            not known.
        later: float32 [n, return_horizon], the rewards that came after a crop; zeros after a termination in its
            window, and where the task has ``ends_counted`` after it too. NaN where they are not known or not counted.
    """

    action: torch.Tensor
    mask: torch.Tensor
    window: torch.Tensor
    prompt: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    rewarded: torch.Tensor
    judged: torch.Tensor
    log_prob: torch.Tensor
    later: torch.Tensor


def collate(
    task: TaskSpec,
    crops: Sequence[Crop],
    tokenizer: TextTokenizer,
    rng: np.random.Generator,
    past_action_dropout: float = 0.0,
    image_shift: int = 0,
    return_bins: int | None = None,
    return_dropout: float = 0.0,
) -> tuple[TaskInputs, Labels]:
    """Crops of one task and their prompts, n in all, as preallocated tensors; with returns where there are bins."""
    window = [number for number, crop in enumerate(crops) for _ in range(2 if crop.prompt else 1)]
    prompt = [is_prompt for crop in crops for is_prompt in ([True, False] if crop.prompt else [False])]
    hidden = rng.random(len(crops)) < past_action_dropout
    unsaid = rng.random(len(crops)) < return_dropout if return_bins else np.ones(len(crops), bool)
    for number, crop in enumerate(crops):
        if crop.objective is not None:
            unsaid[number] = crop.objective != "return_conditioned"
    judged = [crop.objective in (None, "advantage_filtered") for crop in crops]
    crops = [each for crop in crops for each in ([crop.prompt, crop] if crop.prompt else [crop])]
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
    mask = np.zeros((count, steps), bool)
    for row, crop in zip(mask, crops):
        row[: crop.length] = crop.window.label_mask[crop.start : crop.stop]
    if task.says_text:
        # A text is read as it is predicted, token by token, so it cannot be hidden, nor differ from its label.
        action = label = encode_said(np.stack([crop.window.label[crop.start : crop.stop] for crop in crops]), tokenizer)
        hidden[:] = False
    else:
        dtype = np.int64 if task.action.kind == "discrete" else np.float32
        action = np.zeros((count, steps, task.action_tokens), dtype)
        label = np.zeros_like(action)
        for row, crop in enumerate(crops):
            chosen = slice(crop.start, crop.stop)
            action[row, : crop.length] = action_elements(crop.window.action[chosen], task)
            label[row, : crop.length] = action_elements(crop.window.label[chosen], task)
    inputs = TaskInputs(
        task,
        {key: torch.from_numpy(array) for key, array in arrays.items()},
        encode_texts(task, [crop.window.metadata.texts for crop in crops], tokenizer),
        torch.from_numpy(action),
        torch.from_numpy(hidden[window]),
        torch.tensor([crop.length for crop in crops]),
        _return_bins(task, crops, unsaid[window], steps, return_bins) if return_bins and not task.says_text else None,
    )
    reward, terminated = np.zeros((count, steps), np.float32), np.zeros((count, steps), bool)
    log_prob = np.full((count, steps), np.nan, np.float32)
    for row, crop in enumerate(crops):
        reward[row, : crop.length] = crop.window.reward[crop.start : crop.stop]
        terminated[row, : crop.length] = crop.window.terminated[crop.start : crop.stop]
        log_prob[row, : crop.length] = crop.window.log_prob[crop.start : crop.stop].sum(-1)
    labels = Labels(
        torch.from_numpy(label),
        torch.from_numpy(mask),
        torch.tensor(window),
        torch.tensor(prompt),
        torch.from_numpy(reward),
        torch.from_numpy(terminated),
        torch.tensor([crop.window.metadata.has_reward for crop in crops]),
        torch.tensor([judged[of] for of in window]),
        torch.from_numpy(log_prob),
        torch.from_numpy(np.stack([_later(crop, task) for crop in crops])),
    )
    return inputs, labels


def _later(crop: Crop, task: TaskSpec) -> np.ndarray:
    """The ``return_horizon`` rewards after a crop; see `Labels`."""
    window, horizon = crop.window, task.return_horizon
    reward = window.reward[crop.stop : crop.stop + horizon].astype(np.float32)
    ends = bool(window.terminated[-1]) or (task.ends_counted and window.metadata.tail_terminated)
    if len(reward) < horizon and not ends:
        return np.full(horizon, np.nan, np.float32)
    return np.pad(reward, (0, horizon - len(reward)))


def _return_bins(task: TaskSpec, crops: Sequence[Crop], unsaid: np.ndarray, steps: int, bins: int) -> torch.Tensor:
    """Bins of the return to come, int64 [n, C]; -1 where it is not known or not to be said."""
    result = torch.full((len(crops), steps), -1)
    for row, crop, silent in zip(result, crops, unsaid):
        values = torch.from_numpy(returns_to_come(crop.window, task.return_horizon)[crop.start : crop.stop])
        known = ~values.isnan() & (not silent)
        row[: crop.length][known] = encode_return(values[known], task, bins)
    return result
