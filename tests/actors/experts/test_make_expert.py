"""Experts by name."""

from __future__ import annotations

import pytest

from actors.config import ActorConfig
from actors.experts.make import EXPERTS, make_expert


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("babyai-bot", "babyai/GoToLocal"),
        ("cartpole-mpc", "dm_control/cartpole-swingup"),
        ("atari-planner", "atari/boxing"),
    ],
)
def test_every_expert_is_made_and_says_its_name(name: str, task: str) -> None:
    assert make_expert(name, ActorConfig(task=task)).name == name and name in EXPERTS


def test_an_unknown_expert_names_the_nearest() -> None:
    with pytest.raises(
        ValueError, match=r"did you mean cartpole-mpc\? There are: atari-planner, babyai-bot, cartpole-mpc"
    ):
        make_expert("cartpole-mcp", ActorConfig(task="dm_control/cartpole-swingup"))
    with pytest.raises(ValueError, match="no expert is called 'zzz'; There are"):
        make_expert("zzz", ActorConfig(task="atari/boxing"))
