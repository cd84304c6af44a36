"""`RunPlan`: all that the processes of a run are told, found out before any of them starts."""

from __future__ import annotations

import dataclasses
import math

from actors.config import ActorConfig
from agent.action_values import check_action_values
from agent.task import TaskSpec
from distributed.config import TrainConfig
from distributed.errors import refusing


@dataclasses.dataclass(frozen=True)
class Demonstrations:
    """What is known of a task's set without reading its episodes.

    Attributes:
        demonstrator_return: mean return of the episodes without injected noise, of the whole set.
        random_return: measured when the set was recorded; NaN where it was not.
        episodes, steps: that are replayed.
        in_set: all episodes of the set.
    """

    demonstrator_return: float = math.nan
    random_return: float = math.nan
    episodes: int = 0
    steps: int = 0
    in_set: int = 0


@dataclasses.dataclass(frozen=True)
class RunPlan:
    """A checked configuration with the spaces of its tasks. Plain data: it travels to every process.

    Attributes:
        config: of the run.
        tasks: by short name, as `actors` of the config.
        demonstrations: by short name, for the tasks that have a set.
    """

    config: TrainConfig
    tasks: dict[str, TaskSpec]
    demonstrations: dict[str, Demonstrations]

    @property
    def specs(self) -> list[TaskSpec]:
        """All tasks, in the order of the config."""
        return list(self.tasks.values())

    @property
    def replayers(self) -> dict[str, tuple[str, int]]:
        """Short name and shard of each replayer, by its own name, which cursors are kept by.

        That is the short name of the task, with the shard where there are several.
        """
        found: dict[str, tuple[str, int]] = {}
        for name in self.demonstrations:
            shards = self.actor(name).num_replayers
            found |= {name if shards == 1 else f"{name}/{shard}": (name, shard) for shard in range(shards)}
        return found

    def actor(self, name: str) -> ActorConfig:
        """Actor config of a short name."""
        return self.config.actors[name]

    def expert_return(self, name: str) -> float | None:
        """What Gato's filter compares with: the demonstrator's return, or the task's fixed reference without a set."""
        found = self.demonstrations.get(name)
        value = self.tasks[name].reference_return if found is None else found.demonstrator_return
        return None if math.isnan(value) else value


def make_plan(config: TrainConfig) -> RunPlan:
    """Make each task's environment once, to learn its spaces, and open each set; ClowderError for what is no use."""
    from actors.demonstrations.open_set import open_set
    from actors.demonstrations.selection import kept_episodes
    from actors.environments.make import task_spec

    tasks, demonstrations = {}, {}
    for name, actor in config.actors.items():
        with refusing(f"actors.{name}"):
            tasks[name] = task_spec(actor)
            if config.learner.objective == "advantage_filtered":
                check_action_values(tasks[name])
            if actor.demonstrations is not None:
                found = open_set(actor.demonstrations, actor)
                measured = found.settings.random_return
                kept = kept_episodes(found, actor)
                demonstrations[name] = Demonstrations(
                    demonstrator_return=found.demonstrator_return,
                    random_return=math.nan if measured is None else measured,
                    episodes=len(kept),
                    steps=int(found.lengths[kept].sum()),
                    in_set=found.num_episodes,
                )
                found.close()
    return RunPlan(config, tasks, demonstrations)
