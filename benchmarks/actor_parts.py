"""An environment actor as a run makes it, without Ray."""

from __future__ import annotations

import time

from actors.config import ActorConfig
from actors.environment_actor import ActorIdentity, EnvironmentActor
from actors.environments.make import make_environment
from actors.environments.vector_environment import VectorEnvironment
from agent.agent import Agent
from agent.config import AgentConfig
from agent.policy import Policy
from agent.weights import flat_weights
from replay.config import ReplayConfig


def make_player(actor: ActorConfig, agent_config: AgentConfig) -> tuple[VectorEnvironment, Policy]:
    """Environments and a policy with first weights."""
    environment = make_environment(actor, actor.envs_per_actor)
    agent = Agent(agent_config, [environment.task])
    policy = Policy(agent, environment.task, actor.envs_per_actor, seed=0)
    policy.load_weights(0, flat_weights(agent), time.time())
    return environment, policy


def make_actor(actor: ActorConfig, agent_config: AgentConfig, replay: ReplayConfig, address: str) -> EnvironmentActor:
    """The actor, connected to the replay server at ``address``; its good episodes are written too."""
    environment, policy = make_player(actor, agent_config)
    return EnvironmentActor.connect(
        actor,
        environment,
        policy,
        ActorIdentity("benchmark"),
        address,
        replay,
        good_return=environment.task.reference_return,
    )
