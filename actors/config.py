"""`ActorConfig`: one task of a run, and how it is acted in, demonstrated and evaluated. One YAML file each."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from omegaconf import MISSING

from actors.redaction import refuse_secrets
from agent.config import DecodingConfig
from agent.task import LEARNER_SETTINGS

LADDERS = ("temperature", "top_p", "kappa")


@dataclasses.dataclass
class ActorConfig:
    """How one task is played. Plain types only: OmegaConf holds it as a structured config.

    Attributes:
        task: ``domain/name``. The domain chooses the adapter, unless ``entry_point`` is given.
        entry_point: ``module:function`` that returns a `gymnasium.Env`; taken only from the user's own configuration.
        arguments: keyword arguments for the adapter.
        num_actors: environment actor processes.
        envs_per_actor: environments in each of them.
        context_steps: timesteps the agent reads, in training and at acting alike.
        return_horizon: steps after a window's last step that its reward column runs on.
        ends_counted: whether a termination in these steps counts for the critic of
            ``learner.objective=advantage_filtered``; false where demonstrations are often wrong and it is soon right.
        random_return, reference_return: fixed returns that the normalised score maps to 0 and 1.
        return_range: lowest and highest return to come that a return token tells apart, which ``agent.returns`` needs:
            of a whole episode, or of ``return_horizon`` steps where that is above 0.
        value_range: lowest and highest return to come when it is discounted, which
            ``learner.objective=advantage_filtered`` needs.
        discount: of what comes a step later, there; null: ``learner.discount``. A task of few steps, whose goal should
            be reached soon, wants a lower one than a task of many.
        value_temperature: as ``learner.value_temperature``; null leaves it as it is.
        imitation_share, imitation_weighting, critic_gradient, entropy_floor, prior_weight, calibration: as in
            ``learner``, which null leaves as they are: the first is high where demonstrations are better than what a
            critic can tell of them soon, the second where some of them are good and some are not, the third low where
            observations are pictures, and the last two keep a policy from following a critic that is often wrong.
        weight: share of a batch, relative to the other tasks of the run.
        online_share: of this task's share, the part asked from online (good) windows, 0 to 1.
        objectives: by which objective windows of ``demonstrations`` and the run's ``own`` are learned from, where not
            by ``learner.objective``, which must know them: ``advantage_filtered`` knows all three, and
            ``return_conditioned`` knows ``imitation``. Demonstrations alone can be imitated.
        online_share_end: what ``online_share`` has become after ``learner.steps`` updates, evenly; null: it stays.
        demonstrations: a set of demonstrations: a folder, or the name of a shipped set.
        demonstrations_filter: keep only those whose return reaches this share of the expert's, above 0 to 1 (Gato: 0.8,
            see `actors.demonstrations.selection`); null keeps all. Scores are still relative to the whole set.
        demonstrations_top: of those, keep so many with the highest returns; null keeps all.
        num_replayers: processes that write the set into replay, each its own share of the episodes.
        expert: the expert that ``clowder record`` takes unless told otherwise.
        action_temperature: of environment actors.
        ladder: ``temperature``, ``top_p`` or ``kappa`` to two numbers, that of the first and that of the last of
            ``num_actors``; those between have evenly spaced ones, so that each explores differently.
        acting_returns, return_target: what environment actors ask for, see `agent.config.DecodingConfig.returns`; needs
            ``agent.returns``.
        acting_prompt: ``none``, or ``best``: environment actors read the beginning of the best of their newest 64
            episodes before their own (as trained with ``learner.prompt_share``).
        evaluation_episodes: episodes of one evaluation.
    """

    task: str = MISSING
    entry_point: str | None = None
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    num_actors: int = 1
    envs_per_actor: int = 8
    context_steps: int = 8
    return_horizon: int = 0
    ends_counted: bool = True
    random_return: float | None = None
    reference_return: float | None = None
    return_range: list[float] | None = None
    value_range: list[float] | None = None
    discount: float | None = None
    value_temperature: float | None = None
    imitation_share: float | None = None
    imitation_weighting: float | None = None
    critic_gradient: float | None = None
    entropy_floor: float | None = None
    prior_weight: float | None = None
    calibration: float | None = None
    weight: float = 1.0
    online_share: float = 0.25
    online_share_end: float | None = None
    objectives: dict[str, str] = dataclasses.field(default_factory=dict)
    demonstrations: str | None = None
    demonstrations_filter: float | None = None
    demonstrations_top: int | None = None
    num_replayers: int = 1
    expert: str | None = None
    action_temperature: float = 1.0
    ladder: dict[str, Any] = dataclasses.field(default_factory=dict)
    acting_returns: str = "none"
    return_target: float = 0.0
    acting_prompt: str = "none"
    evaluation_episodes: int = 20


def acting_decoding(config: ActorConfig, number: int, evaluated: DecodingConfig) -> DecodingConfig:
    """How environment actor ``number`` of a task, from 0, chooses actions; it reads the past as evaluation does.

    Raises:
        ValueError: a ladder that there is not, that is not of two numbers, or of kappa where no return is tilted.
    """
    how = "sample" if config.action_temperature > 0 else "greedy"
    values = {"temperature": config.action_temperature or 1.0, "top_p": 1.0, "kappa": DecodingConfig.kappa}
    place = number / (config.num_actors - 1) if config.num_actors > 1 else 0.0
    for key, ends in config.ladder.items():
        numbers = isinstance(ends, list) and len(ends) == 2 and all(type(end) in (int, float) for end in ends)
        if key not in LADDERS or not numbers:
            raise ValueError(f"a ladder is one of {', '.join(LADDERS)} with two numbers, not {key}: {ends}")
        if key == "kappa" and config.acting_returns != "tilted":
            raise ValueError(f"ladder.kappa needs acting_returns=tilted, not {config.acting_returns}")
        values[key] = ends[0] + place * (ends[1] - ends[0])
    return DecodingConfig(
        discrete=how,
        continuous=how,
        text=how,
        temperature=values["temperature"],
        top_p=values["top_p"],
        kappa=values["kappa"],
        returns=config.acting_returns,
        return_target=config.return_target,
        context=evaluated.context,
        kept=evaluated.kept,
        past_actions=evaluated.past_actions,
    )


def check_actor_config(config: ActorConfig, name: str) -> None:
    """Raise ValueError naming ``actors.<name>.<key>`` and what is allowed, where a value cannot work."""

    def refuse(key: str, rule: str) -> None:
        raise ValueError(f"actors.{name}.{key} {rule}, not {getattr(config, key)!r}")

    if config.task.count("/") != 1 or not all(config.task.split("/")):
        refuse("task", "has the form domain/name, for example dm_control/cartpole-swingup")
    if config.entry_point is not None and (
        config.entry_point.count(":") != 1 or not all(config.entry_point.split(":"))
    ):
        refuse("entry_point", "has the form module:function")
    least = {"num_actors": 0, "envs_per_actor": 1, "context_steps": 1, "evaluation_episodes": 0, "num_replayers": 1}
    for key, lowest in least.items():
        if getattr(config, key) < lowest:
            refuse(key, f"must be at least {lowest}")
    if config.demonstrations_filter is not None and not 0 < config.demonstrations_filter <= 1:
        refuse("demonstrations_filter", "must be above 0 and at most 1, or null to keep all demonstrations")
    if config.demonstrations_top is not None and config.demonstrations_top < 1:
        refuse("demonstrations_top", "must be at least 1, or null to keep all demonstrations")
    if config.demonstrations is None:
        for key in ("demonstrations_filter", "demonstrations_top"):
            if getattr(config, key) is not None:
                refuse(key, "needs demonstrations, of which there are none; it must be null")
    refuse_secrets(config.arguments, f"actors.{name}.arguments")
    if config.acting_prompt not in ("none", "best"):
        refuse("acting_prompt", "is none or best")
    if config.acting_prompt == "best" and config.context_steps < 2:
        refuse("acting_prompt", f"must be none: a context of {config.context_steps} timestep has no room for a prompt")
    if config.return_horizon < 0:
        refuse("return_horizon", "must be at least 0")
    if not config.ends_counted and config.return_horizon == 0:
        refuse(
            "ends_counted", "is of what comes after a window, which return_horizon above 0 has counted; leave it out"
        )
    if not (config.weight > 0 and math.isfinite(config.weight)):
        refuse("weight", "must be a positive number")
    if not 0 <= config.online_share <= 1:
        refuse("online_share", "must be between 0 and 1")
    if config.online_share_end is not None and not 0 <= config.online_share_end <= 1:
        refuse("online_share_end", "must be between 0 and 1, or null where the share stays as it is")
    if not (config.action_temperature >= 0 and math.isfinite(config.action_temperature)):
        refuse("action_temperature", "must be at least 0")
    for number in (0, config.num_actors - 1):
        try:
            acting_decoding(config, max(0, number), DecodingConfig()).validate(f"actors.{name}.ladder")
        except ValueError as error:
            raise ValueError(f"actors.{name}: {error}") from None
    for key in ("random_return", "reference_return"):
        value = getattr(config, key)
        if value is not None and not math.isfinite(value):
            refuse(key, "must be finite, or null where unknown")
    for key in LEARNER_SETTINGS:
        own = getattr(config, key)
        if own is not None and not 0 <= own <= 1:
            refuse(key, f"must be between 0 and 1, or null for learner.{key}")
    for key in ("return_range", "value_range"):
        given = getattr(config, key)
        if given is not None and (len(given) != 2 or not -math.inf < given[0] < given[1] < math.inf):
            refuse(key, "must be two finite numbers, the lower first, or null")
    if config.random_return is not None and config.random_return == config.reference_return:
        refuse("reference_return", "must differ from random_return")
