"""`ActionValues`: what actions and states are worth, as distributions, read off the state at the separator.

An action comes in late, as in PAC (Springenberg et al. 2024, section 3.2): it scales and shifts what is known of the
state. So all actions of a task that has few are weighed in one pass, and the value of an action of several tokens does
not depend on whether the model reads its own actions (`learner.past_action_dropout` may hide them).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from agent.task import TaskSpec

MOST_ACTIONS = 64
"""Actions of a task up to which all of them are weighed at once."""


def weighed_at_once(task: TaskSpec) -> bool:
    """Whether a task's action is one token of so few values that all of them are weighed."""
    return task.action.kind == "discrete" and task.action_tokens == 1 and task.action.num_values <= MOST_ACTIONS


class ActionEncoder(nn.Module):
    """Scale and shift of an executed action of several elements; bins of numbers by smooth features, symbols by
    embeddings."""

    FEATURES = 8

    def __init__(self, width: int, task: TaskSpec) -> None:
        super().__init__()
        discrete = task.action.kind == "discrete"
        self.symbols = nn.Embedding(task.action.num_values, self.FEATURES) if discrete else None
        self.elements = nn.Parameter(torch.randn(task.action_tokens * self.FEATURES, 2 * width) * 0.2)

    def forward(self, action: torch.Tensor, values: int) -> torch.Tensor:
        """Actions int64 [..., elements], each element one of ``values``, to [..., 2 d]."""
        if self.symbols is not None:
            x = self.symbols(action)
        else:
            place = action / max(1, values - 1)  # in [0, 1]
            x = torch.cos(torch.pi * place[..., None] * torch.arange(1, self.FEATURES + 1, device=action.device))
        return x.flatten(-2) / action.shape[-1] ** 0.5 @ self.elements


class ActionValues(nn.Module):
    """Categorical action values (Bellemare et al. 2017) of one task.

    A task says what its values lie between (`TaskSpec.value_range`); in these units the bins are the same for all, from
    10% below the lowest to 10% above the highest. At first every value is low, about a tenth of the range above the
    lowest: what nobody has tried yet is not to look better than what was.

    Every task has a head of its own, which only training reads: the policy is one for all tasks, a critic need not be.
    With one head for all, what a task's third action was worth was learned from another's third action too.
    """

    MARGIN = 0.1
    SPREAD = 0.04
    """Standard deviation of a target's distribution, as a share of the range. Of two narrow ones that are apart, the
    average of the logits (which is what averaged weights come to) stays at the older until it is outweighed; that of
    two wide ones lies between."""
    FIRST_SPREAD = 0.1
    """The first distribution of a value falls by e over this share of the range."""

    def __init__(self, width: int, bins: int, task: TaskSpec) -> None:
        super().__init__()
        self.state = nn.Linear(width, width)
        self.out = nn.Linear(width, bins)
        self.register_buffer("centres", torch.linspace(-self.MARGIN, 1 + self.MARGIN, bins), persistent=False)
        self.centres: torch.Tensor
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.copy_(-self.centres.abs() / self.FIRST_SPREAD)
        self.actions: nn.Parameter | None = None
        if weighed_at_once(task):
            self.actions = nn.Parameter(torch.randn(task.action.num_values, 2 * width) * 0.5)
        else:
            self.encoder = ActionEncoder(width, task)
            self.nothing = nn.Parameter(torch.randn(2 * width) * 0.5)  # scale and shift of a state's own value

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores of the bins [..., A, bins] at states ``hidden`` [..., d] of all A actions, where they are so few.

        Actions scale and shift what is known of the state; they have embeddings of their own, so that their values
        differ before the policy, which has those of the vocabulary, tells them apart.
        """
        assert self.actions is not None
        return self._scores(hidden[..., None, :], self.actions)

    def of_taken(self, hidden: torch.Tensor, action: torch.Tensor, values: int) -> torch.Tensor:
        """Scores [..., bins] of actions int64 [..., elements], each element one of ``values``, at states [..., d];
        this and `of_state` are of tasks whose actions are many."""
        return self._scores(hidden, self.encoder(action, values))

    def of_state(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scores [..., bins] of states [..., d] themselves."""
        return self._scores(hidden, self.nothing)

    def _scores(self, hidden: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        scale, shift = action.to(hidden.dtype).chunk(2, dim=-1)
        scores: torch.Tensor = self.out(functional.gelu(self.state(hidden) * (1 + scale) + shift))
        return scores

    def expected(self, scores: torch.Tensor) -> torch.Tensor:
        """Mean value of each distribution, in units of the task's range."""
        return (scores.float().softmax(-1) * self.centres).sum(-1)  # a product of matrices would be autocast

    def soft(self, value: torch.Tensor) -> torch.Tensor:
        """A target's distribution [..., bins]: a Gaussian around ``value`` (in units), cut off at the outermost bins
        (Farebrother et al. 2024, "Stop Regressing", section 3.1: HL-Gauss). Values outside are moved to the edges of
        the range."""
        width = self.centres[1] - self.centres[0]
        edges = torch.cat((self.centres - width / 2, self.centres[-1:] + width / 2))
        below = torch.special.ndtr((edges - value.clamp(0.0, 1.0)[..., None]) / self.SPREAD)
        mass = below.diff(dim=-1)
        return mass / mass.sum(-1, keepdim=True)


def check_action_values(task: TaskSpec) -> None:
    """Raise ValueError where the values of a task's actions cannot be learned; texts have none and are imitated."""
    if task.says_text:
        return
    if task.context_steps < 2 and task.max_episode_steps != 1:
        raise ValueError(
            f"{task.name} has a context of one step, and the value of an action is learned from the step after it: set "
            "actors.NAME.context_steps to at least 2, better 8"
        )
    if task.value_range is None:
        raise ValueError(
            f"{task.name} has no value_range, which learner.objective=advantage_filtered needs: the lowest and highest "
            "discounted return, as in actors.NAME.value_range=[0,100]"
        )
