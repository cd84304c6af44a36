"""`make_expert`: the expert of a name."""

from __future__ import annotations

import difflib
import importlib

from actors.config import ActorConfig
from actors.experts.expert import Expert

EXPERTS = {
    "cartpole-mpc": ("actors.experts.cartpole_mpc", "CartpoleMPC"),
    "babyai-bot": ("actors.experts.babyai_bot", "BabyAIBotExpert"),
    "text-truth": ("actors.experts.text_truth", "TextTruth"),
    "atari-planner": ("actors.experts.atari_planner", "AtariPlanner"),
}
"""Module and class by name; imported only when asked for, since each needs its simulator."""


def make_expert(name: str, config: ActorConfig) -> Expert:
    """The expert ``name`` for the task of ``config``; an unknown name raises ValueError with the nearest ones."""
    if name not in EXPERTS:
        nearest = difflib.get_close_matches(name, EXPERTS, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(nearest)}? " if nearest else ""
        raise ValueError(f"no expert is called {name!r}; {hint}There are: {', '.join(sorted(EXPERTS))}")
    module, class_name = EXPERTS[name]
    return getattr(importlib.import_module(module), class_name)(config.task, dict(config.arguments))
