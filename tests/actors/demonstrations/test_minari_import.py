"""Datasets that Minari itself wrote become sets; those of another task or form are refused with the reason."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from actors.config import ActorConfig
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.minari_import import NO_SEED, import_minari
from actors.demonstrations.open_set import open_set
from tests.actors.demonstrations.sets import CARTPOLE

PENDULUM = ActorConfig(task="gymnasium/Pendulum-v1")


def collected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, form: str) -> Path:
    """Three episodes of random actions, written by Minari."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    environment = gymnasium.make(task, max_episode_steps=30)
    environment.action_space.seed(0)
    buffers = []
    for seed in range(3):
        observations, actions, rewards, ends = [environment.reset(seed=seed)[0]], [], [], [(False, False)]
        while not any(ends[-1]):
            actions.append(environment.action_space.sample())
            observation, reward, terminated, truncated, _ = environment.step(actions[-1])
            observations.append(observation)
            rewards.append(reward)
            ends.append((terminated, truncated))
        terminations, truncations = zip(*ends[1:])
        buffers.append(
            EpisodeBuffer(
                id=seed,
                seed=seed,
                observations=observations,
                actions=actions,
                rewards=rewards,
                terminations=list(terminations),
                truncations=list(truncations),
            )
        )
    minari.create_dataset_from_buffers("tests/random-v0", buffers, env=environment, data_format=form)
    environment.close()
    return tmp_path / "minari" / "tests" / "random-v0"


@pytest.mark.parametrize("form", ["arrow", "hdf5"])
@pytest.mark.parametrize("config", [CARTPOLE, PENDULUM], ids=lambda config: config.task)
def test_a_dataset_becomes_a_set_whose_episodes_are_the_same(config, form: str, tmp_path: Path, monkeypatch) -> None:
    if form == "hdf5" and importlib.util.find_spec("h5py") is None:
        pytest.skip("h5py is not installed")
    folder = collected(tmp_path, monkeypatch, config.task.partition("/")[2], form)
    source = str(folder) if form == "arrow" else "tests/random-v0"
    assert import_minari(source, config, tmp_path / "set", random_seconds=0, command="a test") == 3
    opened = open_set(tmp_path / "set", config)
    dataset = minari.load_dataset("tests/random-v0")
    assert opened.num_episodes == 3 and opened.settings.expert == "minari:tests/random-v0"
    assert opened.settings.random_return is not None
    for index, theirs in enumerate(dataset.iterate_episodes()):
        ours = opened.episode(index)
        assert np.array_equal(ours.observation["observation"], theirs.observations)
        assert np.allclose(ours.action * (2 if config is PENDULUM else 1), theirs.actions, atol=1e-6)
        assert np.array_equal(ours.reward, theirs.rewards.astype(np.float32))
        assert ours.seed in (index, NO_SEED) and (ours.terminated or ours.truncated)
    assert "a test" in (tmp_path / "set" / "README.md").read_text()
    assert import_minari(source, config, tmp_path / "set", random_seconds=0) == 3  # nothing is left to do


def test_what_does_not_fit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = collected(tmp_path, monkeypatch, "CartPole-v1", "arrow")
    out = tmp_path / "set"
    for source, config, reason in (
        (str(folder), PENDULUM, r"observation 'observation' of the dataset is .* in gymnasium/Pendulum-v1"),
        (str(folder), ActorConfig(task="gymnasium/Acrobot-v1"), "give it to the task it was recorded on"),
        ("tests/nothing-v0", CARTPOLE, "minari download tests/nothing-v0"),
        (str(tmp_path), CARTPOLE, "neither a folder of a Minari dataset"),
    ):
        with pytest.raises(DemonstrationSetError, match=reason):
            import_minari(source, config, out, random_seconds=0)
        assert not out.exists()
    out.mkdir()
    (out / "thesis.tex").write_text("...")
    with pytest.raises(DemonstrationSetError, match="is not empty"):
        import_minari(str(folder), CARTPOLE, out, random_seconds=0)


def test_a_dataset_cannot_name_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Minari makes the environment of a dataset without spaces, and so calls what the dataset names."""
    (tmp_path / "foreign_code.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    monkeypatch.syspath_prepend(tmp_path)
    folder = collected(tmp_path, monkeypatch, "CartPole-v1", "arrow")
    metadata = folder / "data" / "metadata.json"
    described = json.loads(metadata.read_text())
    specification = json.loads(described["env_spec"]) | {"entry_point": "foreign_code:make"}
    for key in ("observation_space", "action_space"):
        kept = {name: value for name, value in described.items() if name != key}
        metadata.write_text(json.dumps(kept | {"env_spec": json.dumps(specification)}))
        for source in (str(folder), str(folder / "data"), "tests/random-v0"):
            with pytest.raises(DemonstrationSetError, match=f"has no {key}"):
                import_minari(source, CARTPOLE, tmp_path / "set", random_seconds=0)
    assert not (tmp_path / "ran").exists()


def test_a_form_whose_library_is_missing_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("h5py") is None:
        pytest.skip("h5py is not installed, so there is nothing to read")
    folder = collected(tmp_path, monkeypatch, "CartPole-v1", "hdf5")
    for name in [each for each in sys.modules if each.partition(".")[0] == "h5py" or "hdf5_storage" in each]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "h5py", None)  # as where it is not installed
    with pytest.raises(ImportError, match=r"minari\[hdf5\]"):
        import_minari(str(folder), CARTPOLE, tmp_path / "set", random_seconds=0)
