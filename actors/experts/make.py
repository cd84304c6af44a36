"""`make_expert`: the expert of a name, and what each may see."""

from __future__ import annotations

import difflib
import importlib
from typing import NamedTuple

from actors.config import ActorConfig
from actors.experts.expert import Expert, Sees


class Listing(NamedTuple):
    """Where an expert is, which tasks it is for, and what it may see (its class says the same)."""

    module: str
    class_name: str
    tasks: str
    sees: Sees


EXPERTS = {
    "cartpole-mpc": Listing(
        "actors.experts.cartpole_mpc", "CartpoleMPC", "dm_control/cartpole-swingup", "simulator state"
    ),
    "dm-control-mpc": Listing("actors.experts.dm_control_mpc", "DMControlMPC", "dm_control/*", "simulator state"),
    "babyai-bot": Listing("actors.experts.babyai_bot", "BabyAIBotExpert", "babyai/*", "privileged information"),
    "metaworld-scripted": Listing(
        "actors.experts.metaworld_scripted", "MetaWorldScripted", "metaworld/*", "observations"
    ),
    "text-truth": Listing("actors.experts.text_truth", "TextTruth", "text/*", "privileged information"),
    "atari-planner": Listing("actors.experts.atari_planner", "AtariPlanner", "atari/*", "simulator state"),
    "atari-rule": Listing("actors.experts.atari_planner", "AtariRule", "Boxing, Breakout, Freeway", "simulator state"),
}
"""By name; imported only when asked for, since each needs its simulator."""


def expert_sees(name: str) -> Sees:
    """What the expert ``name`` may see, without importing it; an unknown name raises ValueError."""
    return _listing(name).sees


def make_expert(name: str, config: ActorConfig) -> Expert:
    """The expert ``name`` for the task of ``config``; an unknown name raises ValueError with the nearest ones."""
    listing = _listing(name)
    return getattr(importlib.import_module(listing.module), listing.class_name)(config.task, dict(config.arguments))


def _listing(name: str) -> Listing:
    if name not in EXPERTS:
        nearest = difflib.get_close_matches(name, EXPERTS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ValueError(f"no expert is called {name!r}; {hint}There are: {', '.join(sorted(EXPERTS))}")
    return EXPERTS[name]
