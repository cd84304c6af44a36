"""Numbers and text to token ids and back (Reed et al. 2022, section 2.1 and appendix B).

Id ranges, in order: text, continuous, discrete, return bins, rewards, and the reserved ids. No range overlaps another
unless `AgentConfig.shared_discrete_ids` asks for the paper's layout, in which discrete ids are the first text ids.
"""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import sentencepiece
import torch

from agent.config import AgentConfig
from agent.task import ArraySpec, TaskSpec

MU, MAX_MAGNITUDE = 100.0, 256.0
"""mu and M of the companding F(x) = sgn(x) log(|x| mu + 1) / log(M mu + 1)."""


@dataclasses.dataclass(frozen=True)
class IdRange:
    """Ids ``start`` to ``start + count - 1``."""

    start: int
    count: int

    @property
    def stop(self) -> int:
        """One past the last id."""
        return self.start + self.count


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """Where each kind of token has its ids; ``size`` is the number of rows of the embedding table."""

    text: IdRange
    continuous: IdRange
    discrete: IdRange
    returns: IdRange
    rewards: IdRange
    no_return: int
    separator: int
    episode_start: int
    hidden_action: int
    padding: int
    size: int

    @classmethod
    def of(cls, config: AgentConfig) -> Vocabulary:
        """Lay the ranges out one behind the other."""
        text = IdRange(0, config.text_ids)
        continuous = IdRange(text.stop, config.continuous_bins)
        discrete = IdRange(0 if config.shared_discrete_ids else continuous.stop, config.discrete_ids)
        returns = IdRange(max(continuous.stop, discrete.stop), config.return_bins)
        rewards = IdRange(returns.stop, 3)
        reserved = rewards.stop
        return cls(
            text, continuous, discrete, returns, rewards, reserved, reserved + 1, reserved + 2, reserved + 3,
            reserved + 4, reserved + 5,
        )  # fmt: skip

    def check(self, task: TaskSpec) -> None:
        """Raise ValueError where an observation has more discrete values than there are ids."""
        for key, spec in task.observation.items():
            if spec.kind == "discrete" and spec.num_values > self.discrete.count:
                raise ValueError(
                    f"{task.name}: {key} has {spec.num_values} values, the vocabulary {self.discrete.count} discrete "
                    "ids; raise agent.discrete_ids"
                )

    def legal_actions(self, action: ArraySpec) -> IdRange:
        """Ids that an action of this spec may take; the softmax is restricted to them."""
        if action.kind == "continuous":
            return self.continuous
        if action.kind == "text":
            return self.text
        if action.num_values > self.discrete.count:
            raise ValueError(
                f"the action has {action.num_values} values, the vocabulary {self.discrete.count} discrete ids; "
                "raise agent.discrete_ids"
            )
        return IdRange(self.discrete.start, action.num_values)


def compand(values: torch.Tensor) -> torch.Tensor:
    """mu-law companding of float observations, any shape; saturates at +-1 (also for infinities)."""
    magnitude = values.abs().clamp(max=MAX_MAGNITUDE)
    scale = np.log(MAX_MAGNITUDE * MU + 1.0)
    return torch.sign(values) * torch.log(magnitude * MU + 1.0) / scale


def to_bins(values: torch.Tensor, bins: int) -> torch.Tensor:
    """Clip to [-1, 1] and cut into equal bins; int64 in [0, bins). +1 falls into the last bin."""
    if torch.isnan(values).any():
        raise ValueError("NaN cannot be tokenised")
    return ((values.clamp(-1.0, 1.0) + 1.0) * (bins / 2)).long().clamp(max=bins - 1)


def bin_centres(bins: int) -> torch.Tensor:
    """Centres of the equal bins of [-1, 1], float32 [bins]."""
    return (torch.arange(bins, dtype=torch.float32) + 0.5) * (2.0 / bins) - 1.0


def encode_observation(values: torch.Tensor, spec: ArraySpec, vocabulary: Vocabulary) -> torch.Tensor:
    """Ids of a continuous (companded) or discrete observation, same shape, int64 (section 2.1).

    NaN, and discrete values that are not the spec's, raise ValueError.
    """
    if spec.kind == "continuous":
        return to_bins(compand(values), vocabulary.continuous.count) + vocabulary.continuous.start
    return _discrete(values, spec) + vocabulary.discrete.start


def encode_action(values: torch.Tensor, spec: ArraySpec, vocabulary: Vocabulary) -> torch.Tensor:
    """Ids of an action, same shape, int64. Actions are not companded, only clipped and binned (appendix B).

    NaN, and discrete values that are not the spec's, raise ValueError.
    """
    if spec.kind == "continuous":
        return to_bins(values, vocabulary.continuous.count) + vocabulary.continuous.start
    return _discrete(values, spec) + vocabulary.discrete.start


def _discrete(values: torch.Tensor, spec: ArraySpec) -> torch.Tensor:
    """As int64; a value beyond those of the spec, which would be the id of something else, raises ValueError."""
    if ((values < 0) | (values >= spec.num_values)).any():
        raise ValueError(f"a discrete value is not in 0 to {spec.num_values - 1} and cannot be tokenised")
    return values.long()


def encode_return(values: torch.Tensor, task: TaskSpec, bins: int) -> torch.Tensor:
    """Bins of returns to come, int64 of the same shape: ``bins`` equal ones over the task's range, which saturates."""
    if task.return_range is None:
        raise ValueError(f"{task.name} has no return_range, which a model with agent.returns needs")
    low, high = task.return_range
    return to_bins((values - low) * (2.0 / (high - low)) - 1.0, bins)


def return_centres(task: TaskSpec, bins: int) -> torch.Tensor:
    """Centres of the bins of `encode_return`, float32 [bins]."""
    if task.return_range is None:
        raise ValueError(f"{task.name} has no return_range, which a model with agent.returns needs")
    low, high = task.return_range
    return low + (bin_centres(bins) + 1.0) * ((high - low) / 2)


class TextTokenizer:
    """A SentencePiece model; the one that ships has 512 pieces with byte fallback, so that any text can be read.

    Attributes:
        model: its serialised form.
    """

    def __init__(self, model: bytes) -> None:
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"not a SentencePiece model ({str(error).splitlines()[0]})") from None
        if not self.size:
            raise ValueError("not a SentencePiece model (it has no pieces)")

    @classmethod
    def open(cls, path: str | Path | None) -> TextTokenizer:
        """The model in a file, or the shipped one; what is missing or is no model raises ValueError."""
        if path is None:
            return cls.default()
        try:
            return cls(Path(path).read_bytes())
        except OSError as error:
            raise ValueError(f"agent.text_model: {path} cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise ValueError(f"agent.text_model: {path} is {error}") from None

    @classmethod
    @functools.cache
    def default(cls) -> TextTokenizer:
        """The shipped model."""
        return cls(Path(__file__).with_name("text_512.model").read_bytes())

    @property
    def size(self) -> int:
        """Number of pieces."""
        return int(self._processor.get_piece_size())

    @property
    def end(self) -> int:
        """Id that ends a text which is predicted: the model's ``</s>``, else the ``<unk>`` that byte fallback leaves
        unused. ValueError for a model that has neither."""
        if self._processor.eos_id() >= 0:
            return int(self._processor.eos_id())
        if any(self._processor.is_byte(piece) for piece in range(self.size)):
            return int(self._processor.unk_id())
        raise ValueError(
            "the text model has neither </s> nor byte fallback, so no piece can end a text; train it with one of them"
        )

    def encode(self, text: str) -> list[int]:
        """Ids in [0, size). A text without a UTF-8 form (half of a surrogate pair) raises ValueError."""
        text.encode()  # UnicodeEncodeError is a ValueError; what SentencePiece raises is none
        return list(self._processor.encode(text))

    def decode(self, ids: list[int]) -> str:
        """Inverse of `encode`, up to SentencePiece's normalisation (NFKC; spaces, and control characters that count as
        such, become single ones). Ids that are not in [0, size) raise ValueError."""
        if any(not 0 <= piece < self.size for piece in ids):
            raise ValueError(f"a text has piece ids in 0 to {self.size - 1}, not {ids}")
        return str(self._processor.decode(ids))
