import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.task import TaskSpec
from agent.tokenizer import TextTokenizer
from agent.weights import (
    AGENT_FILE,
    TEXT_FILE,
    WEIGHTS_FILE,
    fitting_weights,
    flat_weights,
    load_agent,
    load_weights,
    read_weights,
    save_agent,
)
from tests.agent.tasks import CONTROL, GRID, PIXELS, TASKS

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


def test_an_agent_begins_with_what_was_trained_on_other_tasks_and_a_critic_of_its_own(folder: Path) -> None:
    trained = read_weights(folder)
    told = dataclasses.replace(CONTROL, return_range=(0.0, 1.0))
    for changes in ({}, {"value_bins": 11}, {"returns": "masked", "stochastic_depth": 0.1}):
        assert fitting_weights(Agent(dataclasses.replace(CONFIG, **changes), [told]), folder).keys() == trained.keys()
    save_agent(folder, Agent(dataclasses.replace(CONFIG, value_bins=11), TASKS))
    assert fitting_weights(Agent(CONFIG, [CONTROL]), folder).keys() == trained.keys()
    critic = dataclasses.replace(CONFIG, value_bins=11)
    (folder / "critic").mkdir()
    save_agent(folder / "critic", Agent(critic, TASKS))
    fewer = dataclasses.replace(GRID, action=dataclasses.replace(GRID.action, num_values=5))
    begun = fitting_weights(Agent(critic, [fewer, PIXELS]), folder / "critic")
    assert {name.split(".")[1] for name in begun if name.startswith("action_values.")} == {"test/pixels"}
    wrong = (
        ({"width": 64}, "agent.width is 32 there and 64 here"),
        ({"heads": 1}, "agent.heads is 2 there and 1 here"),  # which no shape tells
        ({"observation_embedding": "per_element"}, "agent.observation_embedding is fused"),
        ({"value_bins": 21}, "shape"),
    )
    for changes, why in wrong:
        with pytest.raises(ValueError, match=why):
            fitting_weights(Agent(dataclasses.replace(CONFIG, **changes), [CONTROL]), folder)
    (folder / TEXT_FILE).write_bytes(b"other")
    with pytest.raises(ValueError, match="another text model"):
        fitting_weights(Agent(CONFIG, [CONTROL]), folder)


def test_truncated_weights_are_refused(folder: Path) -> None:
    whole = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="truncated"):
        load_agent(folder)


def test_pickled_code_is_refused_and_never_runs(folder: Path) -> None:
    ran = folder / "ran"

    class Attack:
        def __reduce__(self) -> tuple:
            return Path.touch, (ran,)

    torch.save({"weights": Attack()}, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="damaged"):
        load_agent(folder)
    assert not ran.exists()


def test_settings_of_a_newer_version_are_refused(folder: Path) -> None:
    description = json.loads((folder / AGENT_FILE).read_text())
    description["agent"]["telepathy"] = True
    (folder / AGENT_FILE).write_text(json.dumps(description))
    with pytest.raises(ValueError, match="telepathy"):
        load_agent(folder)


def test_the_text_model_travels_with_the_weights(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    corpus = tmp_path_factory.mktemp("text")
    (corpus / "words.txt").write_text("\n".join(f"the {a} cat met {b} dogs" for a in "abcdef" for b in "uvwxyz"))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus / "words.txt"), model_prefix=str(corpus / "own"), vocab_size=300, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    agent = Agent(dataclasses.replace(CONFIG, text_model=str(corpus / "own.model")), TASKS)
    ids = agent.text.encode("the cat met dogs")
    assert ids != TextTokenizer.default().encode("the cat met dogs")
    save_agent(folder, agent)
    (corpus / "own.model").unlink()
    assert load_agent(folder).text.encode("the cat met dogs") == ids
    (folder / TEXT_FILE).write_bytes(b"not a model")
    with pytest.raises(ValueError, match="missing or damaged"):
        load_agent(folder)


def test_text_models_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.model").write_bytes(b"nothing")
    for name, message in (("absent.model", "cannot be read"), ("bad.model", "not a SentencePiece model")):
        with pytest.raises(ValueError, match=message):
            Agent(dataclasses.replace(CONFIG, text_model=str(tmp_path / name)), TASKS)
    with pytest.raises(ValueError, match="text_ids"):
        Agent(dataclasses.replace(CONFIG, text_ids=100), TASKS)


def test_a_checkpoint_is_read_with_the_agent_alone(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from agent.weights import load_agent; "
        f"load_agent(Path({str(folder)!r})); "
        "print(sorted({'ray', 'reverb', 'tensorflow', 'gymnasium', 'distributed'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.strip() == "[]"


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
