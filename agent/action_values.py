"""`ActionValues`: what each action of a task is worth, as a distribution, read off the state at the separator."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from agent.task import TaskSpec

MOST_ACTIONS = 64
"""Actions of a task up to which all of them are scored at once."""


class ActionValues(nn.Module):
    """Categorical action values (Bellemare et al. 2017), one head for all tasks.

    A task says what its values lie between (`TaskSpec.value_range`); in these units the bins are the same for all, from
    5% below the lowest to 5% above the highest. At first every value is low, about a tenth of the range above the
    lowest: what nobody has tried yet is not to look better than what was.
    """

    MARGIN = 0.05
    FIRST_SPREAD = 0.1
    """The first distribution of a value falls by e over this share of the range."""

    def __init__(self, width: int, bins: int) -> None:
        super().__init__()
        self.state = nn.Linear(width, width)
        self.actions = nn.Embedding(MOST_ACTIONS, 2 * width)
        nn.init.normal_(self.actions.weight, std=0.5)
        self.out = nn.Linear(width, bins)
        self.register_buffer("centres", torch.linspace(-self.MARGIN, 1 + self.MARGIN, bins), persistent=False)
        self.centres: torch.Tensor
        with torch.no_grad():
            self.out.weight.mul_(0.1)
            self.out.bias.copy_(-self.centres.abs() / self.FIRST_SPREAD)

    def forward(self, hidden: torch.Tensor, actions: int) -> torch.Tensor:
        """Scores of the bins [..., A, bins] at states ``hidden`` [..., d] for the first A actions.

        Actions scale and shift what is known of the state; they have embeddings of their own, so that their values
        differ before the policy, which has those of the vocabulary, tells them apart.
        """
        scale, shift = self.actions.weight[:actions].to(hidden.dtype).chunk(2, dim=-1)
        mixed = self.state(hidden)[..., None, :] * (1 + scale) + shift
        scores: torch.Tensor = self.out(functional.gelu(mixed))
        return scores

    def expected(self, scores: torch.Tensor) -> torch.Tensor:
        """Mean value of each distribution, in units of the task's range."""
        return scores.float().softmax(-1) @ self.centres

    def two_hot(self, value: torch.Tensor) -> torch.Tensor:
        """The distribution over the two nearest bins whose mean is ``value`` (in units), [..., bins].

        What lies outside is moved to the outermost bin.
        """
        bins = len(self.centres)
        place = (value - self.centres[0]) / (self.centres[1] - self.centres[0])
        place = place.clamp(0, bins - 1)
        below = place.floor().long().clamp(max=bins - 2)
        upper = (place - below)[..., None]
        return functional.one_hot(below, bins) * (1 - upper) + functional.one_hot(below + 1, bins) * upper


def check_action_values(task: TaskSpec) -> None:
    """Raise ValueError where the values of a task's actions cannot be learned."""
    if task.action.kind != "discrete" or task.action_tokens != 1 or task.action.num_values > MOST_ACTIONS:
        raise ValueError(
            f"{task.name}: action values need an action of one token with at most {MOST_ACTIONS} values; use "
            "learner.objective=imitation"
        )
    if task.value_range is None:
        raise ValueError(
            f"{task.name} has no value_range, which learner.objective=advantage_filtered needs: the lowest and highest "
            "discounted return, as in actors.NAME.value_range=[0,100]"
        )
