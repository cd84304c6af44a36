"""Checkpoints: whole or passed over, written beside the learner, kept by rule, on disks that are full."""

import json
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from agent.weights import SHARED_HEAD, WEIGHTS_FILE, flat_weights, read_weights
from learner import checkpoint as checkpoint_module
from learner.checkpoint import (
    MANIFEST,
    OBJECTIVE,
    OPTIMISER,
    REPLAY,
    STATE,
    latest_checkpoint,
    named_checkpoint,
    open_checkpoint,
    remove,
    restore_checkpoint,
    take_snapshot,
    whole_checkpoints,
    write_checkpoint,
)
from learner.checkpoint_writer import CheckpointFailed, CheckpointWriter, Kept, kept, retire
from learner.config import CheckpointConfig
from learner.learner import Learner
from replay.sealed_json import seal
from tests.agent.tasks import CONTROL
from tests.learner.test_learner import make_learner

TABLES = {"online/test/control": {"size": 2, "inserts": 3, "samples": 4}}


@pytest.fixture
def learner() -> Learner:
    return make_learner(tasks=(CONTROL,))


def save(parent: Path, learner: Learner, **extra: Any) -> Path:
    learner.step()
    return write_checkpoint(parent, take_snapshot(learner, extra))


def unreadable(path: Path) -> None:
    """Make reading the file fail with EIO, as a bad disk does."""
    path.unlink()
    path.symlink_to("/proc/self/mem")
    assert path.is_file()


def test_torn_and_damaged_ones_are_passed_over_and_that_is_said(tmp_path: Path, learner: Learner, caplog: Any) -> None:
    saved = [save(tmp_path, learner) for _ in range(4)]
    assert whole_checkpoints(tmp_path) == saved
    (saved[-1] / MANIFEST).unlink()
    with (saved[-2] / OPTIMISER).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\xff")
    (saved[-3] / MANIFEST).write_text("{")
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.folder == saved[0]
    assert f"{OPTIMISER} is missing, truncated or changed" in caplog.text and "torn" in caplog.text
    with pytest.raises(ValueError, match="another model shape"):
        restore_checkpoint(found, make_learner(tasks=(CONTROL,), width=64))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda first, second: shutil.copy(first / OPTIMISER, second / OPTIMISER), OPTIMISER),
        (lambda first, second: shutil.copy(first / STATE, second / STATE), STATE),
        (lambda first, second: shutil.copy(first / MANIFEST, second / MANIFEST), "missing, truncated or changed"),
        (lambda first, second: (shutil.rmtree(second), shutil.copytree(first, second)), "do not belong together"),
        (lambda first, second: (second / WEIGHTS_FILE).unlink(), WEIGHTS_FILE),
        (lambda first, second: (second / MANIFEST).write_text('{"step": 2, "sha256": {}}'), "does not name"),
        (lambda first, second: (second / MANIFEST).write_text("[]"), "torn"),
        (lambda first, second: (second / MANIFEST).write_text('{"step": 2, "sha256": {"../x": ""}}'), "no manifest"),
        (lambda first, second: (second / MANIFEST).write_bytes(b"\xff\xfe"), "torn"),
        (lambda first, second: shutil.copy(first / OPTIMISER, second / OBJECTIVE), f"{OBJECTIVE} is not named"),
        (lambda first, second: unreadable(second / OPTIMISER), f"{OPTIMISER} cannot be read .Input/output error"),
        (lambda first, second: unreadable(second / MANIFEST), "torn"),
        (lambda first, second: ((second / STATE).unlink(), (second / STATE).mkdir()), STATE),
    ],
)
def test_parts_of_different_checkpoints_are_refused(change: Any, said: str, tmp_path: Path, learner: Learner) -> None:
    first, second = save(tmp_path, learner), save(tmp_path, learner)
    assert open_checkpoint(second).step == 2
    change(first, second)
    with pytest.raises(ValueError, match=said):
        open_checkpoint(second)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.folder == first


def test_what_an_old_critic_was_learning_cannot_be_gone_on_from(tmp_path: Path, learner: Learner) -> None:
    checkpoint = open_checkpoint(save(tmp_path, learner))
    weights = read_weights(checkpoint.folder) | {SHARED_HEAD: np.zeros((64, 64), np.float32)}
    safetensors.numpy.save_file(weights, checkpoint.folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match=f"new run with start_from={checkpoint.folder}"):
        restore_checkpoint(checkpoint, make_learner(tasks=(CONTROL,)))


def test_a_disk_that_fails_later_is_a_value_error_too(tmp_path: Path, learner: Learner) -> None:
    folder = save(tmp_path, learner)
    found = open_checkpoint(folder)
    for name in (STATE, OPTIMISER, WEIGHTS_FILE):
        kept_aside = (folder / name).rename(tmp_path / "aside")
        with pytest.raises(ValueError, match=name):
            restore_checkpoint(found, make_learner(tasks=(CONTROL,)))
        kept_aside.rename(folder / name)
    unreadable(folder / STATE)
    with pytest.raises(ValueError, match=f"{STATE} cannot be read"):
        found.state()


@pytest.mark.parametrize("writes_another", [False, True])
def test_one_that_is_retired_while_it_is_read(
    writes_another: bool, tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """A learner lets the second go, and may have written a third by then, while another process hashes the second."""
    first, second = save(tmp_path, learner), save(tmp_path, learner)
    hashing = checkpoint_module.file_hash

    def hash_late(path: Path) -> str:
        if path.parent == second and second.exists():
            monkeypatch.setattr(checkpoint_module, "file_hash", hashing)
            if writes_another:
                save(tmp_path, learner)
            remove(second)
        return hashing(path)

    monkeypatch.setattr(checkpoint_module, "file_hash", hash_late)
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.folder == (tmp_path / "000000003" if writes_another else first)
    assert "a checkpoint is passed over" in caplog.text and str(second) in caplog.text


def test_the_best_that_is_retired_while_it_is_read_is_a_value_error(
    tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, hashing = save(tmp_path, learner, score=0.5), checkpoint_module.file_hash
    monkeypatch.setattr(checkpoint_module, "file_hash", lambda path: remove(folder) or hashing(path))
    with pytest.raises(ValueError, match=r"000000001.*cannot be read .No such file"):
        named_checkpoint(tmp_path, "best")


def test_a_folder_that_may_not_be_looked_into_is_passed_over_and_that_is_said(
    tmp_path: Path, learner: Learner, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    first, second = save(tmp_path, learner), save(tmp_path, learner)
    looking = Path.stat

    def stat(path: Path, **options: Any) -> Any:  # root may look into any
        if path.parent == second:
            raise PermissionError(13, "Permission denied", str(path))
        return looking(path, **options)

    monkeypatch.setattr(Path, "stat", stat)
    monkeypatch.setattr(Path, "read_bytes", lambda path: path.stat() and path.open("rb").read())
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.folder == first and f"{second} has no whole {MANIFEST}" in caplog.text


def test_what_is_no_part_of_a_checkpoint_may_lie_beside(tmp_path: Path, learner: Learner) -> None:
    folder = save(tmp_path, learner)
    (folder / "notes.txt").write_text("the one of the talk")
    (folder / "tmp-gone-replay-1" / "digest").mkdir(parents=True)  # a learner was killed while it let contents go
    (folder / "tmp-gone-replay-1" / "digest" / "chunks").write_bytes(b"windows")
    assert open_checkpoint(folder).replay() is None


def test_a_manifest_of_the_first_form_is_read(tmp_path: Path, learner: Learner) -> None:
    folder = save(tmp_path, learner, clock=1)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({"step": manifest["step"], "sha256": manifest["sha256"]}))
    checkpoint = open_checkpoint(folder)
    assert checkpoint.extra == {"clock": 1} and checkpoint.tables is None and checkpoint.replay() is None


class Contents:
    """Stands for `replay.contents.ContentsSaver`: writes a file, once it is let to."""

    def __init__(self) -> None:
        self.go, self.error = threading.Event(), ""

    def __call__(self, into: Path, deadline: float, give_up: threading.Event) -> Mapping[str, Any]:
        end = time.monotonic() + deadline
        while not self.go.wait(0.01):
            if give_up.is_set() or time.monotonic() > end:
                raise TimeoutError("no time")
        (into / "digest").mkdir(parents=True)
        (into / "digest" / "chunks").write_bytes(b"windows")
        if self.error:
            raise OSError(self.error)
        return TABLES


def test_the_learner_goes_on_while_a_snapshot_of_its_step_is_written(tmp_path: Path, learner: Learner) -> None:
    contents = Contents()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(), contents)
    learner.step()
    before, counters = flat_weights(learner.agent), learner.counters()
    assert writer.begin(learner, {"of": "step 1"})
    for _ in range(3):
        learner.step()
        assert not writer.begin(learner, {"of": "later"})  # never two in flight
    assert not whole_checkpoints(tmp_path) and writer.failures == 0
    contents.go.set()
    newest = writer.save(learner, {"of": "step 4"}, 20.0)
    assert newest == tmp_path / "000000004" and writer.failures == 0
    assert writer.cpu_seconds > 0
    first = open_checkpoint(tmp_path / "000000001")
    assert first.extra == {"of": "step 1"} and first.state()["counters"] == counters
    for name, array in read_weights(first.folder).items():
        assert np.array_equal(array, before[name]), name
    assert any(not np.array_equal(array, before[name]) for name, array in read_weights(newest).items())


def test_the_learner_waits_for_the_copy_alone(tmp_path: Path, learner: Learner) -> None:
    """Contents of replay take a second, in which the learner makes updates: its pause is a small part of the write."""
    contents = Contents()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(), contents)
    learner.step()
    assert writer.begin(learner, {})
    end, updates = time.monotonic() + 1.0, 0
    while time.monotonic() < end or updates < 3:
        learner.step()
        updates += 1
    assert not whole_checkpoints(tmp_path)  # all these updates while it was being written
    contents.go.set()
    writer._wait(20.0)
    assert [each.name for each in whole_checkpoints(tmp_path)] == ["000000001"] and writer.failures == 0
    assert writer.write_seconds >= 1.0
    assert 0 < writer.pause_ms < 0.25 * 1000 * writer.write_seconds


def added_file(first: Path, second: Path) -> None:
    shutil.copy(first / STATE, second / REPLAY / "digest" / "more")


def added_folder(first: Path, second: Path) -> None:
    shutil.copytree(first / REPLAY / "digest", second / REPLAY / "other")


def added_link(first: Path, second: Path) -> None:
    (second / REPLAY / "other").symlink_to(first / REPLAY / "digest")


def contents_of_another(first: Path, second: Path) -> None:
    """To a checkpoint that has none."""
    manifest = json.loads((second / MANIFEST).read_text())
    del manifest["replay"], manifest["seal"]
    (second / MANIFEST).write_text(json.dumps(seal(manifest)))


@pytest.mark.parametrize("change", [added_file, added_folder, added_link, contents_of_another])
def test_contents_of_replay_that_the_manifest_does_not_name_are_refused(
    change: Any, tmp_path: Path, learner: Learner, caplog: Any
) -> None:
    contents = Contents()
    contents.go.set()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(), contents)
    saved = []
    for _ in range(2):
        learner.step()
        saved.append(writer.save(learner, {}, 20.0))
    first, second = saved
    change(first, second)
    found = open_checkpoint(second)  # the learner's part is whole
    with pytest.raises(ValueError, match="is not named by"):
        found.replay()
    kept_contents = latest_checkpoint(tmp_path, with_replay=True)
    assert kept_contents is not None and kept_contents.folder == first and "is not named by" in caplog.text


def test_contents_that_were_let_go_are_no_damage(tmp_path: Path, learner: Learner) -> None:
    contents = Contents()
    contents.go.set()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(keep=1, milestone_steps=1), contents)
    for _ in range(2):
        learner.step()
        writer.save(learner, {}, 20.0)
    first, second = whole_checkpoints(tmp_path)
    found = open_checkpoint(first)
    assert found.tables == TABLES and found.replay() is None and not (first / REPLAY).exists()
    assert open_checkpoint(second).replay() == second / REPLAY


def test_contents_of_replay_belong_to_their_checkpoint_or_are_left_out(tmp_path: Path, learner: Learner) -> None:
    contents = Contents()
    contents.go.set()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(), contents)
    learner.step()
    whole = writer.save(learner, {}, 20.0)
    first = open_checkpoint(whole)
    assert first.tables == TABLES and first.replay() == whole / REPLAY

    contents.error = "No space left on device"
    learner.step()
    assert writer.save(learner, {}, 20.0) == tmp_path / "000000002"
    second = latest_checkpoint(tmp_path)
    assert second is not None and second.step == 2 and second.replay() is None and second.tables is None
    assert writer.failures == 1 and "No space left on device" in writer.why
    assert not (second.folder / REPLAY).exists()
    kept_contents = latest_checkpoint(tmp_path, with_replay=True)
    assert kept_contents is not None and kept_contents.step == 1

    (whole / REPLAY / "digest" / "chunks").write_bytes(b"winds")
    assert open_checkpoint(whole).step == 1  # the learner's part is whole
    with pytest.raises(ValueError, match="chunks is missing, truncated or changed"):
        open_checkpoint(whole).replay()
    assert latest_checkpoint(tmp_path, with_replay=True) is None


def test_a_save_in_a_hurry_leaves_contents_out_and_one_too_late_is_counted_once(
    tmp_path: Path, learner: Learner
) -> None:
    contents = Contents()
    writer = CheckpointWriter(tmp_path, CheckpointConfig(deadline_seconds=0.2), contents)
    learner.step()
    began = time.monotonic()
    newest = writer.save(learner, {}, 2.0)
    assert time.monotonic() - began < 2.0
    assert open_checkpoint(newest).tables is None and writer.failures == 1

    held = threading.Event()
    writer._save_contents = lambda *_: held.wait(20) and TABLES  # does not look at its deadline
    learner.step()
    assert writer.begin(learner, {})
    time.sleep(0.3)
    assert [writer.begin(learner, {}) for _ in range(3)] == [False] * 3 and writer.failures == 2
    with pytest.raises(CheckpointFailed, match="the checkpoint before was not done"):
        writer.save(learner, {}, 0.2)
    assert writer.failures == 2
    held.set()


def test_the_same_step_again_is_replaced_and_never_absent(tmp_path: Path, learner: Learner) -> None:
    folder = save(tmp_path, learner, counts=1)
    assert write_checkpoint(tmp_path, take_snapshot(learner, {"counts": 2})) == folder
    assert open_checkpoint(folder).extra == {"counts": 2} and whole_checkpoints(tmp_path) == [folder]
    # Killed between the two renames: the former stands in, until there is a new one.
    folder.rename(former := folder.with_suffix(".old"))
    (tmp_path / "tmp-000000001-1").mkdir()
    CheckpointWriter(tmp_path, CheckpointConfig())
    assert [each.name for each in tmp_path.iterdir()] == [former.name]
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.folder == former and found.extra == {"counts": 2}
    write_checkpoint(tmp_path, take_snapshot(learner, {"counts": 3}))
    assert open_checkpoint(folder).extra == {"counts": 3}
    assert [each.name for each in tmp_path.iterdir()] == [folder.name]


@pytest.mark.parametrize(
    ("settings", "scores", "stay", "with_replay"),
    [
        ({"keep": 2, "best": 0}, [None] * 5, [4, 5], [4, 5]),
        ({"keep": 9, "best": 0}, [None] * 3, [1, 2, 3], [1, 2, 3]),
        ({"keep": 1, "best": 1}, [0.2, 0.9, 0.3, None, 0.1], [2, 5], [5]),
        ({"keep": 1, "best": 2}, [0.2, 0.9, 0.9, -1.0, 0.1], [2, 3, 5], [5]),
        ({"keep": 1, "best": 1}, [None, None], [2], [2]),
        ({"keep": 1, "best": 0, "milestone_steps": 2}, [None] * 5, [2, 4, 5], [5]),
        ({"keep": 1, "best": 0, "milestone_steps": 10}, [None] * 5, [5], [5]),
    ],
)
def test_which_are_kept(settings: dict, scores: list, stay: list, with_replay: list) -> None:
    found = [Kept(step, score, True) for step, score in enumerate(scores, 1)]
    config = CheckpointConfig(**settings)
    chosen, contents = kept(found, config)
    assert [found[place].step for place in sorted(chosen)] == stay
    assert [found[place].step for place in sorted(contents)] == with_replay
    # One after another, as they are written, comes to the same.
    so_far: list[Kept] = []
    for each in found:
        so_far.append(each)
        chosen, contents = kept(so_far, config)
        so_far = [old._replace(has_replay=place in contents) for place, old in enumerate(so_far) if place in chosen]
    assert [each.step for each in so_far] == stay


def test_one_is_named_by_its_step_or_as_the_best(tmp_path: Path, learner: Learner) -> None:
    assert named_checkpoint(tmp_path, "newest") is None
    for step, score in ((3, 0.25), (5, 0.75), (7, 0.5), (9, None)):
        learner.step_count = step - 1
        save(tmp_path, learner, score=score)
    steps = {
        name: found.step for name in ("newest", "best", "3") if (found := named_checkpoint(tmp_path, name)) is not None
    }
    assert steps == {"newest": 9, "best": 5, "3": 3}
    for name in ("4", "last", "../9"):
        with pytest.raises(ValueError, match="those that are kept are of steps: 3, 5, 7, 9"):
            named_checkpoint(tmp_path, name)
    weights = tmp_path / "000000005" / "agent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ValueError, match="truncated"):
        named_checkpoint(tmp_path, "best")
    shutil.rmtree(tmp_path / "000000005")
    shutil.rmtree(tmp_path / "000000003")
    shutil.rmtree(tmp_path / "000000007")
    with pytest.raises(ValueError, match="has a score"):
        named_checkpoint(tmp_path, "best")


def test_milestones_are_the_first_at_or_after_each_multiple() -> None:
    found = [Kept(step, None, False) for step in (5, 9, 10, 12, 19, 31, 33, 40)]
    chosen, _ = kept(found, CheckpointConfig(keep=1, best=0, milestone_steps=10))
    assert [found[place].step for place in sorted(chosen)] == [10, 31, 40]


def test_the_newest_contents_of_replay_outlive_checkpoints_without(tmp_path: Path, learner: Learner) -> None:
    config = CheckpointConfig(keep=1, best=0)
    for with_replay in (True, True, False, False):
        folder = save(tmp_path, learner)
        if with_replay:
            (folder / REPLAY).mkdir()
        retire(tmp_path, config)
    assert [each.name for each in whole_checkpoints(tmp_path)] == ["000000002", "000000004"]
    assert (tmp_path / "000000002" / REPLAY).is_dir()


def test_a_full_disk_is_counted_and_said_and_leaves_what_was_saved(small_disk: Path, learner: Learner) -> None:
    writer = CheckpointWriter(small_disk, CheckpointConfig())
    learner.step()
    first = writer.save(learner, {}, 20.0)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 40_000))
    for failures in (1, 2):
        learner.step()
        with pytest.raises(CheckpointFailed, match="No space left on device"):
            writer.save(learner, {}, 20.0)
        assert writer.failures == failures
        found = latest_checkpoint(small_disk)
        assert found is not None and found.folder == first and not list(small_disk.glob("tmp-*"))
    filler.unlink()
    learner.step()
    assert writer.save(learner, {}, 20.0) == small_disk / "000000004"
    restore_checkpoint(open_checkpoint(small_disk / "000000004"), make_learner(tasks=(CONTROL,)))
