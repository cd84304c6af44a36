"""What can be known before any process starts: the model reads the tasks, and the machine has what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from distributed.errors import ConfigError, refusing
from distributed.plan import RunPlan

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.task import TaskSpec
    from distributed.config import TrainConfig


def check_run(plan: RunPlan) -> None:
    """Raise ClowderError where a run would fail for a reason that is plain already."""
    from learner.learner import pick_device
    from replay.listen_address import port_is_free
    from replay.tables import table_configs

    config = plan.config
    with refusing(""):
        pick_device(config.learner.device)
        table_configs(plan.specs, config.replay)
    for name in config.actors:
        check_shares(config, name)
    agent = model_of(plan)
    for name, task in plan.tasks.items():
        least = context_tokens(agent, task)
        if least > config.learner.tokens_per_row:
            raise ConfigError(
                f"actors.{name}: {task.context_steps} steps of context are at least {least} tokens, above "
                f"learner.tokens_per_row ({config.learner.tokens_per_row}); raise that, or lower the context_steps"
            )
    with refusing(""):
        free = port_is_free(config.replay.host, config.replay.port)
    if not free:
        raise ConfigError(
            f"replay.port={config.replay.port} on {config.replay.host} is in use; stop what listens there, or set "
            "replay.port=0 to take a free one"
        )


def check_start(plan: RunPlan) -> None:
    """Raise ClowderError where the weights that ``start_from`` names are not those of the run's model."""
    from agent.weights import fitting_weights

    if plan.config.start_from is not None:
        with refusing("start_from"):
            fitting_weights(model_of(plan), Path(plan.config.start_from))


def check_shares(config: TrainConfig, name: str) -> None:
    """Raise ConfigError where a task would have nothing to learn from, at the first update or at the last."""
    actor = config.actors[name]
    shares = (actor.online_share, actor.online_share if actor.online_share_end is None else actor.online_share_end)
    for share in shares:
        own = share if actor.num_actors > 0 else 0.0
        if own + (1.0 - share if actor.demonstrations is not None else 0.0) == 0:
            raise ConfigError(
                f"actors.{name}: nothing would be learned from where the online_share is {share:g}: it has "
                f"{actor.num_actors} actors and {'no' if actor.demonstrations is None else 'its'} demonstrations; "
                "change online_share or online_share_end, num_actors or demonstrations"
            )


def model_of(plan: RunPlan) -> Agent:
    """The model without memory for its weights; ClowderError where it cannot be built or cannot read a task."""
    import torch

    from agent.agent import Agent

    with refusing("model"), torch.device("meta"):
        return Agent(plan.config.agent, plan.specs)


def context_tokens(agent: Agent, task: TaskSpec) -> int:
    """Fewest positions that a full context of a task takes: with the shortest texts, since theirs are not known yet."""
    import torch

    from agent.inputs import TaskInputs, encode_texts

    steps = task.context_steps
    arrays = {key: spec for key, spec in task.observation.items() if spec.kind != "text"}
    texts = [{key: "" for key in task.observation if key not in arrays}]
    inputs = TaskInputs(
        task,
        {key: torch.zeros(1, steps, *spec.shape) for key, spec in arrays.items()},
        encode_texts(task, texts, agent.text),
        torch.zeros(1, steps, 1 if task.says_text else task.action_tokens),
        torch.zeros(1, dtype=torch.bool),
        torch.full((1,), steps),
    )
    return int(agent.valid_positions(inputs).sum())
