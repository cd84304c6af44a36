"""Sets in Minari's form: exact, open with Minari itself, whole after an interruption, and refused when damaged."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import minari
import numpy as np
import pyarrow as pa
import pytest

from actors.config import ActorConfig
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.episode import Episode
from actors.demonstrations.minari_form import decode_episode, encode_episode
from actors.demonstrations.minari_set import METADATA, TABLE
from actors.demonstrations.minari_writer import MinariWriter, dataset_id
from actors.demonstrations.open_set import open_set, wanted_settings
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment
from agent.task import ArraySpec, TaskSpec
from replay.sealed_json import read_sealed
from tests.actors.demonstrations.sets import BABYAI, BOXING, CARTPOLE, played

PENDULUM = ActorConfig(task="gymnasium/Pendulum-v1")


def write(folder: Path, config: ActorConfig, seeds: range) -> list[Episode]:
    writer = MinariWriter(folder, wanted_settings(config, "nobody"))
    environment = make_environment(config, 1)
    episodes = []
    for seed in seeds:
        record = played(config, seed, noisy=seed % 2 == 1)
        episode = next(item[1] for item in simulate(environment, lambda _, r=record: r, [0]) if item is not None)
        writer.append(record, episode)
        episodes.append(episode)
    writer.finish(failed_episodes=0)
    environment.close()
    return episodes


def same(one: Episode, other: Episode) -> None:
    assert one.texts == other.texts and one.observation.keys() == other.observation.keys()
    for key, values in one.observation.items():
        assert np.array_equal(values, other.observation[key]) and values.dtype == other.observation[key].dtype
    for name in ("action", "label", "label_mask", "reward"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype == getattr(other, name).dtype, name
    for name in ("terminated", "truncated", "seed", "success", "noisy"):
        assert getattr(one, name) == getattr(other, name), name


@pytest.mark.parametrize("config", [CARTPOLE, PENDULUM, BABYAI, BOXING], ids=lambda config: config.task)
def test_what_was_written_is_read_exactly_by_clowder_and_by_minari(tmp_path: Path, config: ActorConfig) -> None:
    folder = tmp_path / "some-set-v3"
    episodes = write(folder, config, range(3))
    opened = open_set(folder, config)
    assert opened.num_episodes == 3 and opened.noisy.tolist() == [False, True, False]
    assert opened.demonstrator_return == np.mean([episodes[0].episode_return, episodes[2].episode_return])
    for index, episode in opened.episodes([2, 0, 1]):
        same(episode, episodes[index])

    dataset = minari.MinariDataset(folder / "data")
    assert dataset.total_episodes == 3 and dataset.total_steps == sum(episode.length for episode in episodes)
    assert dataset.id == "some-set-v3"
    for ours, theirs in zip(episodes, dataset.iterate_episodes(), strict=True):
        for key, values in ours.observation.items():
            assert np.array_equal(values, theirs.observations[key])
        for key, text in ours.texts.items():
            assert theirs.observations[key] == [text] * (ours.length + 1)
        assert np.array_equal(ours.action, theirs.actions) and np.array_equal(ours.reward, theirs.rewards)
        assert np.array_equal(ours.label, theirs.infos["label"][:-1])
        assert np.array_equal(ours.label_mask, theirs.infos["label_mask"][:-1])
        assert theirs.terminations[-1] == ours.terminated and theirs.truncations[-1] == ours.truncated
        first = {key: values[0] for key, values in theirs.observations.items()}
        assert dataset.observation_space.contains(first) or config is BABYAI  # Minari's Text allows letters only
    assert len(dataset.sample_episodes(2)) == 2


def test_minari_finds_the_set_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "cartpole-v0", CARTPOLE, range(1))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert minari.load_dataset("cartpole-v0").total_episodes == 1
    assert "cartpole-v0" in minari.list_local_datasets()


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("a/boxing", "boxing-v0"), ("boxing-v12", "boxing-v12"), ("b c!", "b-c-v0"), ("!", "demonstrations-v0")],
)
def test_dataset_id(folder: str, expected: str) -> None:
    assert dataset_id(Path(folder)) == expected


@pytest.mark.parametrize(
    "spec",
    [
        ArraySpec("image", (40, 33, 1)),
        ArraySpec("image", (40, 33, 4)),
        ArraySpec("image", (32, 32, 7)),
        ArraySpec("image", (5, 6, 3)),
        ArraySpec("image", (100, 2, 3)),
        ArraySpec("discrete", (2, 3), num_values=700),
        ArraySpec("continuous", ()),
        ArraySpec("continuous", (2, 2)),
    ],
    ids=lambda spec: f"{spec.kind}{spec.shape}",
)
@pytest.mark.parametrize("action", [ArraySpec("discrete", (2,), num_values=9), ArraySpec("continuous", (3,), -1, 1)])
def test_every_kind_of_array_is_exact(spec: ArraySpec, action: ArraySpec, tmp_path: Path) -> None:
    task = TaskSpec("tests/anything", {"x": spec, "said": ArraySpec("text", max_bytes=99)}, action)
    generator = np.random.default_rng(0)

    def values(of: ArraySpec, rows: int) -> np.ndarray:
        high = {"image": 256, "discrete": of.num_values or 1, "continuous": 1}[of.kind]
        return (generator.random((rows, *of.shape)) * high).astype(of.dtype)

    episode = Episode(
        {"x": values(spec, 6)}, {"said": "où? ✓"}, values(action, 5), values(action, 5), np.arange(5) > 2,
        np.arange(5, dtype=np.float32), True, True, 7, None, False,
    )  # fmt: skip
    table = pa.Table.from_batches([encode_episode(episode, task, 0)])
    same(decode_episode(table, task, {"seed": 7, "success": None, "noisy": False}), episode)


def test_a_set_can_be_continued(tmp_path: Path) -> None:
    first = write(tmp_path / "set", CARTPOLE, range(2))
    (tmp_path / "set" / "data" / ".writing-2-123").mkdir()  # what a killed recording leaves
    more = write(tmp_path / "set", CARTPOLE, range(2, 4))
    opened = open_set(tmp_path / "set", CARTPOLE)
    assert opened.num_episodes == 4 and not list((tmp_path / "set" / "data").glob(".writing*"))
    for index, episode in enumerate(first + more):
        same(opened.episode(index), episode)


def test_an_episode_is_there_even_if_the_count_was_not_written(tmp_path: Path) -> None:
    write(tmp_path, CARTPOLE, range(3))
    path = tmp_path / "data" / METADATA
    metadata = read_sealed(path)
    path.write_text(json.dumps(metadata | {"total_episodes": 2}))
    assert open_set(tmp_path, CARTPOLE).num_episodes == 3
    write(tmp_path, CARTPOLE, range(3, 4))
    assert json.loads(path.read_text())["total_episodes"] == 4
    assert minari.MinariDataset(tmp_path / "data").total_episodes == 4


def _edit(path: Path, **changes: object) -> None:
    data = read_sealed(path) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if key not in changes or value is not None}))


def _settings(data: Path, **changes: object) -> None:
    settings = json.loads((data / METADATA).read_text())["clowder"]
    _edit(data / METADATA, clowder=settings | changes)


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


AT_OPENING = {
    "table truncated": (lambda d: (d / "1" / TABLE).write_bytes(b"ARROW1"), "truncated: 6 of"),
    "table missing": (lambda d: (d / "1" / TABLE).unlink(), "truncated: 0 of"),
    "episode missing": (lambda d: shutil.rmtree(d / "1"), "episode 1 of 2 is missing"),
    "facts missing": (lambda d: (d / "0" / METADATA).unlink(), "cannot be read"),
    "facts incomplete": (lambda d: _edit(d / "0" / METADATA, seed=None), "lacks"),
    "facts of another type": (lambda d: _edit(d / "0" / METADATA, episode_return="high"), "malformed"),
    "facts torn": (lambda d: (d / "0" / METADATA).write_text('{"id'), "cannot be read"),
    "facts a list": (lambda d: (d / "0" / METADATA).write_text("[]"), "not a JSON object"),
    "metadata torn": (lambda d: (d / METADATA).write_text("{"), "cannot be read"),
    "a foreign set": (lambda d: _edit(d / METADATA, clowder=None), "not of a Clowder set"),
    "arguments no object": (lambda d: _settings(d, arguments=3), "malformed settings"),
    "another form": (lambda d: _edit(d / METADATA, data_format="hdf5"), "hdf5 form"),
    "empty": (
        lambda d: (_edit(d / METADATA, total_episodes=0), shutil.rmtree(d / "0"), shutil.rmtree(d / "1")),
        "no episodes",
    ),
}
AT_READING = {
    "one bit": (lambda d: _flip(d / "0" / TABLE), "SHA-256"),
    "other length": (lambda d: _edit(d / "0" / METADATA, total_steps=1), "steps instead of 1"),
    "not an Arrow file": (lambda d: _replace(d / "0", b"nonsense" * 99), "damaged"),
}


def _replace(folder: Path, data: bytes) -> None:
    (folder / TABLE).write_bytes(data)
    _edit(folder / METADATA, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("case", [*AT_OPENING, *AT_READING])
def test_damage_is_refused_with_the_reason(case: str, tmp_path: Path) -> None:
    write(tmp_path, CARTPOLE, range(0, 4, 2))
    damage, message = (AT_OPENING | AT_READING)[case]
    damage(tmp_path / "data")
    if case in AT_OPENING:
        with pytest.raises(DemonstrationSetError, match=message):
            open_set(tmp_path, CARTPOLE)
    else:
        opened = open_set(tmp_path, CARTPOLE)
        with pytest.raises(DemonstrationSetError, match=message):
            opened.episode(0)


def test_a_set_of_another_task_is_refused(tmp_path: Path) -> None:
    write(tmp_path, CARTPOLE, range(1))
    with pytest.raises(DemonstrationSetError, match="not of gymnasium/Pendulum-v1"):
        open_set(tmp_path, PENDULUM)
