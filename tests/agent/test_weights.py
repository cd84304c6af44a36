import json
from pathlib import Path

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.task import TaskSpec
from agent.weights import AGENT_FILE, WEIGHTS_FILE, flat_weights, load_agent, load_weights, save_agent
from tests.agent.tasks import CONTROL, TASKS

CONFIG = AgentConfig(width=32, layers=1, heads=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(3)
    save_agent(tmp_path, Agent(CONFIG, TASKS))
    return tmp_path


def test_an_agent_comes_back_with_its_tasks(folder: Path) -> None:
    torch.manual_seed(3)
    original, loaded = flat_weights(Agent(CONFIG, TASKS)), load_agent(folder)
    assert loaded.tasks == {task.name: task for task in TASKS}
    for name, array in flat_weights(loaded).items():
        assert np.array_equal(array, original[name])


def test_truncated_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_agent(folder)


def test_another_format_version_is_refused(folder: Path) -> None:
    description = json.loads((folder / AGENT_FILE).read_text()) | {"format_version": 99}
    (folder / AGENT_FILE).write_text(json.dumps(description))
    with pytest.raises(ValueError, match="format 99"):
        load_agent(folder)


def test_another_model_shape_is_refused() -> None:
    small, wide = Agent(CONFIG, [CONTROL]), Agent(AgentConfig(width=64, layers=1, heads=2), [CONTROL])
    with pytest.raises(ValueError, match="another model shape"):
        load_weights(small, flat_weights(wide))
    with pytest.raises(ValueError, match="on one side only"):
        load_weights(small, {"x": np.zeros(1)})


def test_a_folder_without_an_agent_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no"):
        load_agent(tmp_path)


def test_task_specs_travel_as_json() -> None:
    for task in TASKS:
        assert TaskSpec.from_json(json.loads(task.dumps())) == task
