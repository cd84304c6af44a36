"""Experts by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from actors.config import ActorConfig
from actors.experts.make import EXPERTS, expert_sees, make_expert


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("babyai-bot", "babyai/GoToLocal"),
        ("cartpole-mpc", "dm_control/cartpole-swingup"),
        ("atari-planner", "atari/boxing"),
        ("atari-planner", "atari/pong"),
        ("dm-control-mpc", "dm_control/reacher-easy"),
        ("metaworld-scripted", "metaworld/reach-v3"),
        ("text-truth", "text/babyai-questions"),
    ],
)
def test_every_expert_is_made_and_says_its_name_and_what_it_sees(name: str, task: str) -> None:
    expert = make_expert(name, ActorConfig(task=task))
    assert expert.name == name and name in EXPERTS
    assert expert.sees == expert_sees(name)


def test_what_an_expert_sees_is_known_without_its_simulator() -> None:
    """In a process of its own, since this one has imported simulators already."""
    code = (
        "import sys; from actors.experts.make import EXPERTS, expert_sees; print({n: expert_sees(n) for n in EXPERTS});"
        "assert not {'mujoco', 'ale_py', 'minigrid', 'metaworld', 'torch'} & set(sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100, check=True).stdout
    assert "'babyai-bot': 'privileged information'" in said and "'atari-planner': 'simulator state'" in said


def test_an_unknown_expert_names_the_nearest() -> None:
    with pytest.raises(
        ValueError,
        match=r"did you mean cartpole-mpc or dm-control-mpc\? There are: atari-planner, atari-rule, babyai-bot,",
    ):
        make_expert("cartpole-mcp", ActorConfig(task="dm_control/cartpole-swingup"))
    with pytest.raises(ValueError, match="no expert is called 'zzz'; There are"):
        make_expert("zzz", ActorConfig(task="atari/boxing"))
