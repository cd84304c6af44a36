"""Experts by name, those included that are runs of ours: ``run:FOLDER`` plays a run's newest checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.config import ActorConfig
from distributed.errors import refusing

if TYPE_CHECKING:
    from actors.experts.expert import Expert

RUN = "run:"


def expert_of(name: str, config: ActorConfig, config_dirs: Sequence[str] = ()) -> Expert:
    """The expert of a name for the task of ``config``; ClowderError for what there is not."""
    from actors.experts.make import make_expert

    with refusing(""):
        return (
            run_expert(name.removeprefix(RUN), config, config_dirs)
            if name.startswith(RUN)
            else make_expert(name, config)
        )


def run_expert(run: str, config: ActorConfig, config_dirs: Sequence[str]) -> Expert:
    """The newest checkpoint of a run, decoding as the run's evaluation does."""
    import torch

    from actors.environments.make import make_environment
    from actors.experts.policy_expert import PolicyExpert
    from distributed.trained_run import TrainedRun

    torch.set_num_threads(1)
    trained = TrainedRun.load(run, (), config_dirs)
    trained.short_name(config.task)  # names the nearest where the run does not know the task
    version = trained.counters["version"]
    environment = make_environment(config, 1)
    try:
        return PolicyExpert(
            f"{RUN}{trained.folder.name}@{version}",
            trained.agent,
            environment,
            trained.config.evaluation.decoding,
            version,
        )
    except ValueError:
        environment.close()
        raise
