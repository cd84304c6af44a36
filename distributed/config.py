"""`TrainConfig`: everything one run is told, composed from the dataclasses of each floor."""

from __future__ import annotations

import dataclasses
from typing import Any

from actors.config import ActorConfig, check_actor_config
from actors.redaction import refuse_secrets
from agent.config import AgentConfig, DecodingConfig
from distributed.cluster_config import ClusterConfig, check_cluster_config
from learner.config import CheckpointConfig, LearnerConfig
from replay.config import ReplayConfig


@dataclasses.dataclass
class StopConfig:
    """When a run ends: at the first condition that holds.

    Attributes:
        learner_steps: updates of the learner; 0: all those of ``learner.steps``, over which the learning rate is
            scheduled. (``learner.minutes`` ends training too, by the learner's own clock.)
        wall_minutes: minutes of training, over all resumes; the final evaluation comes after it. 0: no such condition.
        environment_steps: steps of all environment actors together. 0: no such condition.
    """

    learner_steps: int = 0
    wall_minutes: float = 0.0
    environment_steps: int = 0


@dataclasses.dataclass
class EvaluationConfig:
    """Episodes on fixed seeds, while training (monitoring seeds) and at the end (reporting seeds).

    Attributes:
        every_seconds: between monitoring rounds; 0: none. With ``cluster.mode=serial``, which trains and evaluates in
            turn, at least as long as the last round took.
        every_steps: learner steps between them instead; 0: by the clock. Only ``cluster.mode=serial`` evaluates in step
            with its learner.
        episodes: of a monitoring round, per task.
        final_episodes: of the final evaluation, per task; 0: each actor config's ``evaluation_episodes``.
        final_minutes: deadline of the final evaluation, all tasks together.
        num_evaluators: evaluator processes.
        decoding: how the evaluated policy chooses actions.
        videos: whether a video per task is recorded at the end.
        video_steps: longest video in steps.
    """

    every_seconds: float = 60.0
    every_steps: int = 0
    episodes: int = 10
    final_episodes: int = 0
    final_minutes: float = 4.0
    num_evaluators: int = 1
    decoding: DecodingConfig = dataclasses.field(default_factory=DecodingConfig)
    videos: bool = True
    video_steps: int = 500


@dataclasses.dataclass
class LoggingConfig:
    """What the run says of itself.

    Attributes:
        folder: where run folders are made.
        every_seconds: between rows of scalars and refreshes of the console.
        console: ``live``, ``lines``, ``off``, or ``auto``: live on a terminal, else lines.
        level: of the log file: ``debug``, ``info``, ``warning`` or ``error``.
    """

    folder: str = "runs"
    every_seconds: float = 5.0
    console: str = "auto"
    level: str = "info"


@dataclasses.dataclass
class TrainConfig:
    """One run; see ``configs/`` for the presets.

    Attributes:
        seed: of initial weights, batches and environments.
        start_from: run folder, for its newest checkpoint, or folder of one checkpoint, whose weights the learner begins
            with, whatever tasks they were trained on; optimiser, averages and counters begin anew. The model must be
            the same, but for critic and return tokens, which begin afresh where the checkpoint has none.
        actors: by short name, the actor configs.
    """

    name: str = ""
    seed: int = 0
    start_from: str | None = None
    actors: dict[str, ActorConfig] = dataclasses.field(default_factory=dict)
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    learner: LearnerConfig = dataclasses.field(default_factory=LearnerConfig)
    replay: ReplayConfig = dataclasses.field(default_factory=ReplayConfig)
    cluster: ClusterConfig = dataclasses.field(default_factory=ClusterConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    checkpoint: CheckpointConfig = dataclasses.field(default_factory=CheckpointConfig)
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)

    @property
    def last_step(self) -> int:
        """Learner step after which training ends."""
        return self.stop.learner_steps or self.learner.steps

    @property
    def own_source(self) -> str:
        """Table of the run's own windows that the learner draws from: ``online``, or ``good`` where it imitates."""
        return "good" if self.learner.objective == "imitation" else "online"


CHOICES: dict[str, tuple[str, ...]] = {
    "logging.console": ("auto", "live", "lines", "off"),
    "logging.level": ("debug", "info", "warning", "error"),
}
"""Keys that hold one of a few words."""

POSITIVE = (
    "evaluation.final_minutes",
    "evaluation.num_evaluators",
    "checkpoint.every_seconds",
    "checkpoint.keep",
    "checkpoint.deadline_seconds",
    "logging.every_seconds",
)
"""Keys that must be above 0."""

NOT_NEGATIVE = (
    "seed",
    "checkpoint.best",
    "checkpoint.milestone_steps",
    "stop.learner_steps",
    "stop.wall_minutes",
    "stop.environment_steps",
    "evaluation.every_seconds",
    "evaluation.every_steps",
    "evaluation.episodes",
    "evaluation.final_episodes",
)
"""Keys that may be 0."""


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain data, for YAML, JSON and Ray."""
    return dataclasses.asdict(config)


KNOWN_OBJECTIVES = {
    "imitation": {"imitation"},
    "return_conditioned": {"return_conditioned", "imitation"},
    "advantage_filtered": {"advantage_filtered", "return_conditioned", "imitation"},
}
"""By which objectives a window can be learned from, by ``learner.objective``."""


def _check_objectives(config: TrainConfig, name: str, actor: ActorConfig) -> None:
    """Of the windows of one task's sources."""
    known = KNOWN_OBJECTIVES[config.learner.objective]
    for source, objective in actor.objectives.items():
        key = f"actors.{name}.objectives"
        if source not in ("demonstrations", "own"):
            raise ValueError(f"{key} has keys demonstrations and own, not {source!r}")
        if objective not in known:
            raise ValueError(
                f"{key}.{source} must be one that learner.objective={config.learner.objective} knows, "
                f"{', '.join(sorted(known))}, not {objective!r}"
            )
        if source == "own" and objective == "imitation" and config.learner.objective != "imitation":
            raise ValueError(
                f"{key}.own=imitation would repeat what went wrong too: the run's own windows are filtered for "
                "imitation with learner.objective=imitation alone"
            )
        if objective == "return_conditioned" and config.agent.returns == "off":
            raise ValueError(
                f"{key}.{source}=return_conditioned needs a model with return tokens: agent.returns=masked"
            )


def validate(config: TrainConfig) -> None:
    """Raise ValueError, naming the key and what is allowed, where values cannot work or contradict each other."""
    refuse_secrets(to_dict(config), "")
    config.agent.validate()
    config.learner.validate()
    check_cluster_config(config.cluster)
    config.evaluation.decoding.validate("evaluation.decoding")
    if config.learner.past_action_dropout == 1 and config.evaluation.decoding.past_actions != "hidden":
        raise ValueError(
            "learner.past_action_dropout=1 hides past actions from all of training; the policy cannot read them: set "
            "evaluation.decoding.past_actions=hidden"
        )
    if config.learner.objective == "advantage_filtered":
        if config.learner.loss_normalisation != "row":
            raise ValueError(
                "learner.objective=advantage_filtered weighs windows alike: learner.loss_normalisation must be row, "
                f"not {config.learner.loss_normalisation}"
            )
        for name, actor in config.actors.items():
            if actor.num_actors > 0 and actor.action_temperature == 0:
                raise ValueError(
                    f"actors.{name}.action_temperature must be above 0 with learner.objective=advantage_filtered, "
                    "which learns from how likely an action was; 0.1 is nearly greedy"
                )
        if config.agent.value_bins == 0:
            raise ValueError("learner.objective=advantage_filtered needs agent.value_bins above 0; 101 is usual")
        if config.agent.returns == "visible":
            raise ValueError(
                "learner.objective=advantage_filtered needs agent.returns=off or masked: a critic that is told the "
                "return to come sees no advantage in any action"
            )
        if config.agent.returns != "off" and config.learner.return_dropout == 0:
            raise ValueError("learner.return_dropout must be above 0: a critic learns from windows told no return")
    if config.learner.objective == "return_conditioned" and config.agent.returns == "off":
        raise ValueError("learner.objective=return_conditioned needs return tokens: agent.returns=masked or visible")
    floors = {"learner": config.learner.entropy_floor}
    floors |= {f"actors.{name}": actor.entropy_floor or 0.0 for name, actor in config.actors.items()}
    for where, floor in floors.items():
        if floor > 0 and config.learner.objective != "advantage_filtered":
            raise ValueError(
                f"{where}.entropy_floor is held by learner.objective=advantage_filtered alone; it must be 0 with "
                f"{config.learner.objective}"
            )
    prompted = [name for name, actor in config.actors.items() if actor.acting_prompt != "none"]
    if prompted and config.learner.prompt_share == 0 and config.start_from is None:
        raise ValueError(
            f"actors.{prompted[0]}.acting_prompt needs a model that learns to read prompts: set learner.prompt_share, "
            "say to 0.25"
        )
    asking = [name for name, actor in config.actors.items() if actor.acting_returns != "none"]
    if asking and config.agent.returns == "off":
        raise ValueError(f"actors.{asking[0]}.acting_returns needs a model with return tokens: agent.returns=masked")
    for key, allowed in CHOICES.items():
        if (value := _get(config, key)) not in allowed:
            raise ValueError(f"{key} must be one of {', '.join(allowed)}, not {value!r}")
    for key in POSITIVE:
        if not (value := _get(config, key)) > 0:
            raise ValueError(f"{key} must be above 0, not {value}")
    for key in NOT_NEGATIVE:
        if not (value := _get(config, key)) >= 0:
            raise ValueError(f"{key} must not be negative, not {value}")
    if config.evaluation.every_steps and config.cluster.mode != "serial":
        raise ValueError(
            "evaluation.every_steps needs cluster.mode=serial; with processes use evaluation.every_seconds"
        )
    if config.learner.best_share > 0 and config.replay.best_capacity == 0:
        raise ValueError(
            f"learner.best_share={config.learner.best_share:g} needs a table of the best episodes: set "
            "replay.best_capacity, say to 2000 windows"
        )
    if config.stop.learner_steps > config.learner.steps:
        raise ValueError(
            f"stop.learner_steps ({config.stop.learner_steps}) is beyond learner.steps ({config.learner.steps}), where "
            "the learning rate's schedule ends training; raise learner.steps"
        )
    if not config.actors:
        raise ValueError(
            "no tasks: choose an experiment (experiment=quickstart) or actor configs (actors=[cartpole_swingup,boxing])"
        )
    for name, actor in config.actors.items():
        _check_objectives(config, name, actor)
    played: dict[str, str] = {}
    for name, actor in config.actors.items():
        check_actor_config(actor, name)
        if actor.task in played:
            raise ValueError(
                f"actors.{name} and actors.{played[actor.task]} both play {actor.task}; a task has one actor config "
                "(more of it: num_actors, envs_per_actor, weight)"
            )
        played[actor.task] = name
        if actor.context_steps > config.replay.window_length:
            raise ValueError(
                f"actors.{name}.context_steps ({actor.context_steps}) is longer than replay.window_length "
                f"({config.replay.window_length}); make the window longer (a multiple of 16) or the context shorter"
            )
    for source in sorted(
        {config.own_source if actor.demonstrations is None else "demonstrations" for actor in config.actors.values()}
    ):
        if config.learner.min_replay_size > config.replay.capacity(source):
            raise ValueError(
                f"learner.min_replay_size ({config.learner.min_replay_size}) is more than a table holds, and learning "
                f"would never begin; lower it or raise replay.{source}_capacity ({config.replay.capacity(source)})"
            )
    if all(actor.num_actors == 0 and actor.demonstrations is None for actor in config.actors.values()):
        raise ValueError("no task has an actor (num_actors) or demonstrations: nothing could be learned from")


def _get(config: TrainConfig, key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value
