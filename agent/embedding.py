"""Observations to embeddings: `PerElementEmbedding` is Gato's, `FusedEmbedding` the fast alternative.

Both read the arrays of an observation in the lexicographic order of keys, and both share every weight over tasks, so
that a task never seen can be read.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from agent.config import AgentConfig
from agent.inputs import INSTRUCTION, MAX_TEXT_TOKENS, TaskInputs
from agent.task import ArraySpec, TaskSpec
from agent.tokenizer import Vocabulary, compand, encode_observation

MAX_LOCAL_POSITIONS = MAX_TEXT_TOKENS
PATCH = 16
POSITION_INTERVALS = 128


def text_keys(task: TaskSpec) -> list[str]:
    """Keys of a task's texts in reading order: the fixed instruction first, if any."""
    keys = [key for key, spec in task.observation.items() if spec.kind == "text"]
    return ([INSTRUCTION] if task.instruction is not None else []) + keys


def pixels(image: torch.Tensor) -> torch.Tensor:
    """uint8 [..., height, width, channels] to float32 [..., channels, height, width] in [-1, 1]."""
    return image.movedim(-1, -3).float().div(127.5).sub(1.0)


def check_channels(task: TaskSpec) -> None:
    """Raise ValueError where an image is neither grey nor RGB."""
    for key, spec in task.observation.items():
        if spec.kind == "image" and spec.shape[-1] not in (1, 3):
            raise ValueError(f"{task.name}: image {key!r} has {spec.shape[-1]} channels; 1 or 3 can be read")


class Film(nn.Module):
    """Feature-wise scale and shift by the pooled text (Perez et al. 2018); the identity at first."""

    def __init__(self, width: int, channels: int) -> None:
        super().__init__()
        self.project = nn.Linear(width, 2 * channels)
        nn.init.zeros_(self.project.weight)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """``features`` [n * C, channels, h, w], ``text`` [n, d]."""
        scale, shift = self.project(text).repeat_interleave(features.shape[0] // text.shape[0], 0).chunk(2, dim=-1)
        return features * (1.0 + scale[..., None, None]) + shift[..., None, None]


class ImageEncoder(nn.Module):
    """A small convolution to a few vectors; 64 x 80 pixels end as 4 x 5 cells, other sizes are pooled to it."""

    CELLS = (4, 5)

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        channels = config.image_channels
        self.embeddings = config.image_embeddings
        self.stem = nn.Conv2d(3, channels, 8, stride=4, padding=2)
        self.middle = nn.Conv2d(channels, 2 * channels, 4, stride=2, padding=1)
        self.film = Film(config.width, 2 * channels)
        self.top = nn.Conv2d(2 * channels, 2 * channels, 4, stride=2, padding=1)
        self.maxima = config.image_maxima
        features = 2 * channels * (math.prod(self.CELLS) + (2 if self.maxima else 0))
        self.out = nn.Linear(features, config.image_embeddings * config.width)

    def forward(self, image: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """uint8 [n * C, height, width, 1 or 3] to [n * C, image_embeddings, d]."""
        x = pixels(image).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        x = functional.gelu(self.stem(x))
        middle = functional.gelu(self.film(self.middle(x), text))
        top = functional.gelu(self.top(middle))
        x = functional.adaptive_avg_pool2d(top, self.CELLS).flatten(1)
        if self.maxima:
            x = torch.cat((x, middle.amax((2, 3)), top.amax((2, 3))), dim=1)
        return self.out(x).unflatten(-1, (self.embeddings, -1))


class GridEncoder(nn.Module):
    """Grids of discrete symbols (height x width x channels): summed symbol embeddings, two convolutions, one vector."""

    CELLS, CHANNELS, MAX_GRID_CHANNELS = 8, 32, 8

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.values = config.discrete_ids
        self.symbols = nn.Embedding(self.MAX_GRID_CHANNELS * self.values, self.CHANNELS)
        self.first = nn.Conv2d(self.CHANNELS, self.CHANNELS, 3, padding=1)
        self.first_film = Film(config.width, self.CHANNELS)
        self.second = nn.Conv2d(self.CHANNELS, self.CHANNELS, 3, padding=1)
        self.second_film = Film(config.width, self.CHANNELS)
        self.out = nn.Linear(self.CHANNELS * self.CELLS**2, config.width)

    def forward(self, grid: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        """int [n * C, height, width, channels] to [n * C, d]."""
        channel = torch.arange(grid.shape[-1], device=grid.device) * self.values
        x = self.symbols(grid.long() + channel).sum(-2).movedim(-1, 1).contiguous()
        x = functional.gelu(self.first_film(self.first(x), text))
        x = functional.gelu(self.second_film(self.second(x), text)) + x
        height, width = x.shape[-2:]
        if max(height, width) > self.CELLS:
            x = functional.adaptive_avg_pool2d(x, self.CELLS)
        else:
            x = functional.pad(x, (0, self.CELLS - width, 0, self.CELLS - height))
        return self.out(x.flatten(1))


def is_grid(spec: ArraySpec) -> bool:
    """Whether ``fused`` reads an array as a grid of symbols."""
    return spec.kind == "discrete" and len(spec.shape) == 3 and spec.shape[-1] <= GridEncoder.MAX_GRID_CHANNELS


class StateEncoder(nn.Module):
    """All remaining numbers of an observation, element by element by their local position, to one vector."""

    FEATURES = 8

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.values = nn.Embedding(config.discrete_ids, self.FEATURES)
        self.elements = nn.Parameter(torch.randn(MAX_LOCAL_POSITIONS * self.FEATURES, 2 * config.width) * 0.2)
        self.bias = nn.Parameter(torch.zeros(2 * config.width))
        self.out = nn.Linear(2 * config.width, config.width)

    def features(self, values: torch.Tensor, spec: ArraySpec) -> torch.Tensor:
        """[m, elements] to [m, elements, FEATURES]; several scales, so that small and large numbers are both seen."""
        if spec.kind == "discrete":
            return self.values(values.long())
        clipped = values.clamp(-1e6, 1e6)
        scaled = [torch.tanh(clipped * scale) for scale in (0.1, 0.4, 1.5, 6.0)]
        smooth = [compand(values), torch.asinh(clipped) / 2, clipped.clamp(-4.0, 4.0) / 2, clipped.clamp(-1.0, 1.0)]
        return torch.stack(scaled + smooth, dim=-1)

    def forward(self, arrays: list[tuple[torch.Tensor, ArraySpec]]) -> torch.Tensor:
        """Arrays [m, *shape] of one observation to [m, d]."""
        x = torch.cat([self.features(array.reshape(len(array), -1), spec) for array, spec in arrays], dim=1).flatten(1)
        return self.out(functional.gelu(x @ self.elements[: x.shape[1]] + self.bias))


class FusedEmbedding(nn.Module):
    """One embedding for the texts, a few for each image, one for each grid, one for everything else."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.width = config.width
        self.image_embeddings = config.image_embeddings
        self.text_positions = nn.Embedding(MAX_LOCAL_POSITIONS, config.width)
        nn.init.normal_(self.text_positions.weight, std=0.5)
        self.text_mix = nn.Sequential(
            nn.Linear(config.width, config.width), nn.GELU(), nn.Linear(config.width, config.width)
        )
        self.image = ImageEncoder(config)
        self.grid = GridEncoder(config)
        self.state = StateEncoder(config)
        self.local_positions = nn.Embedding(MAX_LOCAL_POSITIONS, config.width)
        nn.init.normal_(self.local_positions.weight, std=0.02)

    def positions(self, task: TaskSpec) -> int:
        """Positions of one observation of a task."""
        specs = [spec for spec in task.observation.values() if spec.kind != "text"]
        images = sum(spec.kind == "image" for spec in specs)
        grids = sum(is_grid(spec) for spec in specs)
        state = any(spec.kind != "image" and not is_grid(spec) for spec in specs)
        return bool(text_keys(task)) + images * self.image_embeddings + grids + state

    def check(self, task: TaskSpec) -> None:
        """Raise ValueError where a task cannot be read."""
        specs = [spec for spec in task.observation.values() if spec.kind != "text"]
        elements = sum(spec.size for spec in specs if spec.kind != "image" and not is_grid(spec))
        if elements > MAX_LOCAL_POSITIONS:
            raise ValueError(
                f"{task.name}: {elements} numbers in one observation, the fused embedding reads {MAX_LOCAL_POSITIONS}; "
                "give them as an image or a grid of at most 8 channels"
            )
        check_channels(task)

    def pooled_text(self, inputs: TaskInputs, tokens: nn.Embedding) -> torch.Tensor:
        """Mean over the texts' tokens, [n, d]; zeros where a task has no text."""
        keys = text_keys(inputs.task)
        if not keys:
            return torch.zeros(inputs.count, self.width, device=inputs.action.device)
        ids = torch.cat([inputs.texts[key] for key in keys], dim=1)
        present = (ids >= 0)[..., None].to(tokens.weight.dtype)
        place = ((ids >= 0).cumsum(1) - 1).clamp(min=0)  # whatever padding lies between two texts
        # Position gates the token, so that the pooled text keeps the order of words.
        x = tokens(ids.clamp(min=0)) * math.sqrt(self.width)
        x = x * (1.0 + self.text_positions(place))
        x = (self.text_mix(x) + x) * present
        return x.sum(1) / present.sum(1).clamp(min=1.0)

    def mask(self, inputs: TaskInputs) -> torch.Tensor:
        """Which positions of a crop's observations hold something, bool [n, positions]: here all."""
        return torch.ones(inputs.count, self.positions(inputs.task), dtype=torch.bool)

    def forward(self, inputs: TaskInputs, tokens: nn.Embedding) -> torch.Tensor:
        """Embeddings [n, C, positions, d]; ``tokens`` is the agent's one table of ids."""
        count, steps = inputs.count, inputs.steps
        text = self.pooled_text(inputs, tokens)
        parts: list[torch.Tensor] = []
        if text_keys(inputs.task):
            parts.append(text[:, None, None].expand(count, steps, 1, self.width))
        remaining: list[tuple[torch.Tensor, ArraySpec]] = []
        for key, spec in inputs.task.observation.items():
            if spec.kind == "text":
                continue
            flat = inputs.arrays[key].flatten(0, 1)
            if spec.kind == "image":
                parts.append(self.image(flat, text).unflatten(0, (count, steps)))
            elif is_grid(spec):
                parts.append(self.grid(flat, text).unflatten(0, (count, steps))[:, :, None])
            else:
                remaining.append((flat, spec))
        if remaining:
            parts.append(self.state(remaining).unflatten(0, (count, steps))[:, :, None])
        parts.append(text.new_zeros(count, steps, 0, self.width))  # a task may observe nothing
        embedded = torch.cat(parts, dim=2)
        place = torch.arange(embedded.shape[2], device=embedded.device)
        return embedded + self.local_positions(place)


def patches_of(spec: ArraySpec) -> int:
    """Number of 16 x 16 patches of an image, its sides padded up."""
    return math.ceil(spec.shape[0] / PATCH) * math.ceil(spec.shape[1] / PATCH)


class PatchEncoder(nn.Module):
    """One ResNet v2 block on each 16 x 16 patch (section 2.2): GroupNorm with 32 groups, GELU.

    The paper leaves channels, stem and pooling open: a 1 x 1 stem to 64 channels, two 3 x 3 convolutions, mean over
    cells of 4 x 4 pixels, and a linear map to d.
    """

    CHANNELS = 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, self.CHANNELS, 1)
        self.block = nn.Sequential(
            nn.GroupNorm(32, self.CHANNELS), nn.GELU(), nn.Conv2d(self.CHANNELS, self.CHANNELS, 3, padding=1),
            nn.GroupNorm(32, self.CHANNELS), nn.GELU(), nn.Conv2d(self.CHANNELS, self.CHANNELS, 3, padding=1),
        )  # fmt: skip
        self.out = nn.Linear(self.CHANNELS * 16, width)
        self.rows = nn.Embedding(POSITION_INTERVALS, width)
        self.columns = nn.Embedding(POSITION_INTERVALS, width)
        for table in (self.rows, self.columns):
            nn.init.normal_(table.weight, std=0.02)

    def interval_index(self, edges: torch.Tensor) -> torch.Tensor:
        """Index of each patch along one axis: uniform within its interval in training, the middle in evaluation.

        ``edges`` int64 [patches + 1] from 0 to 128; the upper end is excluded, so that 128 never occurs.
        """
        low, high = edges[:-1], edges[1:]
        if not self.training:
            return ((low + high) / 2).round().long().clamp(max=POSITION_INTERVALS - 1)
        return low + (torch.rand(low.shape, device=low.device) * (high - low).clamp(min=1)).long()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 [m, height, width, channels] to [m, patches, d], raster order. Sides are padded to multiples of 16."""
        x = pixels(image).expand(-1, 3, -1, -1) / math.sqrt(PATCH)
        x = functional.pad(x, (0, -x.shape[-1] % PATCH, 0, -x.shape[-2] % PATCH))
        high, wide = x.shape[-2] // PATCH, x.shape[-1] // PATCH
        x = x.unflatten(-2, (high, PATCH)).unflatten(-1, (wide, PATCH))  # [m, 3, high, 16, wide, 16]
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        x = self.stem(x)
        x = functional.avg_pool2d(x + self.block(x), 4).flatten(1)
        embedded = self.out(x).unflatten(0, (-1, high, wide))
        edges = [(torch.arange(n + 1, device=x.device) * POSITION_INTERVALS / n).round().long() for n in (high, wide)]
        rows, columns = (self.interval_index(edge) for edge in edges)
        return (embedded + self.rows(rows)[:, None] + self.columns(columns)).flatten(1, 2)


class PerElementEmbedding(nn.Module):
    """Gato: a token for every element, a patch embedding for every 16 x 16 patch, and local positions."""

    def __init__(self, config: AgentConfig) -> None:
        super().__init__()
        self.vocabulary = Vocabulary.of(config)
        self.patches = PatchEncoder(config.width)
        self.local_positions = nn.Embedding(MAX_LOCAL_POSITIONS, config.width)
        nn.init.normal_(self.local_positions.weight, std=0.02)

    def check(self, task: TaskSpec) -> None:
        """Raise ValueError where a task cannot be read."""
        check_channels(task)
        if self.positions(task) > MAX_LOCAL_POSITIONS:
            raise ValueError(
                f"{task.name}: {self.positions(task)} positions in one observation, at most {MAX_LOCAL_POSITIONS} have "
                "a local position; use agent.observation_embedding=fused"
            )

    def positions(self, task: TaskSpec) -> int:
        """Positions of one observation of a task, texts at one token a byte (their longest)."""
        total = len(task.instruction.encode()) if task.instruction is not None else 0
        for spec in task.observation.values():
            if spec.kind == "image":
                total += patches_of(spec)
            else:
                total += spec.max_bytes if spec.kind == "text" else spec.size
        return total

    def mask(self, inputs: TaskInputs) -> torch.Tensor:
        """Which positions of a crop's observations hold something, bool [n, positions]: texts differ in length."""
        count = inputs.count
        valid = [torch.ones(count, 0, dtype=torch.bool, device=inputs.action.device)]  # a task may observe nothing
        if inputs.task.instruction is not None:
            valid.append(inputs.texts[INSTRUCTION] >= 0)
        for key, spec in inputs.task.observation.items():
            if spec.kind == "text":
                valid.append(inputs.texts[key] >= 0)
            else:
                size = patches_of(spec) if spec.kind == "image" else spec.size
                valid.append(torch.ones(count, size, dtype=torch.bool, device=inputs.action.device))
        return torch.cat(valid, dim=1)

    def forward(self, inputs: TaskInputs, tokens: nn.Embedding) -> torch.Tensor:
        """Embeddings [n, C, positions, d]; those outside `mask` mean nothing. ``tokens``: the agent's table of ids."""
        count, steps = inputs.count, inputs.steps
        parts = [tokens.weight.new_zeros(count, steps, 0, tokens.embedding_dim)]

        def text(key: str) -> torch.Tensor:
            return tokens(inputs.texts[key].clamp(min=0))[:, None].expand(-1, steps, -1, -1)

        if inputs.task.instruction is not None:
            parts.append(text(INSTRUCTION))
        for key, spec in inputs.task.observation.items():
            if spec.kind == "text":
                parts.append(text(key))
                continue
            flat = inputs.arrays[key].flatten(0, 1)
            if spec.kind == "image":
                part = self.patches(flat)
            else:
                part = tokens(encode_observation(flat, spec, self.vocabulary).reshape(len(flat), -1))
            parts.append(part.unflatten(0, (count, steps)))
        place = (self.mask(inputs).cumsum(1) - 1).clamp(0, MAX_LOCAL_POSITIONS - 1)
        return torch.cat(parts, dim=2) + self.local_positions(place)[:, None]
