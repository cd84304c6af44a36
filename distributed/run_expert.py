"""Experts by name, those included that are made of what is on disk: ``run:FOLDER`` plays a run's newest checkpoint,
``track:SET`` the best way that an explorer found, although sticky actions push it aside, and ``track:SET+run:FOLDER``
labels with what it would do the episodes that the run steers. ``weak:LEVEL[@SHARE]:EXPERT`` is one that errs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from actors.config import ActorConfig
from distributed.errors import refusing

if TYPE_CHECKING:
    from actors.experts.expert import Expert
    from actors.experts.policy_expert import PolicyExpert

RUN, TRACK = "run:", "track:"


def expert_of(name: str, config: ActorConfig, config_dirs: Sequence[str] = ()) -> Expert:
    """The expert of a name for the task of ``config``; ClowderError for what there is not."""
    from actors.experts import weak_expert
    from actors.experts.make import make_expert

    with refusing(""):
        if name.startswith(weak_expert.PREFIX):
            level, _, errs = name.removeprefix(weak_expert.PREFIX).partition(":")
            strength, _, share = level.partition("@")
            try:
                numbers = float(strength), float(share or 1)
            except ValueError:
                raise ValueError(f"--expert weak:LEVEL[@SHARE]:EXPERT needs numbers, not {level!r}") from None
            return weak_expert.WeakExpert(expert_of(errs, config, config_dirs), *numbers)
        if name.startswith(RUN):
            return run_expert(name.removeprefix(RUN), config, config_dirs)
        if name.startswith(TRACK):
            way_set, _, run = name.removeprefix(TRACK).partition("+" + RUN)
            return track_expert(way_set, config, run_expert(run, config, config_dirs) if run else None)
        return make_expert(name, config)


def track_expert(way_set: str, config: ActorConfig, pilot: PolicyExpert | None = None) -> Expert:
    """Plays the best episode of a set without sticky actions under those of ``config``; see `WayTracker`."""
    from actors.demonstrations.open_set import find_set
    from actors.explorer.demonstrations import read_way, stickiness
    from actors.explorer.tracking import WayTracker

    if not config.task.startswith("atari/"):
        raise ValueError(f"--expert {TRACK}SET plays Atari games, not {config.task}")
    return WayTracker(read_way(find_set(way_set), config), stickiness(config), pilot=pilot)


def run_expert(run: str, config: ActorConfig, config_dirs: Sequence[str]) -> PolicyExpert:
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
