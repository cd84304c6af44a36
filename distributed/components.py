"""Makes the components of a run from its `RunPlan`: the one place where the parts of all floors meet.

Ray processes and the serial mode both build through here. Heavy imports are inside, so that a process pays only for
what it is.
"""

from __future__ import annotations

import dataclasses
import threading
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from distributed.plan import RunPlan

if TYPE_CHECKING:
    from actors.demonstration_replayer import DemonstrationReplayer
    from actors.demonstrations.demonstration_set import DemonstrationSet
    from actors.environment_actor import EnvironmentActor
    from actors.environments.vector_environment import VectorEnvironment
    from agent.policy import Policy
    from agent.text_policy import TextPolicy
    from learner.batch_source import TaskSources
    from replay.sampler import WindowSampler
    from replay.table_info import ReplayMonitor


@dataclasses.dataclass
class ActorParts:
    """What an environment actor is made of before it knows where replay is."""

    name: str
    actor_id: str
    incarnation: int
    environment: VectorEnvironment
    policy: Policy | TextPolicy


def make_actor_parts(plan: RunPlan, name: str, actor_id: str, incarnation: int) -> ActorParts:
    """Environments and policy of one environment actor; the policy's weights are still to come."""
    from actors.config import acting_decoding
    from actors.environments.make import make_environment
    from agent.agent import Agent
    from agent.policy import make_policy

    actor = plan.actor(name)
    number = int(actor_id.rpartition("-")[2])
    decoding = acting_decoding(actor, number, plan.config.evaluation.decoding)
    agent = Agent(plan.config.agent, plan.specs)
    policy = make_policy(agent, plan.tasks[name], actor.envs_per_actor, decoding, _seed(plan, actor_id, incarnation))
    return ActorParts(name, actor_id, incarnation, make_environment(actor, actor.envs_per_actor), policy)


def connect_actor(plan: RunPlan, parts: ActorParts, address: str, stop: threading.Event) -> EnvironmentActor:
    """The environment actor, with writers of its own; no write waits any more once ``stop`` is set."""
    from actors.environment_actor import ActorIdentity, EnvironmentActor

    return EnvironmentActor.connect(
        plan.actor(parts.name),
        parts.environment,
        parts.policy,
        ActorIdentity(parts.actor_id, parts.incarnation, plan.config.seed),
        address,
        plan.config.replay,
        good_return=plan.expert_return(parts.name),
        good_share=plan.config.learner.good_threshold,
        stop=stop,
    )


def connect_replayer(
    plan: RunPlan,
    name: str,
    demonstrations: DemonstrationSet,
    address: str,
    cursor: Sequence[int],
    stop: threading.Event,
    shard: int = 0,
) -> DemonstrationReplayer:
    """The replayer of a task's set, or of one shard of it, from a cursor on (empty: from the beginning)."""
    from actors.demonstration_replayer import DemonstrationReplayer
    from actors.demonstrations.selection import kept_episodes
    from replay.writer import EpisodeWriter

    seed, actor = plan.config.seed, plan.actor(name)
    phases = _seed(plan, name, shard) if shard else seed  # each shard has random phases of its own
    writer = EpisodeWriter(address, plan.tasks[name], "demonstrations", plan.config.replay, seed=phases, stop=stop)
    keep = kept_episodes(demonstrations, actor)
    return DemonstrationReplayer(
        demonstrations, writer, seed, cursor, keep=keep, shard=shard, shards=actor.num_replayers
    )


def _seed(plan: RunPlan, *parts: object) -> int:
    """A seed for one place of a run, from the run's own."""
    return zlib.crc32("/".join(str(part) for part in (plan.config.seed, *parts)).encode())


def open_streams(plan: RunPlan, address: str, monitor: ReplayMonitor) -> dict[tuple[str, str], WindowSampler]:
    """A stream of windows for each (short name, source) that the learner draws from; ``ends`` for prompts."""
    from replay.sampler import WindowSampler

    streams = {}
    for name, task in plan.tasks.items():
        actor = plan.actor(name)
        wanted = ["demonstrations"] if actor.demonstrations is not None else []
        learned = max(actor.online_share, actor.online_share_end or 0.0) > 0
        wanted += [plan.config.own_source] if actor.num_actors > 0 and learned else []
        wanted += ["best"] if plan.config.own_source in wanted and plan.config.learner.best_share > 0 else []
        wanted += ["ends"] if plan.config.learner.prompt_share > 0 and plan.config.replay.ends else []
        for source in wanted:
            streams[name, source] = WindowSampler(address, task, source, plan.config.replay, monitor)
    return streams


def make_sources(plan: RunPlan, streams: dict[tuple[str, str], WindowSampler]) -> dict[str, TaskSources]:
    """The learner's view of the streams, by task name."""
    from learner.batch_source import TaskSources

    sources = {}
    for name, task in plan.tasks.items():
        actor = plan.actor(name)
        own = {source: stream for (of, source), stream in streams.items() if of == name}
        last = actor.online_share if actor.online_share_end is None else actor.online_share_end
        share = (actor.online_share, last)
        best = plan.config.learner.best_share
        sources[task.name] = TaskSources(task, actor.weight, share, own, best, actor.objectives)
    return sources
