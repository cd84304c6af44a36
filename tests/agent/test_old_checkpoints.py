"""Checkpoints of every format version there has been are read for ever, and act as they did."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import torch

from agent.config import DecodingConfig
from agent.policy import Policy
from agent.weights import WEIGHTS_FILE, load_agent, read_weights
from tests.agent.tasks import MISSIONS, random_observation

FOLDERS = sorted((Path(__file__).parent / "data").glob("checkpoint-format-*"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_an_old_checkpoint_acts_as_it_did(folder: Path) -> None:
    agent = load_agent(folder)
    recorded = json.loads((folder / "actions.json").read_text())
    assert recorded.keys() == agent.tasks.keys()
    for name, expected in recorded.items():
        task = agent.tasks[name]
        decoding = DecodingConfig(discrete="greedy", continuous="mean", context="recompute")
        policy = Policy(agent, task, 2, decoding)
        rng = np.random.default_rng(0)
        for step, actions in enumerate(expected):
            observation = random_observation(task, (2,), rng)
            observation |= {"mission": list(MISSIONS[:2])} if "mission" in task.observation else {}
            chosen = policy.act(observation, np.full(2, step == 0))
            np.testing.assert_allclose(chosen.action, actions, atol=1e-5)


def test_actions_are_worth_to_an_old_critic_what_they_were() -> None:
    """Format 2 had one head for all tasks."""
    folder = Path(__file__).parent / "data" / "checkpoint-format-2"
    agent, hidden = load_agent(folder), torch.linspace(-1, 1, 8)
    for name, expected in json.loads((folder / "values.json").read_text()).items():
        values = agent.values_of(agent.tasks[name])
        np.testing.assert_allclose(values.expected(values(hidden)).detach(), expected, atol=1e-6)


@pytest.mark.parametrize("damage", ["absent", "a number"])
def test_a_damaged_head_of_an_old_critic_is_refused(tmp_path: Path, damage: str) -> None:
    folder = shutil.copytree(Path(__file__).parent / "data" / "checkpoint-format-2", tmp_path / "copy")
    weights = read_weights(folder)
    del weights["action_values.state.weight"]
    if damage == "a number":
        weights["action_values.state.weight"] = np.zeros((), np.float32)
    safetensors.numpy.save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=r"state.weight is on one side only"):
        load_agent(folder)
