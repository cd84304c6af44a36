"""`TrainedRun`: a run folder with its configuration and a checkpoint, for the commands that play its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distributed.amend import amend, check_entry_points
from distributed.compose import typed
from distributed.config import TrainConfig
from distributed.errors import ClowderError, nearest, refusing
from distributed.run_folder import RunFolder

if TYPE_CHECKING:
    from agent.agent import Agent

DECODING_ONLY = ("evaluation.*",)


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """What a run left.

    Attributes:
        folder: of the run.
        config: of the run, with the evaluation settings that the command line changed.
        agent: with the weights of the checkpoint.
        counters: of the learner, from that checkpoint.
        extra: of the coordinator, from that checkpoint.
    """

    folder: RunFolder
    config: TrainConfig
    agent: Agent
    counters: dict[str, Any]
    extra: dict[str, Any]

    @classmethod
    def load(
        cls, run: str, overrides: Sequence[str], config_dirs: Sequence[str | Path], checkpoint: str = "newest"
    ) -> TrainedRun:
        """Open a run at a checkpoint, ``newest``, ``best`` or a step.

        Raises:
            ClowderError: there is none, or it is damaged; ``newest`` passes over damaged ones.
        """
        from agent.weights import load_agent
        from learner.checkpoint import named_checkpoint

        folder = RunFolder.open(run)
        why = "for weights that are trained already"
        config, _ = amend(typed(folder.read_config()), overrides, DECODING_ONLY, why)
        check_entry_points(config, folder.path, config_dirs)
        with refusing(str(folder.checkpoints)):
            found = named_checkpoint(folder.checkpoints, checkpoint)
            if found is None:
                raise ClowderError(f"{folder.path} has no whole checkpoint yet; see clowder status {folder.path}")
            state = found.state()
            return cls(folder, config, load_agent(found.folder), state["counters"], state["extra"])

    def short_name(self, task: str) -> str:
        """Short name of a task, given by it or by its task name; ClowderError with the nearest where there is none."""
        names = {actor.task: name for name, actor in self.config.actors.items()}
        if task not in names and task not in self.config.actors:
            known = [*names, *self.config.actors]
            raise ClowderError(f"{self.folder.name} was not trained on {task}; {nearest(task, known, 'its tasks')}")
        return names.get(task, task)
