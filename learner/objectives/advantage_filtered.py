"""Improvement: the policy moves towards what a critic says is better, and stays near where it was.

The critic reads the same forward pass as the policy. With the moving averages pi', q' and v' of the agent (of all its
weights, not of heads alone), and pi'_T, which is pi' at temperature ``value_temperature``:

- **Critic**: cross-entropy of a Gaussian around a target G_t against the distribution of q(s_t, a_t), as PAC has it
  (Springenberg et al. 2024, section 3). G_t = r_t + g (v'(s_{t+1}) + c_{t+1} (G_{t+1} - q'(s_{t+1}, a_{t+1}))) with
  c = lambda min(1, pi'_T(a|s) / mu(a|s)), mu being the policy that acted (Munos et al. 2016, "Retrace", equation 4).
  Where mu is not known, as of demonstrations, what was done is followed (c = lambda; Peng's Q(lambda), Kozuno et al.
  2021): with tree backup, c = lambda pi'_T(a|s), values of long tasks took thousands of updates to rise. A
  termination ends the sum, a time limit does not: its last step has no target, since no later state is in the crop. So
  has every crop's, but of a task with a ``return_horizon``: there the rewards that came in so many steps after the crop
  stand for the value of the state after it (Mnih et al. 2016, section 4: n-step returns; here without a bootstrap). A
  crop of few steps says little of what an action leads to, and where states are hard to read, as in pictures, their
  values say less.
- **Advantages** A(s, a) = q'(s, a) - sum_b pi'(b|s) q'(s, b), and for the action that was taken in part
  (``outcome_share``) what came of it: its value is moved from q'(s, a) towards G_t. The critic is smooth and cannot
  tell what small differences add up to; outcomes do, with noise. sigma is the running root mean square of A, a task's
  own, so that rewards of any scale move the policy as far; it has a floor, or noise would move it where nothing
  matters. ``calibration`` shrinks A to what it has been good for: the running slope, from 0 to 1, of
  G_t - sum_b pi'(b|s) q'(s, b) on q'(s, a) - sum_b pi'(b|s) q'(s, b), without which noise moves the policy as far as
  knowledge does.
- **Imitation** of what was done, which believes the critic at most about what was tried. Texts have no values and are
  imitated, and so are demonstrations whose rewards are not known.
- ``critic_gradient`` of the critic's gradient reaches what it shares with the policy. Of pictures a critic knows
  nothing for long, and its noise keeps the policy from learning to read them; of few numbers it learns more than the
  policy does.
- **Exploration**: where the mean entropy of a task's policy is below ``entropy_floor`` of the most it can be, a
  multiplier of its entropy grows, and shrinks where it is above (Zheng et al. 2022, section 3.3, by exact entropies).
  The mean is over the run's own steps, where a batch has any: on demonstrations, imitation keeps the policy as wide as
  those who made them, whatever it does by itself.

Where an action is one token of few values, all of them are weighed exactly: v' = sum_a pi'_T(a|s) q'(s, a). On
demonstrations, ``imitation_share`` of the policy's loss (PAC's alpha) is imitation with weight exp(w clip(A / sigma,
-3, 3)), w being ``imitation_weighting``; the rest of it, and all of it on the run's own steps, is the cross-entropy of
pi_better(a|s) ~ pi'(a|s)^m exp(clip(A(s, a) / sigma, -c, c)) against pi, at every state, whatever action was taken
there (Hessel et al. 2021, "Muesli", equation 5: CMPO). Clipping bounds how far it moves. m is the ``prior_weight``:
below 1 what is not found better again and again fades to all actions alike, and with it the errors of the critic, which
a policy adds up where actions hardly differ (Vieillard et al. 2020, "Leverage the Average": a penalty on entropy beside
the one on change). The run's own actions are not imitated: they were drawn more sharply than the policy is
(``action_temperature``), and would only sharpen it.

Actions of several tokens are too many for that. There v is a distribution of its own, an ``expectile`` of q'(s, a) over
what was done (Kostrikov et al. 2021, "IQL", equation 5), so that no action is weighed that nobody took, and all of the
policy's loss is imitation with weight exp(clip(A / sigma, -3, 3)) (Nair et al. 2020, "AWAC", equation 13). A label that
differs from what was done has weight 1.

Objectives mix per window. In a model with return tokens (``agent.returns=masked``), the windows that are told their
return to come, all but ``return_dropout`` of them, learn as `learner.objectives.return_conditioned` has it, and the
others as above: a critic that reads what will come has nothing to learn.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping

import torch
from torch.nn import functional

from agent.action_values import check_action_values, weighed_at_once
from agent.agent import Agent
from agent.task import TaskSpec
from learner.batch import Batch, Steps, Targets, packed_hidden
from learner.config import LearnerConfig
from learner.objectives.imitation import cross_entropy, row_weights
from learner.objectives.objective import LossAndRecord

WEIGHT_CLIP = 3.0
"""Of the logarithm of the weight of what was done."""
SCALE_RATE = 0.01
"""Of the running mean square of advantages."""
MULTIPLIER_RATE = 0.01
MOST_MULTIPLIER = 1.0
LEAST_TEMPERATURE = 0.01
"""Of values; stands for 0, which is greedy."""


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the averages say of one task's timesteps, without gradients. Values are in units of the task's range.

    Attributes:
        value: of states, float32 [n, C].
        mean: what advantages are advantages to, [n, C]: the worth of what pi' does; ``value`` where actions are not all
            weighed.
        chosen: of the actions that were taken there, [n, C].
        log_likelihood: of these actions under pi'_T, [n, C].
        prior, worth: log pi' and values of all actions, [n, C, A]; None where they are not all weighed.
    """

    value: torch.Tensor
    mean: torch.Tensor
    chosen: torch.Tensor
    log_likelihood: torch.Tensor
    prior: torch.Tensor | None = None
    worth: torch.Tensor | None = None


class AdvantageFiltered:
    """See the module; an `Objective`.

    Args:
        agent: with ``agent.value_bins``; its tasks must have a ``value_range``, or texts as actions.
        config: of the learner.

    Raises:
        ValueError: the agent or a task is not made for it.
    """

    varied_lengths = True
    """The last step of a crop has no target unless its episode ends there. Were all of one length, that place would
    learn from ends alone, and each target be built on it."""

    def __init__(self, agent: Agent, config: LearnerConfig) -> None:
        if agent.action_values is None or agent.config.returns == "visible":
            raise ValueError(
                "learner.objective=advantage_filtered needs agent.value_bins, and agent.returns=off or masked"
            )
        for task in agent.tasks.values():
            check_action_values(task)
        self.config = config
        self.target = copy.deepcopy(agent).requires_grad_(False).eval()
        self.mean_square: dict[str, torch.Tensor] = {}
        self.agreement: dict[str, torch.Tensor] = {}  # by task: of advantages with outcomes, and with themselves, [2]
        self.multiplier = {
            name: torch.zeros((), device=agent.device) for name, task in agent.tasks.items() if not task.says_text
        }

    def loss(self, agent: Agent, batch: Batch) -> LossAndRecord:
        """Of the policy and of the critic, every window weighing the same.

        So the steps of short windows count for more, those before an episode's end, where there is most to learn: with
        every step weighing the same, an earlier critic did not learn CartPole-v1 in as many updates.
        """
        with torch.no_grad():
            before = packed_hidden(self.target, batch)
        hidden = packed_hidden(agent, batch)
        total = hidden.new_zeros((), dtype=torch.float32)
        window_loss = torch.zeros(batch.windows, device=hidden.device)
        record: dict[str, torch.Tensor] = {}
        losses: dict[str, list[torch.Tensor]] = {"policy": [], "critic": []}
        for steps in batch.steps:
            policy, critic, entropy = self._of_task(agent, hidden, before, steps, record)
            of_window = policy.sum(1) / (steps.position[..., 0] >= 0).sum(1).clamp(min=1)
            window_loss.index_add_(0, steps.window, of_window.detach())
            multiplier = self.multiplier[steps.task.name]
            total = total + of_window.sum() / batch.windows - multiplier * entropy * len(policy) / batch.windows
            total = total + self.config.critic_weight * critic.sum() / batch.windows
            losses["policy"].append(of_window.detach())
            losses["critic"].append(critic.detach())
        for targets in batch.targets:
            if targets.kind in ("text", "return", "reward") and len(targets.id):
                nats = cross_entropy(agent.logits(hidden[targets.position], targets.legal), targets, self.config)
                weighted = nats * row_weights(targets, batch.windows)
                window_loss.index_add_(0, targets.window, weighted.detach() * batch.windows)
                total = total + weighted.sum()
                losses.setdefault(targets.task if targets.kind == "text" else targets.kind, []).append(nats.detach())
        record |= {f"loss/{name}": torch.cat(values).mean() for name, values in losses.items() if values}
        record["loss"] = total.detach()
        record["window_loss"] = window_loss
        return total, record

    def _of_task(
        self, agent: Agent, hidden: torch.Tensor, before: torch.Tensor, steps: Steps, record: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of the policy [n, C] and of the critic [n], and the entropy that has a floor, a share of the most."""
        config, name, count = self.config, steps.task.name, steps.legal.count
        valid = steps.position[..., 0] >= 0
        places = steps.position.clamp(min=0)
        learned = valid & (steps.rewarded & ~steps.said)[:, None]
        action = steps.action.clamp(0, count - 1)
        with torch.no_grad():
            judged = self._judge(before, places, action, steps)
            target, known = self._targets(steps, judged, valid)
            known = known & learned
            surprise = torch.where(known, config.outcome_share * (target - judged.chosen), 0.0)
            judgement = torch.where(known, judged.chosen - judged.mean, 0.0)
            products = torch.stack([judgement * (target - judged.mean), judgement.square()]).sum((1, 2))
            slope = self._slope(name, products / known.sum().clamp(min=1))
            believed = 1.0 + self._setting(steps.task, "calibration") * (slope.nan_to_num(0.0).clamp(0.0, 1.0) - 1.0)
            gain = judged.chosen + surprise - judged.mean  # of what was done
            square = gain.square()
            if judged.prior is not None and judged.worth is not None:
                likelihood = judged.prior.exp()
                advantage = judged.worth - judged.mean[..., None]
                advantage = advantage.scatter_add(2, action, surprise[..., None])
                advantage = advantage - likelihood.gather(2, action) * surprise[..., None]
                gain = advantage.gather(2, action)[..., 0]
                square = (likelihood * advantage.square()).sum(-1)
            scale = self._scale(name, square[learned])
            better_than_mean = gain > 0
            gain = believed * gain / scale
        log_policy = agent.logits(hidden[places], steps.legal).float().log_softmax(-1)  # [n, C, elements, A]
        nats = self._imitated(log_policy, steps) * steps.labelled
        values, seen = agent.values_of(steps.task), hidden[places[..., 0]]
        seen = seen.detach().lerp(seen, self._setting(steps.task, "critic_gradient"))
        if judged.prior is not None:
            bounded = (believed * advantage / scale).clamp(-config.advantage_clip, config.advantage_clip)
            better = (self._setting(steps.task, "prior_weight") * judged.prior + bounded).softmax(-1)
            towards = -(better * log_policy[:, :, 0]).sum(-1)
            share = torch.where(steps.log_prob.isfinite(), 0.0, self._setting(steps.task, "imitation_share"))
            weight = self._setting(steps.task, "imitation_weighting") * gain.clamp(-WEIGHT_CLIP, WEIGHT_CLIP)
            weight = torch.where((steps.label == steps.action).all(-1), weight.exp(), 1.0)
            policy = torch.where(learned, share * weight * nats + (1.0 - share) * towards, nats)
            of_action = values(seen).float()
            chosen = action[..., None].expand(-1, -1, 1, of_action.shape[-1])
            critic = -(values.soft(target) * of_action.gather(2, chosen)[:, :, 0].log_softmax(-1)).sum(-1)
        else:
            weight = gain.clamp(-WEIGHT_CLIP, WEIGHT_CLIP).exp()
            policy = torch.where(learned & (steps.label == steps.action).all(-1), weight * nats, nats)
            scores = values.of_taken(seen, action, count).float().log_softmax(-1)
            critic = -(values.soft(target) * scores).sum(-1)
            above = torch.where(judged.chosen >= judged.value, config.expectile, 1.0 - config.expectile)
            of_state = values.of_state(seen).float().log_softmax(-1)
            critic = critic - 2.0 * above * (values.soft(judged.chosen) * of_state).sum(-1)
        policy = policy * valid
        critic = torch.where(known, critic, 0.0).sum(1) / known.sum(1).clamp(min=1)

        steps_in_all = valid.sum().clamp(min=1)
        of_step = -(log_policy.exp() * log_policy).sum(-1).mean(-1) / math.log(max(2, count))
        own = valid & steps.log_prob.isfinite()
        counted = torch.where(own.any(), own, valid)
        entropy = (of_step * counted).sum() / counted.sum().clamp(min=1)
        with torch.no_grad():
            assert steps.task.value_range is not None  # checked when this was made
            low, high = steps.task.value_range
            moved = MULTIPLIER_RATE * (self._setting(steps.task, "entropy_floor") - entropy.detach())
            multiplier = (self.multiplier[name] + moved.nan_to_num()).clamp(0.0, MOST_MULTIPLIER)
            self.multiplier[name] = multiplier
            record[f"entropy/{name}"] = (of_step * valid).sum() / steps_in_all
            record[f"own_entropy/{name}"] = entropy.detach()
            record[f"entropy_multiplier/{name}"] = multiplier
            record[f"advantage_scale/{name}"] = scale * (high - low)
            record[f"advantage_slope/{name}"] = slope
            record[f"accepted/{name}"] = (better_than_mean & learned).sum() / learned.sum().clamp(min=1)
            record[f"value/{name}"] = low + (judged.value * valid).sum() / steps_in_all * (high - low)
            outside = (target - 0.5).abs() > 0.55
            record[f"value_outside/{name}"] = (outside & known).sum() / known.sum().clamp(min=1)
            record[f"loss/{name}"] = nats.sum() / steps.labelled.sum().clamp(min=1)
        return policy, critic, entropy

    def _setting(self, task: TaskSpec, key: str) -> float:
        """A setting of the task's own, else the learner's."""
        own = getattr(task, key)
        return float(getattr(self.config, key) if own is None else own)

    def _judge(self, before: torch.Tensor, places: torch.Tensor, action: torch.Tensor, steps: Steps) -> Judged:
        former, at = self.target.values_of(steps.task), before[places[..., 0]]
        prior = self.target.logits(before[places], steps.legal).float().log_softmax(-1)  # [n, C, elements, A]
        temperature = max(self._setting(steps.task, "value_temperature"), LEAST_TEMPERATURE)
        followed = (prior / temperature).log_softmax(-1)
        log_likelihood = followed.gather(3, action[..., None])[..., 0].sum(-1)
        if not weighed_at_once(steps.task):
            chosen = former.expected(former.of_taken(at, action, steps.legal.count))
            value = former.expected(former.of_state(at))
            return Judged(value, value, chosen, log_likelihood)
        prior, followed = prior[:, :, 0], followed[:, :, 0]
        worth = former.expected(former(at))
        value, mean = (followed.exp() * worth).sum(-1), (prior.exp() * worth).sum(-1)
        return Judged(value, mean, worth.gather(2, action)[..., 0], log_likelihood, prior, worth)

    def _targets(self, steps: Steps, judged: Judged, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Targets of the critic and where there are any, [n, C]."""
        assert steps.task.value_range is not None  # checked when this was made
        low, high = steps.task.value_range
        ratio = judged.log_likelihood - steps.log_prob
        follow = torch.where(steps.log_prob.isfinite(), ratio.clamp(max=0.0).exp(), 1.0)
        discount = self._setting(steps.task, "discount")
        powers = discount ** torch.arange(steps.later.shape[1], device=valid.device, dtype=torch.float32)
        later = (steps.later * powers).sum(-1)  # a product of matrices would be autocast
        # In units the lowest value is 0; sums of rewards need the true zero.
        zero = low / (high - low)
        target, known = retrace_targets(
            steps.reward / (high - low),
            steps.terminated,
            valid,
            judged.value + zero,
            judged.chosen + zero,
            self.config.trace * follow,
            later / (high - low) if steps.task.return_horizon else torch.full_like(later, torch.nan),
            discount,
        )
        return target - zero, known

    def _imitated(self, log_policy: torch.Tensor, steps: Steps) -> torch.Tensor:
        """Cross-entropy of labels, the mean over an action's elements, [n, C]."""
        kind = steps.task.action.kind
        flat = steps.label.flatten()
        targets = Targets(steps.task.name, kind, steps.legal, flat, flat, flat)
        return cross_entropy(log_policy.flatten(0, 2), targets, self.config).view_as(steps.label).mean(-1)

    def _scale(self, task: str, squares: torch.Tensor) -> torch.Tensor:
        """Root mean square of the advantages so far, with its floor."""
        if len(squares):
            newest = squares.mean()
            former = self.mean_square.get(task, newest.nan_to_num())
            moved = former + SCALE_RATE * (newest - former)
            self.mean_square[task] = torch.where(moved.isfinite(), moved, former)
        zero = torch.zeros((), device=squares.device)
        return self.mean_square.get(task, zero).sqrt() + self.config.advantage_floor

    def _slope(self, task: str, products: torch.Tensor) -> torch.Tensor:
        """Of what came of actions on the advantages that the critic gave them, so far: that of one batch is noise. NaN
        or infinite where there were no advantages."""
        former = self.agreement.get(task, torch.zeros_like(products))
        moved = former + SCALE_RATE * (products - former)
        self.agreement[task] = torch.where(moved.isfinite(), moved, former)
        agreed, own = self.agreement[task]
        return agreed / own

    @torch.no_grad()
    def updated(self, agent: Agent) -> None:
        """Move the averages."""
        for own, new in zip(self.target.parameters(), agent.parameters()):
            own.lerp_(new, self.config.target_rate)

    def acting(self, agent: Agent) -> Agent:
        """The averaged weights: those of any one update are noisier, and what they would do next changes with each."""
        return self.target

    def tensors(self, agent: Agent) -> dict[str, torch.Tensor]:
        """The weights that are updated, mean squares and multipliers."""
        return (
            {f"updated/{name}": tensor for name, tensor in agent.state_dict().items()}
            | {f"mean_square/{name}": tensor for name, tensor in self.mean_square.items()}
            | {f"multiplier/{name}": tensor for name, tensor in self.multiplier.items()}
            | {f"agreement/{name}": tensor for name, tensor in self.agreement.items()}
        )

    def restore(self, agent: Agent, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of `tensors`."""
        names = ("updated", "mean_square", "multiplier", "agreement")
        parts: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
        for key, tensor in tensors.items():
            part, _, name = key.partition("/")
            if part not in parts:
                raise ValueError(f"{key} is nothing that learner.objective=advantage_filtered keeps")
            parts[part][name] = tensor.to(self.target.device)
        self.target.load_state_dict(agent.state_dict())
        try:
            agent.load_state_dict(parts["updated"])
        except RuntimeError as error:
            raise ValueError(f"weights of another model: {error}") from None
        self.mean_square = parts["mean_square"]
        self.multiplier |= parts["multiplier"]
        self.agreement = parts["agreement"]


def retrace_targets(
    reward: torch.Tensor,
    terminated: torch.Tensor,
    valid: torch.Tensor,
    value: torch.Tensor,
    chosen: torch.Tensor,
    trace: torch.Tensor,
    later: torch.Tensor,
    discount: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of the values of the actions that were taken, and where there is one, [n, C].

    Args:
        reward, terminated: that followed each action.
        valid: steps that the crop has.
        value, chosen: of each state, and of the action that was taken there.
        trace: weight of what followed that action, against its value.
        later: what came after the last step, discounted to the step after it, [n]; NaN where it is not known.
        discount: of what comes a step later.
    """
    after = functional.pad(valid[:, 1:], (0, 1))
    known = valid & (terminated | after | later.isfinite()[:, None])  # what follows is in the crop, known or an end
    target = torch.zeros_like(reward)
    following = later.nan_to_num()  # value of the next state, corrected by what was done there
    for step in reversed(range(reward.shape[1])):
        goes_on = (known[:, step] & ~terminated[:, step]).to(reward.dtype)
        target[:, step] = reward[:, step] + discount * goes_on * following
        correction = trace[:, step] * (target[:, step] - chosen[:, step])
        corrected = value[:, step] + torch.where(known[:, step], correction, torch.zeros_like(correction))
        following = torch.where(valid[:, step], corrected, following)
    return torch.where(known, target, torch.zeros_like(target)), known
