"""`TaskInputs`: raw values of n crops of one task, as tensors, and the sequence layout of a timestep.

A timestep is laid out as ``observation ... | action ...`` (Reed et al. 2022, section 2.1): the separator's position
predicts the first action element, each action element's position predicts the next. With `AgentConfig.returns` a token
of the return to come stands before the separator, and the last token of the observation predicts it. Both the learner's
batches and the acting policy come through here, so that they cannot differ.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from agent.task import TaskSpec, text_of
from agent.tokenizer import TextTokenizer


@dataclasses.dataclass(frozen=True)
class TaskInputs:
    """n crops of one task, each of up to C steps; steps past a crop's length are filled with zeros.

    Attributes:
        task: their task.
        arrays: observations that are not text, [n, C, *shape] in the dtype of the spec.
        texts: token ids of text observations and of the task's instruction, int64 [n, longest], -1 behind the end.
        action: executed actions [n, C, elements], float32 or int64; of texts their token ids, -1 behind the end.
        hide_actions: bool [n]; the crop's past actions are not read.
        lengths: int64 [n], valid steps of each crop, at least 1.
        returns: int64 [n, C], bins of the return to come, -1 where nothing is said of it; None: nothing anywhere.
    """

    task: TaskSpec
    arrays: dict[str, torch.Tensor]
    texts: dict[str, torch.Tensor]
    action: torch.Tensor
    hide_actions: torch.Tensor
    lengths: torch.Tensor
    returns: torch.Tensor | None = None

    @property
    def count(self) -> int:
        """Number of crops n."""
        return self.action.shape[0]

    @property
    def steps(self) -> int:
        """Steps C of the widest crop."""
        return self.action.shape[1]

    @property
    def elements(self) -> int:
        """Positions of one action."""
        return self.action.shape[2]

    def to(self, device: torch.device) -> TaskInputs:
        """The same on a device."""

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.to(device, non_blocking=True)

        return dataclasses.replace(
            self,
            arrays={key: move(array) for key, array in self.arrays.items()},
            texts={key: move(text) for key, text in self.texts.items()},
            action=move(self.action),
            hide_actions=move(self.hide_actions),
            lengths=move(self.lengths),
            returns=None if self.returns is None else move(self.returns),
        )


def action_elements(action: np.ndarray, task: TaskSpec) -> np.ndarray:
    """[..., *action shape] to [..., elements], int64 or float32."""
    lead = action.shape[: action.ndim - len(task.action.shape)]
    dtype = np.int64 if task.action.kind == "discrete" else np.float32
    return action.reshape(*lead, task.action_tokens).astype(dtype, copy=False)


INSTRUCTION = "instruction"
"""Key under which a task's fixed instruction is read, beside the text observations."""


MAX_TEXT_TOKENS = 512
"""Longest texts of one observation: as many tokens as have a local position."""


def encode_texts(task: TaskSpec, texts: Sequence[dict[str, str]], tokenizer: TextTokenizer) -> dict[str, torch.Tensor]:
    """Token ids of n crops' texts: by key, int64 [n, longest], -1 behind the end. An empty text is one token.

    Raises:
        ValueError: the texts of one observation have more than `MAX_TEXT_TOKENS` tokens; nothing is cut silently.
    """
    keys = [key for key, spec in task.observation.items() if spec.kind == "text"]
    columns = {key: [text[key] for text in texts] for key in keys}
    if task.instruction is not None:
        columns[INSTRUCTION] = [task.instruction] * len(texts)
    encoded, total = {}, 0
    for key, values in columns.items():
        ids = [tokenizer.encode(value) or [0] for value in values]
        longest = max(map(len, ids))
        total += longest
        if total > MAX_TEXT_TOKENS:
            raise ValueError(
                f"{task.name}: with {key!r} of {longest} tokens the texts have {total}, at most {MAX_TEXT_TOKENS} are "
                f"read; shorten it (it begins {max(values, key=len)[:40]!r})"
            )
        padded = np.full((len(ids), longest), -1, np.int64)
        for row, pieces in zip(padded, ids):
            row[: len(pieces)] = pieces
        encoded[key] = torch.from_numpy(padded)
    return encoded


def encode_said(action: np.ndarray, tokenizer: TextTokenizer) -> np.ndarray:
    """Token ids of n texts, given as actions uint8 [n, 1, max_bytes]: each with the id that ends it, int64
    [n, 1, longest], -1 behind that."""
    ids = [[*tokenizer.encode(text_of(data)), tokenizer.end] for data in action[:, 0]]
    said = np.full((len(ids), 1, max(map(len, ids))), -1, np.int64)
    for row, pieces in zip(said[:, 0], ids):
        row[: len(pieces)] = pieces
    return said
