"""`Agent`: embeddings, transformer and tied output, over any number of tasks with one set of weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from agent.action_values import ActionValues
from agent.config import AgentConfig
from agent.embedding import FusedEmbedding, PerElementEmbedding
from agent.inputs import TaskInputs
from agent.task import TaskSpec
from agent.tokenizer import IdRange, TextTokenizer, Vocabulary, bin_centres, encode_action
from agent.transformer import Transformer

BIN_FREQUENCY = 10.0
"""Standard deviation of the angular frequencies of `smooth_rows`, for values in [-1, 1]."""


def smooth_rows(bins: int, width: int) -> torch.Tensor:
    """First rows of the continuous bins: random Fourier features of their centres, float32 [bins, width].

    Rows of neighbouring bins begin alike (Rahimi & Recht 2007), so that what is learned of one value holds for those
    beside it; independent rows would have to learn the order of 1,024 bins from data. Norms are as of other rows.
    """
    frequency = torch.randn(width) * BIN_FREQUENCY
    phase = torch.rand(width) * 2 * torch.pi
    return torch.cos(bin_centres(bins)[:, None] * frequency + phase) * (2.0 / width) ** 0.5


def parameter_name(name: str) -> str:
    """A task's name as part of that of a parameter, which a dot would divide."""
    return name.replace("%", "%25").replace(".", "%2E")


class Agent(nn.Module):
    """One model for many tasks.

    Raises ValueError where a task cannot be read with these settings.
    """

    def __init__(self, config: AgentConfig, tasks: Sequence[TaskSpec], text: TextTokenizer | None = None) -> None:
        super().__init__()
        config.validate()
        self.config = config
        self.tasks = {task.name: task for task in tasks}
        self.text = text or TextTokenizer.open(config.text_model)
        self.vocabulary = Vocabulary.of(config)
        if self.text.size > config.text_ids:
            raise ValueError(f"agent.text_ids ({config.text_ids}) is below the text model's {self.text.size} pieces")
        self.tokens = nn.Embedding(self.vocabulary.size, config.width)
        nn.init.normal_(self.tokens.weight, std=config.width**-0.5)
        bins = self.vocabulary.continuous
        with torch.no_grad():
            self.tokens.weight[bins.start : bins.stop] = smooth_rows(bins.count, config.width)
        self.separator_position = nn.Parameter(torch.zeros(config.width))
        # All action tokens share one local position (appendix C.3).
        self.action_position = nn.Parameter(torch.zeros(config.width))
        self.return_position = nn.Parameter(torch.zeros(config.width)) if config.returns != "off" else None
        self.observation: FusedEmbedding | PerElementEmbedding
        if config.observation_embedding == "fused":
            self.observation = FusedEmbedding(config)
        else:
            self.observation = PerElementEmbedding(config)
        self.transformer = Transformer(config)
        self.action_values = None
        if config.value_bins:
            self.action_values = nn.ModuleDict(
                {
                    parameter_name(task.name): ActionValues(config.width, config.value_bins, task)
                    for task in tasks
                    if not task.says_text
                }
            )
        for task in tasks:
            self.observation.check(task)
            legal = self.legal(task)
            self.vocabulary.check(task)
            if config.value_bins and task.action.kind == "discrete":
                # No action is preferred at first: chance would be acted on before anything is known of values.
                with torch.no_grad():
                    self.tokens.weight[legal.start : legal.stop] = 0.0
            if config.returns != "off" and task.return_range is None and not task.says_text:
                raise ValueError(f"{task.name} has no return_range, which agent.returns={config.returns} needs")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.tokens.weight.device

    def parameter_count(self, embeddings: bool = True) -> int:
        """Number of parameters; without ``embeddings`` those of the transformer's blocks only."""
        module: nn.Module = self if embeddings else self.transformer
        return sum(parameter.numel() for parameter in module.parameters())

    def values_of(self, task: TaskSpec) -> ActionValues:
        """The critic's head of a task, of an agent with ``value_bins``; its actions are no texts."""
        assert self.action_values is not None
        head = self.action_values[parameter_name(task.name)]
        assert isinstance(head, ActionValues)
        return head

    def legal(self, task: TaskSpec) -> IdRange:
        """Ids that an action of a task may take; ValueError where the vocabulary cannot express it."""
        if not task.says_text:
            return self.vocabulary.legal_actions(task.action)
        _ = self.text.end  # must be there
        return IdRange(self.vocabulary.text.start, self.text.size)

    @property
    def lead(self) -> int:
        """Positions between an observation and its action: return (if any) and separator."""
        return (self.return_position is not None) + 1

    def tail(self, task: TaskSpec) -> int:
        """Positions of a timestep after its observation: return (if any), separator, action."""
        return self.lead + task.action_tokens

    def valid_positions(self, inputs: TaskInputs) -> torch.Tensor:
        """Which positions of the sequence hold something, bool [n, C, positions of a timestep]."""
        mask = self.observation.mask(inputs)
        lead = torch.ones(inputs.count, self.lead, dtype=torch.bool, device=mask.device)
        before = torch.cat((mask, lead), dim=1)[:, None].expand(-1, inputs.steps, -1)
        action = torch.ones(inputs.action.shape, dtype=torch.bool, device=mask.device)
        if inputs.task.says_text:
            action &= (inputs.action >= 0).to(mask.device)
        step_valid = torch.arange(inputs.steps, device=mask.device) < inputs.lengths.to(mask.device)[:, None]
        return torch.cat((before, action), dim=2) & step_valid[..., None]

    def embed_actions(self, inputs: TaskInputs) -> torch.Tensor:
        """Embeddings of the executed actions, [n, C, elements, d].

        Where a crop's actions are hidden, all its action positions carry one reserved id, so that the elements of an
        action are predicted in parallel (as for the paper's real robot, section 2.5).
        """
        if inputs.task.says_text:
            return self.tokens(inputs.action.clamp(min=0) + self.vocabulary.text.start) + self.action_position
        ids = encode_action(inputs.action, inputs.task.action, self.vocabulary)
        ids = torch.where(inputs.hide_actions[:, None, None], self.vocabulary.hidden_action, ids)
        return self.tokens(ids) + self.action_position

    def embed_returns(self, inputs: TaskInputs) -> torch.Tensor:
        """Embeddings of the returns to come, [n, C, 1, d]; no position without `AgentConfig.returns`."""
        if self.return_position is None:
            return torch.zeros(inputs.count, inputs.steps, 0, self.config.width, device=self.device)
        unknown = torch.full((inputs.count, inputs.steps), -1, device=self.device)
        bins = unknown if inputs.returns is None else inputs.returns
        ids = torch.where(bins < 0, self.vocabulary.no_return, self.vocabulary.returns.start + bins)
        return (self.tokens(ids) + self.return_position)[:, :, None]

    def embed_tail(self, inputs: TaskInputs) -> torch.Tensor:
        """Embeddings of what follows the observation, [n, C, tail, d]: return (if any), separator, action elements."""
        separator = self.tokens.weight[self.vocabulary.separator] + self.separator_position
        separator = separator.expand(inputs.count, inputs.steps, 1, -1)
        return torch.cat((self.embed_returns(inputs), separator, self.embed_actions(inputs)), dim=2)

    def embed(self, inputs: TaskInputs) -> torch.Tensor:
        """Embedded sequence [n, C, positions of a timestep, d]: the observation and its tail."""
        observed = self.observation(inputs, self.tokens)
        return torch.cat((observed, self.embed_tail(inputs).to(observed.dtype)), dim=2)

    def logits(self, hidden: torch.Tensor, legal: IdRange) -> torch.Tensor:
        """Scores of the legal ids only, [..., legal.count], by the tied embedding."""
        return hidden @ self.tokens.weight[legal.start : legal.stop].to(hidden.dtype).T


def count_parameters(config: AgentConfig) -> dict[str, int]:
    """Numbers of parameters by part: ``transformer``, ``vocabulary`` and ``encoders``. No weights are made."""
    with torch.device("meta"):
        agent = Agent(config, [])
    transformer = agent.parameter_count(embeddings=False)
    encoders = sum(parameter.numel() for parameter in agent.observation.parameters())
    vocabulary = agent.parameter_count() - transformer - encoders
    return {"transformer": transformer, "vocabulary": vocabulary, "encoders": encoders}
