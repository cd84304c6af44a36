"""Settings of the agent: sizes, embeddings, vocabulary, and how actions are chosen."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass


@dataclass
class AgentConfig:
    """The agent's shape; everything a checkpoint needs to rebuild it.

    Attributes:
        width: model width d.
        layers, heads: transformer blocks, attention heads (d / heads per head, even for rotary positions).
        feedforward: total gated width of the feed-forward block, as a multiple of d (GEGLU: half of it is the gate).
        observation_embedding: ``per_element`` is Gato (one token an element, patches of 16 x 16); ``fused`` maps each
            observation to a few embeddings with weights shared over tasks.
        image_embeddings: positions that ``fused`` gives to one image.
        image_channels: width of the ``fused`` image convolutions.
        image_maxima: whether ``fused`` also reads the greatest value of each feature over the whole image, which says
            that something is there, wherever it is. (Off where a checkpoint is older than this key.)
        positions: ``rotary``, or ``xl``: the paper's Transformer-XL scores of distances, with a projection a layer.
        attention: backend: ``fused`` (PyTorch's kernels), ``dense`` (the formula) or ``flexible`` (compiled for CUDA).
        attention_window: tokens that a token sees, itself included, beside a learned sink; null sees all. Acting with
            ``context: rolling`` needs one, of at most half the training length.
        returns: ``off`` (Gato), or a token of the return to come before each separator: ``masked`` is seen from its own
            timestep only (else the next one could be read off it), ``visible`` from all later ones.
        value_bins: bins of a distribution over the value of each action, which the objective ``advantage_filtered``
            learns; 0: the agent has no such head.
        stochastic_depth: probability of dropping a sub-layer for one sequence (Reed et al. 2022, appendix: 0.1).
        text_model: path of a SentencePiece model; null is the one that ships (512 pieces). Checkpoints carry it.
        text_ids, continuous_bins, discrete_ids, return_bins: sizes of the id ranges of the vocabulary.
        shared_discrete_ids: discrete ids share rows with the first text ids, as in Gato; else they have rows of their
            own.
    """

    width: int = 128
    layers: int = 3
    heads: int = 4
    feedforward: int = 4
    observation_embedding: str = "fused"
    image_embeddings: int = 2
    image_channels: int = 32
    image_maxima: bool = False
    positions: str = "rotary"
    attention: str = "fused"
    attention_window: int | None = None
    returns: str = "off"
    value_bins: int = 0
    stochastic_depth: float = 0.0
    text_model: str | None = None
    text_ids: int = 512
    continuous_bins: int = 1024
    discrete_ids: int = 1024
    return_bins: int = 128
    shared_discrete_ids: bool = False

    def validate(self) -> None:
        """Raise ValueError, naming the key, where a value cannot be built."""
        if self.observation_embedding not in ("per_element", "fused"):
            raise ValueError(
                f"agent.observation_embedding must be per_element or fused, not {self.observation_embedding!r}"
            )
        choices = {
            "positions": ("rotary", "xl"),
            "attention": ("fused", "dense", "flexible"),
            "returns": ("off", "masked", "visible"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"agent.{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.attention_window is not None and self.attention_window < 1:
            raise ValueError(f"agent.attention_window must be at least 1 or null, not {self.attention_window}")
        if self.heads < 1 or self.width < 1 or self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                f"agent.width ({self.width}) must be a multiple of agent.heads ({self.heads}) with an even quotient"
            )
        if self.attention == "flexible" and self.width // self.heads < 16:
            raise ValueError(
                f"agent.attention=flexible needs heads of at least 16, as PyTorch's kernel for CUDA does, not "
                f"agent.width / agent.heads = {self.width // self.heads}; use agent.attention=fused"
            )
        if not 0 <= self.stochastic_depth < 1:
            raise ValueError(f"agent.stochastic_depth must be in [0, 1), not {self.stochastic_depth}")
        for name in ("layers", "feedforward", "image_embeddings", "image_channels", "continuous_bins", "return_bins"):
            if getattr(self, name) < 1:
                raise ValueError(f"agent.{name} must be at least 1, not {getattr(self, name)}")
        if self.value_bins < 0 or self.value_bins == 1:
            raise ValueError(f"agent.value_bins must be 0 or at least 2, not {self.value_bins}")


@dataclass
class DecodingConfig:
    """How an action is chosen from the model's distribution over legal ids.

    Attributes:
        discrete, text: ``greedy`` or ``sample``.
        continuous: ``greedy`` (most likely bin), ``sample``, or ``mean`` (expectation over bin centres).
        temperature: divides the logits before sampling.
        top_p: sample from the smallest set of ids whose probability reaches it.
        context: how the past is read: ``recompute`` (all of the last ``context_steps`` at every step), ``reprefill``
            (keys and values are kept; when the context is full, its newest part is read again) or ``rolling`` (they
            are kept for ever, for models trained with ``agent.attention_window``).
        kept: share of a full context that ``reprefill`` reads again: more costs time, less forgets more.
        weights: ``float32``, or ``int8``: those of the transformer rounded to eight bits (CPU only).
        returns: what stands for the return to come, for models with ``agent.returns``: ``none`` (the token that says
            nothing, so that the model acts as Gato), ``target`` (``return_target``, minus what the episode has earned:
            Decision Transformer, Chen et al. 2021) or ``tilted`` (sampled from the model's own prediction times
            exp(``kappa`` x return scaled to [0, 1]): Lee et al. 2022, section 4.2).
        return_target: return asked for at the start of an episode.
        kappa: inverse temperature of the tilt.
        past_actions: ``shown`` or ``hidden``: whether earlier actions are read (a model trained with
            ``learner.past_action_dropout`` above 0 can do without).
    """

    discrete: str = "sample"
    continuous: str = "sample"
    text: str = "greedy"
    temperature: float = 1.0
    top_p: float = 1.0
    context: str = "reprefill"
    kept: float = 0.5
    weights: str = "float32"
    returns: str = "none"
    return_target: float = 0.0
    kappa: float = 10.0
    past_actions: str = "shown"

    def validate(self, key: str = "decoding") -> None:
        """Raise ValueError, naming the key, where a value is not one of those offered."""
        choices = {
            "discrete": ("greedy", "sample"),
            "continuous": ("greedy", "sample", "mean"),
            "text": ("greedy", "sample"),
            "context": ("recompute", "reprefill", "rolling"),
            "weights": ("float32", "int8"),
            "returns": ("none", "target", "tilted"),
            "past_actions": ("shown", "hidden"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{key}.{name} must be one of {', '.join(allowed)}, not {getattr(self, name)!r}")
        if self.temperature <= 0:
            raise ValueError(f"{key}.temperature must be above 0, not {self.temperature}; use greedy instead")
        if not math.isfinite(self.return_target) or not 0 <= self.kappa < math.inf:
            raise ValueError(f"{key}.return_target must be finite and {key}.kappa finite and not negative")
        if not 0 < self.kept < 1:
            raise ValueError(f"{key}.kept must be between 0 and 1, not {self.kept}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"{key}.top_p must be in (0, 1], not {self.top_p}")

    def describe(self) -> str:
        """One line for result.json."""
        return ", ".join(f"{key}={value}" for key, value in dataclasses.asdict(self).items())
