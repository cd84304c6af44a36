"""`Batch`: crops of several tasks packed into rows of fixed length, with what is to be predicted where."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import torch

from agent.agent import Agent
from agent.attention import Layout
from agent.inputs import TaskInputs
from agent.packing import pack
from agent.task import TaskSpec
from agent.tokenizer import IdRange, encode_action
from learner.crop import Labels


@dataclasses.dataclass(frozen=True)
class Targets:
    """Predictions of one task: M positions whose legal ids are the same range.

    Attributes:
        task: task name.
        kind: ``discrete``, ``continuous`` or ``text`` for actions, ``return`` for returns to come, ``reward`` for the
            signs of rewards.
        legal: ids over which the softmax runs.
        position: int64 [M], index of the predicting position in the packed rows laid end to end.
        id: int64 [M], target within the legal range.
        window: int64 [M], which of the batch's windows it belongs to.
    """

    task: str
    kind: str
    legal: IdRange
    position: torch.Tensor
    id: torch.Tensor
    window: torch.Tensor


@dataclasses.dataclass(frozen=True)
class Steps:
    """The timesteps of one task's crops, prompts left out; its actions are no texts.

    Attributes:
        task: the task.
        legal: ids of an element of its actions.
        position: int64 [n, C, elements], where each element is predicted, in the packed rows laid end to end: the first
            at the separator; -1 past a crop's length.
        action, label: int64 [n, C, elements], what was executed and what is to be imitated, within the legal range.
        labelled: bool [n, C], where the label may be learned from.
        reward, terminated: float32 and bool [n, C], what followed the action.
        rewarded: bool [n], whether its rewards are known and a critic is to learn from them.
        log_prob, later: float32 [n, C] and [n, return_horizon], see `Labels`.
        said: bool [n], where something is said of the return to come (with `AgentConfig.returns`).
        window: int64 [n], which of the batch's windows a crop is.
    """

    task: TaskSpec
    legal: IdRange
    position: torch.Tensor
    action: torch.Tensor
    label: torch.Tensor
    labelled: torch.Tensor
    reward: torch.Tensor
    terminated: torch.Tensor
    rewarded: torch.Tensor
    log_prob: torch.Tensor
    later: torch.Tensor
    said: torch.Tensor
    window: torch.Tensor

    def map(self, function: Callable[[torch.Tensor], torch.Tensor]) -> Steps:
        """The same with each tensor replaced."""
        tensors = [value for value in vars(self).values() if isinstance(value, torch.Tensor)]
        return Steps(self.task, self.legal, *map(function, tensors))


@dataclasses.dataclass(frozen=True)
class Batch:
    """What one update learns from.

    Attributes:
        groups: raw inputs, one group a task; windows count up over all groups.
        gather: int64 [rows, length], index into the groups' positions laid end to end; their number where it pads.
        layout: who sees whom in rows [rows, length]. A segment is a window: its prompt, if any, and its crop; the
            number of a segment is that of its window + 1, and 0 pads.
        targets: one entry a task.
        steps: one entry for each task whose actions have values (with `agent.action_values`: all but texts).
        windows: number of windows.
        tokens: positions that are not padding.
    """

    groups: list[TaskInputs]
    gather: torch.Tensor
    layout: Layout
    targets: list[Targets]
    steps: list[Steps]
    windows: int
    tokens: int

    def to(self, device: torch.device) -> Batch:
        """The same on a device; what is not an observation or an action is pinned on the way to an accelerator."""
        if device.type == "cpu":
            return self

        def move(tensor: torch.Tensor) -> torch.Tensor:
            return tensor.pin_memory().to(device, non_blocking=True)

        return dataclasses.replace(
            self,
            groups=[group.to(device) for group in self.groups],
            gather=move(self.gather),
            layout=self.layout.map(move),
            targets=[
                dataclasses.replace(t, position=move(t.position), id=move(t.id), window=move(t.window))
                for t in self.targets
            ],
            steps=[each.map(move) for each in self.steps],
        )


def make_batch(
    agent: Agent, groups: Sequence[tuple[TaskInputs, Labels]], row_length: int, rewards: bool = False
) -> Batch:
    """Pack groups of crops (on the CPU) into rows, a window's prompt before its crop in one segment.

    With ``rewards``, the last token of an action predicts the sign of the reward that followed it, one of three tokens.
    A window longer than a row raises ValueError, naming its task.
    """
    valid = [agent.valid_positions(inputs).numpy() for inputs, _ in groups]
    first = np.cumsum([0] + [int(labels.window[-1]) + 1 for _, labels in groups])
    window_of = [labels.window.numpy() + start for (_, labels), start in zip(groups, first)]  # of each crop
    in_crop = [mask.reshape(len(mask), -1).sum(1) for mask in valid]
    lengths = np.bincount(np.concatenate(window_of), np.concatenate(in_crop)).astype(np.int64)
    for (inputs, _), start, stop in zip(groups, first, first[1:]):
        longest = int(lengths[start:stop].max())
        if longest > row_length:
            raise ValueError(
                f"{inputs.task.name}: {inputs.task.context_steps} steps of context are {longest} tokens, rows hold "
                f"{row_length}; raise learner.tokens_per_row or lower the task's context_steps"
            )
    start_of, rows = pack(lengths, row_length)
    flat_valid = np.concatenate([mask.reshape(-1) for mask in valid])
    source = np.flatnonzero(flat_valid)
    per_crop = [np.repeat(each, mask[0].size) for each, mask in zip(window_of, valid)]
    window = np.concatenate(per_crop)[source]
    within = np.arange(len(source)) - (np.cumsum(lengths) - lengths)[window]
    destination = start_of[window] + within

    gather = np.full(rows * row_length, len(flat_valid), np.int64)
    positions = np.zeros(rows * row_length, np.int64)
    segments = np.zeros(rows * row_length, np.int32)
    gather[destination], positions[destination], segments[destination] = source, within, window + 1
    pinned = np.zeros(rows * row_length, bool)
    prompts = [np.repeat(labels.prompt.numpy(), mask[0].size) for (_, labels), mask in zip(groups, valid)]
    pinned[destination] = np.concatenate(prompts)[source]
    masked = agent.config.returns == "masked"
    private = np.zeros(rows * row_length, bool)
    timesteps = np.zeros(rows * row_length, np.int64)
    if masked:
        private[destination] = np.concatenate([_return_places(agent, *each) for each in zip(groups, valid)])[source]
        widths = np.concatenate([np.full(mask[..., 0].size, mask.shape[-1]) for mask in valid])
        timesteps[destination] = np.repeat(np.arange(len(widths)), widths)[source]
    place_of = np.full(len(flat_valid), -1, np.int64)
    place_of[source] = destination

    targets, steps_of, first_position = [], [], 0
    for (inputs, labels), mask, windows in zip(groups, valid, window_of):
        count, steps, width = mask.shape
        elements = inputs.elements
        place = place_of[first_position : first_position + mask.size].reshape(count, steps, width)
        # The separator predicts the first element, each element the next.
        predicting = place[:, :, width - elements - 1 : width - 1]
        chosen = labels.mask.numpy()[..., None] & mask[:, :, width - elements :]
        legal = agent.legal(inputs.task)
        if inputs.task.says_text:
            ids = legal.start + labels.action
        else:
            ids = encode_action(labels.action, inputs.task.action, agent.vocabulary)
        name = inputs.task.name
        targets.append(_targets(name, inputs.task.action.kind, legal, predicting, ids - legal.start, chosen, windows))
        if agent.action_values is not None and not inputs.task.says_text:
            executed = encode_action(inputs.action, inputs.task.action, agent.vocabulary) - legal.start
            steps_of.append(_steps(inputs, labels, legal, predicting, executed, ids - legal.start, windows))
        if inputs.returns is not None:
            # Whatever comes before the return's own token, the last of the observation, predicts it.
            known = (inputs.returns.numpy() >= 0) & mask[:, :, width - elements - 1]
            before = place[:, :, width - elements - agent.lead] - 1
            targets.append(_targets(name, "return", agent.vocabulary.returns, before, inputs.returns, known, windows))
        if rewards and not inputs.task.says_text:
            known = labels.rewarded.numpy()[:, None] & mask[:, :, -1]
            sign = labels.reward.sign().long() + 1
            targets.append(_targets(name, "reward", agent.vocabulary.rewards, place[:, :, -1], sign, known, windows))
        first_position += mask.size
    shape = (rows, row_length)
    whole_rows = bool((lengths == row_length).all())
    return Batch(
        [inputs for inputs, _ in groups],
        torch.from_numpy(gather.reshape(shape)),
        Layout(
            torch.from_numpy(positions.reshape(shape)),
            None if whole_rows else torch.from_numpy(segments.reshape(shape)),
            pinned=torch.from_numpy(pinned.reshape(shape)) if pinned.any() else None,
            private=torch.from_numpy(private.reshape(shape)) if masked else None,
            timesteps=torch.from_numpy(timesteps.reshape(shape)) if masked else None,
        ),
        targets,
        steps_of,
        len(lengths),
        len(source),
    )


def _targets(
    task: str, kind: str, legal: IdRange, place: np.ndarray, id: torch.Tensor, chosen: np.ndarray, windows: np.ndarray
) -> Targets:
    """Those ``chosen`` of one group: places, ids and bools [n, ...], and the window [n] of each crop."""
    window = np.broadcast_to(windows.reshape(-1, *[1] * (place.ndim - 1)), place.shape)
    which = torch.from_numpy(chosen)
    return Targets(task, kind, legal, torch.from_numpy(place[chosen]), id[which], torch.from_numpy(window[chosen]))


def _steps(
    inputs: TaskInputs,
    labels: Labels,
    legal: IdRange,
    place: np.ndarray,
    action: torch.Tensor,
    label: torch.Tensor,
    window: np.ndarray,
) -> Steps:
    """Of one group; see `Steps` for ``place``, ``action`` and ``label`` [n, C, elements]."""
    own = ~labels.prompt
    said = torch.zeros(len(own), dtype=torch.bool) if inputs.returns is None else (inputs.returns >= 0).any(1)
    return Steps(
        inputs.task,
        legal,
        torch.from_numpy(place)[own],
        action[own],
        label[own],
        labels.mask[own],
        labels.reward[own],
        labels.terminated[own],
        (labels.rewarded & labels.judged)[own],
        labels.log_prob[own],
        labels.later[own],
        said[own],
        torch.from_numpy(window)[own],
    )


def _return_places(agent: Agent, group: tuple[TaskInputs, Labels], mask: np.ndarray) -> np.ndarray:
    """Which positions of a group, laid end to end, hold a return."""
    places = np.zeros(mask.shape, bool)
    places[:, :, mask.shape[-1] - group[0].elements - agent.lead] = True
    return places.reshape(-1)


def packed_hidden(agent: Agent, batch: Batch) -> torch.Tensor:
    """Embed, pack and run the transformer: hidden states [rows * length, d]."""
    return agent.transformer(packed_embeddings(agent, batch), batch.layout).flatten(0, 1)


def packed_embeddings(agent: Agent, batch: Batch) -> torch.Tensor:
    """Embed and pack: [rows, length, d]."""
    flat = torch.cat([agent.embed(group).flatten(0, 2) for group in batch.groups])
    flat = torch.cat((flat, flat.new_zeros(1, flat.shape[1])))
    return flat.index_select(0, batch.gather.flatten()).unflatten(0, batch.gather.shape)
