"""Action sets: what is written comes back, and what was damaged is refused with the reason."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest

from actors.config import ActorConfig
from actors.demonstrations.action_set import MANIFEST, conform
from actors.demonstrations.demonstration_set import DemonstrationSetError
from actors.demonstrations.open_set import open_set
from actors.demonstrations.record import pack_action_set
from actors.environments.make import task_spec
from replay.sealed_json import read_sealed
from tests.actors.demonstrations.sets import BOXING, CARTPOLE, played

PENDULUM = ActorConfig(task="gymnasium/Pendulum-v1")


@pytest.fixture(scope="module")
def records() -> list:
    return [played(CARTPOLE, seed, noisy=seed % 2 == 1) for seed in range(4)]


@pytest.fixture
def folder(tmp_path: Path, records) -> Path:
    pack_action_set(tmp_path / "set", CARTPOLE, "nobody", records, 22.0)
    return tmp_path / "set"


def test_what_was_packed_comes_back(folder: Path, records) -> None:
    opened = open_set(folder, CARTPOLE)
    assert opened.num_episodes == 4 and opened.settings.expert == "nobody" and opened.settings.random_return == 22.0
    assert opened.demonstrator_return == np.mean([records[0].episode_return, records[2].episode_return])
    assert opened.lengths.tolist() == [len(record.action) for record in records]
    assert len(list(folder.iterdir())) == 2
    for index, record in enumerate(records):
        episode = opened.episode(index)
        assert np.array_equal(episode.action, record.action) and episode.action.dtype == np.int32
        assert np.array_equal(episode.label_mask, record.label_mask)
        assert np.array_equal(episode.label[record.label_mask], record.label[record.label_mask])
        assert episode.noisy == record.noisy and episode.episode_return == record.episode_return
    opened.close()


def test_a_cut_episode_stays_cut_and_old_sets_have_none(tmp_path: Path, folder: Path, records) -> None:
    whole = records[1]
    cut = dataclasses.replace(
        whole,
        action=whole.action[:5],
        label=whole.label[:5],
        label_mask=whole.label_mask[:5],
        episode_return=5.0,
        cut=True,
    )
    pack_action_set(tmp_path / "cut", CARTPOLE, "nobody", [records[0], cut], None)
    opened = open_set(tmp_path / "cut", CARTPOLE)
    assert [opened.record(index).cut for index in range(2)] == [False, True]
    assert opened.episode(1).truncated and not opened.episode(1).terminated and opened.episode(1).length == 5
    assert not any(open_set(folder, CARTPOLE).record(index).cut for index in range(4))


def test_continuous_actions_are_exact(tmp_path: Path) -> None:
    record = played(PENDULUM, 3)
    pack_action_set(tmp_path, PENDULUM, "nobody", [record], None)
    opened = open_set(tmp_path, PENDULUM)
    assert np.array_equal(opened.episode(0).action, record.action)
    assert opened.settings.random_return is None


def test_writing_again_replaces_the_set_whole(folder: Path, records) -> None:
    pack_action_set(folder, CARTPOLE, "nobody", records[:1], 22.0)
    assert open_set(folder, CARTPOLE).num_episodes == 1
    assert len(list(folder.iterdir())) == 2


def _rewrite(folder: Path, **columns: np.ndarray) -> None:
    """Put other columns into the archive, with a right checksum."""
    manifest = read_sealed(folder / MANIFEST)
    path = folder / manifest["archive"]
    with np.load(path) as archive:
        data = {name: archive[name] for name in archive.files} | columns
    buffer = io.BytesIO()
    np.savez(buffer, **{name: array for name, array in data.items() if array is not None})
    path.write_bytes(buffer.getvalue())
    manifest["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))


def _manifest(folder: Path, **changes: object) -> None:
    manifest = read_sealed(folder / MANIFEST)
    (folder / MANIFEST).write_text(json.dumps(manifest | changes))


def _archive(folder: Path) -> Path:
    return next(folder.glob("episodes-*.npz"))


DAMAGE = {
    "truncated": (lambda f: _archive(f).write_bytes(_archive(f).read_bytes()[:-100]), "truncated or damaged"),
    "one bit": (lambda f: _archive(f).write_bytes(_archive(f).read_bytes()[:-1] + b"!"), "truncated or damaged"),
    "archive missing": (lambda f: _archive(f).unlink(), "cannot be read"),
    "manifest truncated": (lambda f: (f / MANIFEST).write_text('{"form": "act'), "cannot be read"),
    "manifest a list": (lambda f: (f / MANIFEST).write_text("[]"), "cannot be read"),
    "no settings": (lambda f: _manifest(f, settings=None), "settings are missing"),
    "settings of tomorrow": (lambda f: _manifest(f, settings={"task": {}, "schema": 99}), "schema 99"),
    "malformed task": (lambda f: _manifest(f, settings={"task": {"name": "a/b"}, "schema": 1}), "malformed settings"),
    "not a zip": (
        lambda f: (_archive(f).write_bytes(b""), _manifest(f, sha256=hashlib.sha256().hexdigest())),
        "archive",
    ),
    "pickled objects": (lambda f: _rewrite(f, seeds=np.array([{}, 1], object)), "not an archive of episodes"),
    "column missing": (lambda f: _rewrite(f, labels=None), "not an archive of episodes"),
    "empty": (lambda f: (_rewrite(f, seeds=np.empty(0, np.int64)), _manifest(f, episodes=0)), "no episodes"),
    "episode missing": (lambda f: _rewrite(f, seeds=np.arange(3)), "seeds is int64"),
    "steps missing": (lambda f: _rewrite(f, actions=np.zeros(3, np.uint8)), "actions is uint8"),
    "other actions": (lambda f: _rewrite(f, labels=np.zeros((2, 3), np.float32)), "labels is float32"),
    "action too large": (lambda f: _rewrite(f, labels=np.full(10_000, 9, np.uint8)), "labels"),
    "cut of another length": (lambda f: _rewrite(f, cut=np.zeros(3, bool)), "cut is bool"),
    "length below 1": (lambda f: _rewrite(f, lengths=np.array([0, 1, 1, 1])), "an episode is empty"),
    "outside the folder": (lambda f: _manifest(f, archive="../../episodes.npz"), "no file of its folder"),
    "elsewhere": (lambda f: _manifest(f, archive=str(_archive(f))), "no file of its folder"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_with_the_reason(case: str, folder: Path) -> None:
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(DemonstrationSetError, match=message):
        open_set(folder, CARTPOLE)


def test_an_action_out_of_range_is_refused(folder: Path) -> None:
    opened = open_set(folder, CARTPOLE)
    _rewrite(folder, actions=np.full(int(opened.lengths.sum()), 9, np.uint8))
    with pytest.raises(DemonstrationSetError, match=r"actions leave \[0, 1\]"):
        open_set(folder, CARTPOLE)


def test_only_noisy_episodes_have_no_demonstrator_return(tmp_path: Path) -> None:
    pack_action_set(tmp_path, CARTPOLE, "nobody", [played(CARTPOLE, 1, noisy=True)], None)
    with pytest.raises(DemonstrationSetError, match="without injected noise"):
        open_set(tmp_path, CARTPOLE)


def test_another_simulator_is_named_with_both_versions(folder: Path) -> None:
    manifest = read_sealed(folder / MANIFEST)
    manifest["settings"]["versions"] = {"gymnasium": "0.0.1"}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    opened = open_set(folder, CARTPOLE)
    _rewrite(folder, returns=opened.returns + 5)
    opened = open_set(folder, CARTPOLE)
    with pytest.raises(DemonstrationSetError, match=r"recorded with gymnasium 0\.0\.1; installed are gymnasium \d"):
        opened.episode(0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {"action": r.action + 5}, "outside"),
        (lambda r: {"label": r.label[:-1]}, "labels have shape"),
        (lambda r: {"label_mask": r.label_mask[:-1]}, "do not fit"),
        (lambda r: {"seed": 1_000_000}, "seeds of demonstrations"),
        (lambda r: {"episode_return": float("nan")}, "return is nan"),
        (lambda r: {"action": r.action[:0], "label": r.label[:0], "label_mask": r.label_mask[:0]}, "do not fit"),
    ],
)
def test_malformed_records_are_not_packed(change, message: str, records) -> None:
    record = dataclasses.replace(records[0], **change(records[0]))
    with pytest.raises(ValueError, match=message):
        conform(record, task_spec(CARTPOLE))


def test_a_set_of_another_task_settings_or_spaces_is_refused(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DemonstrationSetError, match=r"a set of gymnasium/CartPole-v1, not of gymnasium/Pendulum-v1"):
        open_set(folder, PENDULUM)
    pack_action_set(tmp_path / "boxing", BOXING, "nobody", [played(BOXING, 0)], None)
    faster = dataclasses.replace(BOXING, arguments={"max_episode_steps": 12, "num_threads": 2})
    explicit = dataclasses.replace(faster, arguments=faster.arguments | {"repeat_action_probability": 0.25})
    for same in (faster, explicit, dataclasses.replace(BOXING, context_steps=3, return_horizon=9, random_return=0.0)):
        assert open_set(tmp_path / "boxing", same).num_episodes == 1
    for arguments, message in (
        ({"max_episode_steps": 13}, "max_episode_steps=12, the actor config gives max_episode_steps=13"),
        ({"max_episode_steps": 12, "repeat_action_probability": 0.0}, "repeat_action_probability=0.25"),
    ):
        with pytest.raises(DemonstrationSetError, match=message):
            open_set(tmp_path / "boxing", dataclasses.replace(BOXING, arguments=arguments))
    manifest = read_sealed(folder / MANIFEST)
    manifest["settings"]["task"]["observation"]["observation"]["shape"] = [5]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DemonstrationSetError, match=r"observation .observation."):
        open_set(folder, CARTPOLE)


def test_another_limit_of_steps_does_not_matter_to_episodes_that_came_to_neither(tmp_path: Path) -> None:
    whole = played(BOXING, 0)
    short = dataclasses.replace(
        whole,
        action=whole.action[:8],
        label=whole.label[:8],
        label_mask=whole.label_mask[:8],
        episode_return=0.0,
        cut=True,
    )
    pack_action_set(tmp_path / "short", BOXING, "nobody", [short], None)
    for limit in (9, 1000):
        other = dataclasses.replace(BOXING, arguments={"max_episode_steps": limit})
        opened = open_set(tmp_path / "short", other, num_envs=1)
        assert opened.episode(0).length == 8
        opened.close()
    with pytest.raises(DemonstrationSetError, match="max_episode_steps"):
        open_set(tmp_path / "short", dataclasses.replace(BOXING, arguments={"max_episode_steps": 8}))


def test_a_set_of_another_entry_point_is_refused(folder: Path) -> None:
    other = ActorConfig(task="gymnasium/CartPole-v1", entry_point="gymnasium.envs.classic_control:CartPoleEnv")
    with pytest.raises(DemonstrationSetError, match="entry_point"):
        open_set(folder, other)


def test_a_set_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DemonstrationSetError, match="did you mean"):
        open_set("babyai-goto-locl", CARTPOLE)
    with pytest.raises(DemonstrationSetError, match="neither a folder nor a shipped set"):
        open_set(tmp_path / "nowhere", CARTPOLE)
    with pytest.raises(DemonstrationSetError, match="is no demonstration set"):
        open_set(tmp_path, CARTPOLE)
