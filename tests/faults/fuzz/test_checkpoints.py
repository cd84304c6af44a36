"""Checkpoints: changed bytes are refused; what a manifest agrees with is read or refused with ValueError."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.weights import AGENT_FILE, TEXT_FILE, WEIGHTS_FILE, load_agent
from learner.checkpoint import (
    MANIFEST,
    OPTIMISER,
    STATE,
    latest_checkpoint,
    open_checkpoint,
    restore_checkpoint,
    take_snapshot,
    write_checkpoint,
)
from replay.sealed_json import seal
from tests.agent.tasks import CONTROL
from tests.faults.fuzz.conftest import Target
from tests.faults.fuzz.damage import EDITS, JSON_EDITS, cases, edited, edited_json, places
from tests.learner.test_learner import make_learner


class Saved:
    """A checkpoint, a learner to restore it into, and what its files hold."""

    def __init__(self, folder: Path, learner: Any, files: dict[str, bytes]) -> None:
        self.folder, self.learner, self.files = folder, learner, files

    def __repr__(self) -> str:
        return self.folder.name

    @contextlib.contextmanager
    def changed(self, name: str, data: bytes, resealed: bool = False) -> Iterator[None]:
        """While entered, a file holds something else; ``resealed`` makes the manifest agree with that."""
        (self.folder / name).write_bytes(data)
        if resealed:
            manifest = json.loads(self.files[MANIFEST])
            manifest["sha256"][name] = hashlib.sha256(data).hexdigest()
            del manifest["seal"]
            (self.folder / MANIFEST).write_text(json.dumps(seal(manifest)))
        try:
            yield
        finally:
            for each in {name, MANIFEST}:
                (self.folder / each).write_bytes(self.files[each])


def newest(saved: Saved) -> Any:
    """The newest whole checkpoint of its folder, or None."""
    return latest_checkpoint(saved.folder.parent)


def restore(saved: Saved) -> None:
    """Into the learner."""
    restore_checkpoint(open_checkpoint(saved.folder), saved.learner)


@pytest.fixture
def saved(target: Target) -> Saved:
    small = {"continuous_bins": 16, "discrete_ids": 16}
    learner = make_learner((CONTROL,), width=8, agent=small)
    learner.step()
    extra = {"counters": {"a": 1}, "wall_seconds": 3.5}
    folder = write_checkpoint(target.folder / "checkpoints", take_snapshot(learner, extra))
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {MANIFEST, OPTIMISER, STATE, AGENT_FILE, TEXT_FILE, WEIGHTS_FILE} <= files.keys()
    return Saved(folder, make_learner((CONTROL,), width=8, agent=small), files)


@cases(60, 0.6)
@given(which=st.integers(0, 99), edits=EDITS)
def test_a_changed_checkpoint_is_refused_or_holds_the_same(
    target: Target, saved: Saved, which: int, edits: Any
) -> None:
    names = sorted(saved.files)
    name = MANIFEST if which % 3 == 0 else names[which % len(names)]
    data = edited(saved.files[name], edits)
    with saved.changed(name, data):
        found = target.tries(lambda: newest(saved))
        assert found.error is None
        if data != saved.files[name] and name != MANIFEST:
            assert found.value is None
        if found.value is None:
            tried = target.tries(lambda: restore(saved), ValueError)
            assert tried.error is not None
        elif data != saved.files[name]:  # other bytes of the same JSON, or a manifest without a seal, as of old
            manifest, former = json.loads(data), json.loads(saved.files[MANIFEST])
            assert "seal" not in manifest or manifest == former


@cases(20, 0.05)
@given(which=st.integers(0, 3), edits=EDITS)
def test_damage_that_a_manifest_agrees_with_is_refused_or_read(
    target: Target, saved: Saved, which: int, edits: Any
) -> None:
    name = (WEIGHTS_FILE, OPTIMISER, STATE, TEXT_FILE)[which]
    with saved.changed(name, edited(saved.files[name], edits), resealed=True):
        target.tries(lambda: restore(saved), ValueError)
        target.tries(lambda: load_agent(saved.folder), ValueError)


@cases(20, 0.05)
@given(of_state=st.booleans(), edits=JSON_EDITS)
def test_other_json_that_a_manifest_agrees_with_is_refused_or_read(
    target: Target, saved: Saved, of_state: bool, edits: Any
) -> None:
    name = STATE if of_state else AGENT_FILE
    data = edited_json(json.loads(saved.files[name]), edits)
    # Sizes are believed: a checkpoint that says so may be large.
    if any(isinstance(c[k], int | float) and not abs(c[k]) < 2000 for c, k in places(data)):
        return
    with saved.changed(name, json.dumps(data).encode(), resealed=True):
        target.tries(lambda: restore(saved), ValueError)
        target.tries(lambda: load_agent(saved.folder), ValueError)


@cases(20, 0.3)
@given(edits=JSON_EDITS)
def test_another_manifest_is_refused_or_says_the_same(target: Target, saved: Saved, edits: Any) -> None:
    former = json.loads(saved.files[MANIFEST])
    manifest = edited_json(former, edits)
    with saved.changed(MANIFEST, json.dumps(manifest).encode()):
        found = target.tries(lambda: newest(saved))
        assert found.error is None
        tried = target.tries(lambda: restore(saved), ValueError)
        assert (tried.error is None) == (found.value is not None)
        if tried.error is None:
            assert "seal" not in manifest or same(manifest, former)


def same(a: Any, b: Any) -> bool:
    """Equal plain data, NaN being equal to itself and 1 not to True."""
    return json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)


# Found by the above


@pytest.mark.parametrize(
    "change",
    [
        {"step": 2},
        {"seal": None},
        {"sha256": None},
        {"sha256": {}},
        {"sha256": "abc"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_manifest_that_was_changed_is_refused(saved: Saved, change: dict[str, Any]) -> None:
    manifest = json.loads(saved.files[MANIFEST]) | change
    (saved.folder / MANIFEST).write_text(json.dumps(manifest))
    assert newest(saved) is None
    with pytest.raises(ValueError, match=MANIFEST):
        restore(saved)


def test_a_manifest_that_leaves_out_a_file_is_refused(saved: Saved) -> None:
    """It would go unchecked."""
    manifest = json.loads(saved.files[MANIFEST])
    del manifest["sha256"][OPTIMISER], manifest["seal"]
    (saved.folder / MANIFEST).write_text(json.dumps(seal(manifest)))
    assert newest(saved) is None
    with pytest.raises(ValueError, match=OPTIMISER):
        restore(saved)


@pytest.mark.parametrize("data", [b"[" * 100_000, b"\xff", b"[]", b"", b"null"], ids=lambda data: str(data[:6]))
def test_a_manifest_that_is_no_object_is_refused(saved: Saved, data: bytes) -> None:
    (saved.folder / MANIFEST).write_bytes(data)
    assert newest(saved) is None
    with pytest.raises(ValueError, match=MANIFEST):
        restore(saved)


@pytest.mark.parametrize(
    ("former", "later"),
    [(b"exp_avg/", b"exp_avg "), (b"exp_avg_sq/", b"exp_avg_sx/"), (b"/tokens", b"/tokins")],
    ids=str,
)
def test_an_optimiser_of_another_form_is_refused(saved: Saved, former: bytes, later: bytes) -> None:
    data = saved.files[OPTIMISER].replace(former, later)
    assert data != saved.files[OPTIMISER]
    with saved.changed(OPTIMISER, data, resealed=True), pytest.raises(ValueError, match="not of this model"):
        restore(saved)


@pytest.mark.parametrize(
    "counters",
    [
        None,
        {},
        {"step_count": None},
        {"step_count": "1"},
        {"seconds": float("nan")},
        {"seconds": -1.0},
        {"windows_learned": None},
        {"windows_learned": {"a": "b"}},
        {"mixture_carry": [None]},
        {"mixture_carry": [["a", "b", None]]},
        {"mixture_carry": [[[], "b", 0.0]]},
    ],
    ids=str,
)
def test_counters_of_another_form_are_refused(saved: Saved, counters: Any) -> None:
    state = json.loads(saved.files[STATE])
    state["counters"] = state["counters"] | counters if counters else counters
    with saved.changed(STATE, json.dumps(state).encode(), resealed=True), pytest.raises(ValueError, match="earlier"):
        restore(saved)


@pytest.mark.parametrize(
    "change",
    [
        {"agent": None},
        {"agent": {}, "tasks": None},
        {"agent": {"width": "8"}},
        {"agent": {"width": 0}},
        {"agent": {"heads": None}},
        {"agent": {"layers": 1.5}},
        {"tasks": {"a": None}},
        {"tasks": {"a": {"name": None, "observation": {}, "action": {}}}},
        {"format_version": None},
    ],
    ids=str,
)
def test_a_description_of_another_form_is_refused(saved: Saved, change: dict[str, Any]) -> None:
    described = json.loads(saved.files[AGENT_FILE]) | change
    with (
        saved.changed(AGENT_FILE, json.dumps(described).encode(), resealed=True),
        pytest.raises(ValueError, match=r"checkpoint"),
    ):
        load_agent(saved.folder)
