"""Improvement: the policy moves towards what action values say is better, and stays near where it was.

For tasks whose action is one token of few values, so that all of them can be weighed exactly. With the moving averages
pi' and q' of the agent (of all its weights, not of heads alone), v' = sum_a pi'(a|s) q'(s, a), and the advantage
A(s, a) = q'(s, a) - v'(s):

- **Critic**: cross-entropy of a Gaussian around a target G_t against the distribution of q(s_t, a_t), as PAC has it
  (Springenberg et al. 2024, section 3). G_t = r_t + g (v'(s_{t+1}) + c_{t+1} (G_{t+1} - q'(s_{t+1}, a_{t+1}))) with
  c = lambda min(1, pi'(a|s) / mu(a|s)), mu being the policy that acted (Munos et al. 2016, "Retrace", equation 4), or
  c = lambda pi'(a|s) where it is not known (tree backup): what the present policy would not do is not followed. A
  termination ends the sum, a time limit does not: its last step has no target, since no later state is in the crop. So
  has every crop's.
- **Advantages** are of the critic, and of the action that was taken in part (``outcome_share``) of what came of it: its
  value is moved from q'(s, a) towards G_t. The critic is smooth and cannot tell what small differences add up to;
  outcomes do, with noise.
- **Policy**: cross-entropy of pi_better(a|s) ~ pi'(a|s) exp(clip(A(s, a) / sigma, -c, c)) against pi, at every state,
  whatever action was taken there (Hessel et al. 2021, "Muesli", equation 5: CMPO). sigma is the running root mean
  square of A under pi', a task's own, so that rewards of any scale move the policy as far; it has a floor, or noise
  would move it where nothing matters. Clipping bounds how far it moves, as PAC's alpha does.
- **Imitation**: a share ``imitation_share`` of the policy's loss (PAC's alpha) imitates what was done, with weight
  exp(clip(A / sigma, -3, 3)) (Nair et al. 2020, "AWAC", equation 13), which believes the critic only about what was
  tried; a label that differs from what was done has weight 1, and so has every label where the rewards of a
  demonstration are not known, and there it is all of the loss.
- **Exploration**: where the mean entropy of a task's policy is below ``entropy_floor`` of the most it can be, a
  multiplier of its entropy grows, and shrinks where it is above (Zheng et al. 2022, section 3.3, by exact entropies).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch.nn import functional

from agent.action_values import ActionValues, check_action_values
from agent.agent import Agent
from learner.batch import Batch, Steps, packed_hidden
from learner.config import LearnerConfig
from learner.objectives.objective import LossAndRecord

WEIGHT_CLIP = 3.0
"""Of the logarithm of the weight of what was done."""
SCALE_RATE = 0.01
"""Of the running mean square of advantages."""
MULTIPLIER_RATE = 0.01
MOST_MULTIPLIER = 1.0


class AdvantageFiltered:
    """See the module; an `Objective`.

    Args:
        agent: with ``agent.value_bins``; its tasks must have a ``value_range`` and actions of one token.
        config: of the learner.

    Raises:
        ValueError: the agent or a task is not made for it.
    """

    def __init__(self, agent: Agent, config: LearnerConfig) -> None:
        if agent.action_values is None or agent.config.returns != "off":
            raise ValueError("learner.objective=advantage_filtered needs agent.value_bins and agent.returns=off")
        for task in agent.tasks.values():
            check_action_values(task)
        self.config = config
        self.target = copy.deepcopy(agent).requires_grad_(False).eval()
        self.mean_square: dict[str, torch.Tensor] = {}
        self.multiplier = {name: torch.zeros((), device=agent.device) for name in agent.tasks}

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
            of_window = policy.sum(1) / (steps.position >= 0).sum(1).clamp(min=1)
            window_loss.index_add_(0, steps.window, of_window.detach())
            multiplier = self.multiplier[steps.task.name]
            total = total + of_window.sum() / batch.windows - multiplier * entropy * len(policy) / batch.windows
            total = total + self.config.critic_weight * critic.sum() / batch.windows
            losses["policy"].append(of_window.detach())
            losses["critic"].append(critic.detach())
        record |= {f"loss/{name}": torch.cat(values).mean() for name, values in losses.items()}
        record["loss"] = total.detach()
        record["window_loss"] = window_loss
        return total, record

    def _of_task(
        self, agent: Agent, hidden: torch.Tensor, before: torch.Tensor, steps: Steps, record: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Losses of the policy [n, C] and of the critic [n], and the policy's entropy as a share of the most."""
        task, config = steps.task, self.config
        valid = steps.position >= 0
        place = steps.position.clamp(min=0)
        at = hidden[place]
        values, former = _values(agent), _values(self.target)
        with torch.no_grad():
            prior = self.target.logits(before[place], steps.legal).float().log_softmax(-1)
            worth = former.expected(former(before[place], steps.legal.count))  # [n, C, A]
            value = (prior.exp() * worth).sum(-1)
            advantage = worth - value[..., None]
            learned = valid & steps.rewarded[:, None]
            assert task.value_range is not None  # checked when this was made
            low, high = task.value_range
            action = steps.action.clamp(0, steps.legal.count - 1)[..., None]
            ours = prior.gather(2, action)[:, :, 0].exp()
            theirs = steps.log_prob.exp()
            follow = torch.where(theirs.isfinite(), (ours / theirs.clamp(min=1e-6)).clamp(max=1.0), ours)
            target, known = retrace_targets(
                steps.reward / (high - low),
                steps.terminated,
                valid,
                # In units the lowest value is 0; sums of rewards need the true zero.
                value + low / (high - low),
                worth.gather(2, action)[:, :, 0] + low / (high - low),
                config.trace * follow,
                config.discount,
            )
            target, known = target - low / (high - low), known & learned
            surprise = target - worth.gather(2, action)[:, :, 0]
            surprise = torch.where(known, config.outcome_share * surprise, 0.0)
            advantage = advantage.scatter_add(2, action, surprise[..., None]) - (ours * surprise)[..., None]
            scale = self._scale(task.name, (prior.exp() * advantage.square()).sum(-1)[learned])
            gain = advantage / scale
            better = (prior + gain.clamp(-config.advantage_clip, config.advantage_clip)).softmax(-1)
            weight = gain.gather(2, action)[:, :, 0].clamp(-WEIGHT_CLIP, WEIGHT_CLIP).exp()
            weight = torch.where(learned & (steps.label == steps.action), weight, 1.0)
        log_policy = agent.logits(at, steps.legal).float().log_softmax(-1)
        towards = -(better * log_policy).sum(-1)
        label = functional.nll_loss(log_policy.flatten(0, 1), steps.label.flatten(), reduction="none").view_as(towards)
        share = torch.where(steps.rewarded, config.imitation_share, 1.0)[:, None]
        imitated = torch.where(steps.labelled, share * weight, 0.0)
        improved = torch.where(learned, 1.0 - share, 0.0)
        policy = (improved * towards + imitated * label) * valid

        of_action = values(at, steps.legal.count).float()
        chosen = action[..., None].expand(-1, -1, 1, of_action.shape[-1])
        scores = of_action.gather(2, chosen)[:, :, 0].log_softmax(-1)
        critic = torch.where(known, -(values.soft(target) * scores).sum(-1), 0.0)
        critic = critic.sum(1) / known.sum(1).clamp(min=1)

        count = valid.sum().clamp(min=1)
        entropy = (-(log_policy.exp() * log_policy).sum(-1) * valid).sum() / count
        entropy = entropy / torch.log(torch.tensor(float(max(2, steps.legal.count))))
        with torch.no_grad():
            moved = MULTIPLIER_RATE * (config.entropy_floor - entropy.detach())
            multiplier = (self.multiplier[task.name] + moved.nan_to_num()).clamp(0.0, MOST_MULTIPLIER)
            self.multiplier[task.name] = multiplier
            record[f"entropy/{task.name}"] = entropy.detach()
            record[f"entropy_multiplier/{task.name}"] = multiplier
            record[f"advantage_scale/{task.name}"] = scale * (high - low)
            record[f"value/{task.name}"] = low + (value * valid).sum() / count * (high - low)
            outside = (target - 0.5).abs() > 0.55
            record[f"value_outside/{task.name}"] = (outside & known).sum() / known.sum().clamp(min=1)
            record[f"loss/{task.name}"] = policy.sum() / count
        return policy, critic, entropy

    def _scale(self, task: str, squares: torch.Tensor) -> torch.Tensor:
        """Root mean square of the advantages so far, with its floor."""
        if len(squares):
            newest = squares.mean()
            former = self.mean_square.get(task, newest.nan_to_num())
            moved = former + SCALE_RATE * (newest - former)
            self.mean_square[task] = torch.where(moved.isfinite(), moved, former)
        zero = torch.zeros((), device=squares.device)
        return self.mean_square.get(task, zero).sqrt() + self.config.advantage_floor

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
        )

    def restore(self, agent: Agent, tensors: Mapping[str, torch.Tensor]) -> None:
        """Inverse of `tensors`."""
        parts: dict[str, dict[str, torch.Tensor]] = {"updated": {}, "mean_square": {}, "multiplier": {}}
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


def _values(agent: Agent) -> ActionValues:
    assert agent.action_values is not None
    return agent.action_values


def retrace_targets(
    reward: torch.Tensor,
    terminated: torch.Tensor,
    valid: torch.Tensor,
    value: torch.Tensor,
    chosen: torch.Tensor,
    trace: torch.Tensor,
    discount: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of the values of the actions that were taken, and where there is one, [n, C].

    Args:
        reward, terminated: that followed each action.
        valid: steps that the crop has.
        value, chosen: of each state, and of the action that was taken there.
        trace: weight of what followed that action, against its value.
        discount: of what comes a step later.
    """
    after = functional.pad(valid[:, 1:], (0, 1))
    known = valid & (terminated | after)  # a step with a reward and either a state after it or a termination
    target = torch.zeros_like(reward)
    later = torch.zeros_like(reward[:, 0])  # value of the next state, corrected by what was done there
    for step in reversed(range(reward.shape[1])):
        goes_on = (known[:, step] & ~terminated[:, step]).to(reward.dtype)
        target[:, step] = reward[:, step] + discount * goes_on * later
        correction = trace[:, step] * (target[:, step] - chosen[:, step])
        later = value[:, step] + torch.where(known[:, step], correction, torch.zeros_like(correction))
    return torch.where(known, target, torch.zeros_like(target)), known
