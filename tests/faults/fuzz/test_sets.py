"""Demonstration sets: refused with DemonstrationSetError, or the same content; forged ones fit their task."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.demonstrations.action_set import MANIFEST as SET_MANIFEST
from actors.demonstrations.action_set import ActionSet
from actors.demonstrations.demonstration_set import DemonstrationSet, DemonstrationSetError, SetSettings
from actors.demonstrations.episode import ActionRecord, Episode
from actors.demonstrations.minari_set import METADATA, TABLE
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import load_set, wanted_settings
from actors.demonstrations.record import pack_action_set
from agent.task import ArraySpec, TaskSpec
from replay.sealed_json import read_sealed
from tests.actors.demonstrations.sets import CARTPOLE, played
from tests.faults.fuzz.conftest import Target
from tests.faults.fuzz.damage import EDITS, JSON_EDITS, cases, edited, edited_json

KINDS = TaskSpec(
    "test/kinds",
    {
        "picture": ArraySpec("image", (32, 32, 3)),
        "small": ArraySpec("image", (4, 4, 1)),
        "grid": ArraySpec("discrete", (2, 2), num_values=5),
        "speed": ArraySpec("continuous", (2,)),
        "mission": ArraySpec("text", max_bytes=20),
    },
    ArraySpec("continuous", (2,), -1.0, 1.0),
)


def content(opened: DemonstrationSet) -> dict[str, Any]:
    """All that a run could learn of a set."""
    held: dict[str, Any] = {"settings": opened.settings.to_json()}
    for name in ("seeds", "returns", "noisy", "lengths"):
        held[name] = getattr(opened, name).tolist()
    for index in range(opened.num_episodes):
        episode: Any = opened.record(index) if isinstance(opened, ActionSet) else opened.episode(index)
        for field in dataclasses.fields(episode):
            value = getattr(episode, field.name)
            values = value if isinstance(value, dict) else {"": value}
            for key, each in values.items():
                held[f"{index}/{field.name}/{key}"] = each.tolist() if isinstance(each, np.ndarray) else each
    return held


def check_content(opened: DemonstrationSet) -> None:
    """What a set hands over fits its task, whatever is in its files."""
    task = opened.settings.task
    for index in range(opened.num_episodes):
        episode: Any = opened.record(index) if isinstance(opened, ActionSet) else opened.episode(index)
        arrays = [(task.action, episode.action), (task.action, episode.label)]
        if isinstance(episode, Episode):
            assert np.isfinite(episode.reward).all() and episode.reward.dtype == np.float32
            assert all(isinstance(text, str) for text in episode.texts.values())
            arrays += [(task.observation[key], values) for key, values in episode.observation.items()]
        for spec, values in arrays:
            assert values.dtype == spec.dtype and values.shape[1:] == spec.shape
            if spec.kind == "discrete" and values.size:
                assert values.min() >= 0 and values.max() < spec.num_values
            if spec.kind == "continuous":
                assert np.isfinite(values).all()


class Recorded:
    """A set on disk, its files, and what it holds."""

    def __init__(self, folder: Path, files: dict[str, bytes], held: dict[str, Any]) -> None:
        self.folder, self.files, self.held = folder, files, held

    def __repr__(self) -> str:
        return self.folder.name

    @contextlib.contextmanager
    def changed(self, name: str, data: bytes) -> Iterator[None]:
        """While entered, a file holds something else."""
        (self.folder / name).write_bytes(data)
        try:
            yield
        finally:
            for each, former in self.files.items():
                (self.folder / each).write_bytes(former)


def recorded(folder: Path) -> Recorded:
    files = {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    files = {name: data for name, data in files.items() if not name.endswith((".md", "card.json"))}
    opened = load_set(folder)
    check_content(opened)
    return Recorded(folder, files, content(opened))


def kinds_episode(seed: int) -> Episode:
    """Three random steps."""
    random = np.random.default_rng(seed)
    action = random.uniform(-1, 1, (3, 2)).astype(np.float32)
    observation = {
        "picture": random.integers(0, 256, (4, 32, 32, 3)).astype(np.uint8),
        "small": random.integers(0, 256, (4, 4, 4, 1)).astype(np.uint8),
        "grid": random.integers(0, 5, (4, 2, 2)).astype(np.int32),
        "speed": random.normal(size=(4, 2)).astype(np.float32),
    }
    return Episode(
        observation, {"mission": "go öst"}, action, action * 0.5, np.array([True, False, True]),
        random.normal(size=3).astype(np.float32), True, False, seed, noisy=seed % 2 == 1,
    )  # fmt: skip


def write_kinds(folder: Path) -> None:
    """Two episodes of a task with arrays of every kind."""
    settings = dataclasses.replace(wanted_settings(CARTPOLE, "nobody"), task=KINDS)
    writer = MinariWriter(folder, settings)
    for seed in range(2):
        episode = kinds_episode(seed)
        writer.append(
            ActionRecord(seed, episode.action, episode.label, episode.label_mask, episode.episode_return), episode
        )
    writer.finish(0)


@pytest.fixture(params=["actions", "minari"])
def a_set(request: pytest.FixtureRequest, target: Target) -> Recorded:
    folder = target.folder / "set"
    if request.param == "actions":
        pack_action_set(
            folder, CARTPOLE, "nobody", [played(CARTPOLE, seed, noisy=seed == 1) for seed in range(3)], 22.0
        )
        return recorded(folder)
    write_kinds(folder)
    return recorded(folder)


def opened_and_read(folder: Path) -> dict[str, Any]:
    opened = load_set(folder)
    check_content(opened)
    return content(opened)


@cases(40, 0.3)
@given(which=st.integers(0, 99), edits=EDITS)
def test_a_changed_set_is_refused_or_holds_the_same(target: Target, a_set: Recorded, which: int, edits: Any) -> None:
    name = sorted(a_set.files)[which % len(a_set.files)]
    data = edited(a_set.files[name], edits)
    with a_set.changed(name, data):
        tried = target.tries(lambda: opened_and_read(a_set.folder), DemonstrationSetError, one_line=True)
        if tried.error is None and name.endswith(".json") and "seal" not in json.loads(data):
            return  # as an earlier version wrote it
        assert tried.error is not None or tried.value == a_set.held


@cases(40, 0.1)
@given(which=st.integers(0, 99), edits=JSON_EDITS)
def test_a_set_with_other_json_is_refused_or_holds_the_same(
    target: Target, a_set: Recorded, which: int, edits: Any
) -> None:
    names = [name for name in sorted(a_set.files) if name.endswith(".json")]
    name = names[which % len(names)]
    former = json.loads(a_set.files[name])
    data = edited_json(former, edits)
    with a_set.changed(name, json.dumps(data | {"seal": former["seal"]}).encode()):
        tried = target.tries(lambda: opened_and_read(a_set.folder), DemonstrationSetError, one_line=True)
        assert tried.error is not None or tried.value == a_set.held
    data.pop("seal", None)  # and as somebody would forge it
    with a_set.changed(name, json.dumps(data).encode()):
        target.tries(lambda: opened_and_read(a_set.folder), DemonstrationSetError, one_line=True)


@cases(40, 0.1)
@given(which=st.integers(0, 1), edits=EDITS)
def test_damaged_episodes_that_the_hashes_agree_with_are_refused_or_fit_the_task(
    target: Target, a_set: Recorded, which: int, edits: Any
) -> None:
    if SET_MANIFEST in a_set.files:
        name, note = next(name for name in a_set.files if name.endswith(".npz")), SET_MANIFEST
    else:
        name, note = f"data/{which}/{TABLE}", f"data/{which}/{METADATA}"
    data = edited(a_set.files[name], edits)
    facts = json.loads(a_set.files[note]) | {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    del facts["seal"]
    with a_set.changed(name, data):
        (a_set.folder / note).write_text(json.dumps(facts))
        target.tries(lambda: opened_and_read(a_set.folder), DemonstrationSetError)


COLUMN = st.tuples(
    st.sampled_from(["seeds", "lengths", "returns", "noisy", "actions", "differs", "labels", "masked", "cut"]),
    st.sampled_from([np.int64, np.float64, bool, np.uint8, np.int8, np.float32, np.uint64, "U3", "M8[s]"]),
    st.lists(st.one_of(st.integers(-3, 300), st.floats()), max_size=5),
    st.booleans(),
)


@cases(40, 0.1)
@given(columns=st.lists(COLUMN, min_size=1, max_size=3))
def test_other_columns_of_an_action_set_are_refused_or_fit_the_task(target: Target, columns: Any) -> None:
    folder = target.folder / "set"
    if not folder.exists():
        pack_action_set(folder, CARTPOLE, "nobody", [played(CARTPOLE, seed) for seed in range(3)], 22.0)
        shutil.copytree(folder, target.folder / "whole")
    with np.load(next((target.folder / "whole").glob("*.npz"))) as archive:
        arrays = dict(archive)
    for name, dtype, values, scalar in columns:
        with contextlib.suppress(ValueError, OverflowError, TypeError), np.errstate(all="ignore"):
            arrays[name] = np.array(values[0] if scalar and values else values).astype(dtype)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    manifest = read_sealed(target.folder / "whole" / SET_MANIFEST)
    (folder / manifest["archive"]).write_bytes(buffer.getvalue())
    manifest["sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (folder / SET_MANIFEST).write_text(json.dumps(manifest))
    target.tries(lambda: opened_and_read(folder), DemonstrationSetError)


# Found by the above


@pytest.fixture
def minari_set(tmp_path: Path) -> Path:
    write_kinds(tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize("change", [{"episode_return": 1e6}, {"noisy": True}, {"seed": 7}, {"seal": None}], ids=str)
def test_the_facts_of_an_episode_are_not_taken_where_they_were_changed(minari_set: Path, change: dict) -> None:
    """They decide what the expert's return is, and which episodes are the expert's own."""
    path = minari_set / "data" / "0" / METADATA
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DemonstrationSetError, match="its seal is not that of its content"):
        load_set(minari_set)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("data/0/metadata.json", {"seed": 10**30}),
        ("data/0/metadata.json", {"bytes": "many\n"}),
        ("data/0/metadata.json", {"success": "no"}),
        ("data/0/metadata.json", {"noisy": 1}),
        ("data/0/metadata.json", {"episode_return": None}),
        ("data/metadata.json", {"total_episodes": None}),
        ("data/metadata.json", {"clowder": {"schema": 1, "task": None}}),
        ("data/metadata.json", {"clowder": {"schema": 1, "task": {"observation": None, "action": {}}}}),
    ],
    ids=str,
)
def test_json_of_another_form_is_refused(minari_set: Path, name: str, change: dict) -> None:
    path = minari_set / name
    path.write_text(json.dumps(read_sealed(path) | change))
    with pytest.raises(DemonstrationSetError, match=r"record (the set|it) anew|malformed"):
        load_set(minari_set)


def test_json_of_a_thousand_brackets_is_refused(minari_set: Path) -> None:
    (minari_set / "data" / METADATA).write_text("[" * 100_000)
    with pytest.raises(DemonstrationSetError, match="is not JSON"):
        load_set(minari_set)


def test_a_setting_with_a_line_break_is_quoted_in_one_line() -> None:
    data = wanted_settings(CARTPOLE, "test").to_json() | {"of\nnobody": 1}
    with pytest.raises(DemonstrationSetError, match="malformed settings") as caught:
        SetSettings.from_json(data, Path("set.json"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [{"low": [4]}, {"high": "1"}, {"num_values": 2.5}, {"shape": [-1]}, {"kind": []}, {"shape": [1e999]}],
)
def test_the_description_of_an_array_has_numbers(change: dict) -> None:
    with pytest.raises((TypeError, ValueError)):
        ArraySpec.from_json({"kind": "continuous", "shape": [2]} | change)


def table_bytes(table: pa.Table) -> bytes:
    """Of an Arrow file, uncompressed."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def replace_table(folder: Path, data: bytes) -> None:
    """That of episode 0, with a hash that agrees."""
    (folder / "data" / "0" / TABLE).write_bytes(data)
    path = folder / "data" / "0" / METADATA
    path.write_text(json.dumps(read_sealed(path) | {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}))


def test_offsets_that_lead_beyond_the_file_do_not_end_the_process(minari_set: Path) -> None:
    with pa.ipc.open_file(minari_set / "data" / "0" / TABLE) as reader:
        table = reader.read_all()
    size = len("go öst".encode())
    offsets, data = np.arange(0, 5 * size, size, np.int32), table_bytes(table)
    assert data.count(offsets.tobytes()) == 1
    offsets[1:4] = 2**30
    replace_table(minari_set, data.replace(np.arange(0, 5 * size, size, np.int32).tobytes(), offsets.tobytes()))
    with pytest.raises(DemonstrationSetError, match="is damaged"):
        load_set(minari_set).episode(0)


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("grid", pa.array([9] * 16, pa.int32()), "not in 0 to 4"),
        ("speed", pa.array([np.nan] * 8, pa.float32()), "no number"),
        ("speed", pa.array([None] * 8, pa.float32()), "missing"),
        ("mission", pa.array([None] * 4, pa.string()), "no text"),
    ],
)
def test_values_that_no_environment_gives_are_refused(
    minari_set: Path, key: str, values: pa.Array, message: str
) -> None:
    with pa.ipc.open_file(minari_set / "data" / "0" / TABLE) as reader:
        table = reader.read_all()
    observations = table["observations"].chunk(0)
    names = [field.name for field in observations.type]
    fields = [observations.field(name) for name in names]
    size = KINDS.observation[key].size
    flat = values if KINDS.observation[key].kind == "text" else pa.FixedSizeListArray.from_arrays(values, size)
    fields[names.index(key)] = flat
    observations = pa.StructArray.from_arrays(fields, names=names)
    replace_table(minari_set, table_bytes(table.set_column(1, "observations", observations)))
    with pytest.raises(DemonstrationSetError, match=message):
        load_set(minari_set).episode(0)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a\0b.npz", b""), ("bad.npz", b"PK\x03\x04"), ("text.npz", b"no archive"), ("pickle.npz", b"\x80\x04N.")],
)
def test_archives_that_are_none_are_refused(tmp_path: Path, name: str, data: bytes) -> None:
    pack_action_set(tmp_path, CARTPOLE, "nobody", [played(CARTPOLE, 0)], 22.0)
    with contextlib.suppress(ValueError):
        (tmp_path / name).write_bytes(data)
    manifest = read_sealed(tmp_path / SET_MANIFEST)
    manifest |= {"archive": name, "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / SET_MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(DemonstrationSetError, match=r"cannot be read|not an archive"):
        load_set(tmp_path)


def test_an_archive_whose_compression_is_damaged_is_refused(tmp_path: Path) -> None:
    pack_action_set(tmp_path, CARTPOLE, "nobody", [played(CARTPOLE, seed) for seed in range(3)], 22.0)
    path = next(tmp_path.glob("*.npz"))
    whole, messages = path.read_bytes(), set()
    for at in range(60, 400, 20):  # zipfile, zlib and NumPy each have their own errors for it
        data = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        path.write_bytes(data)
        manifest = read_sealed(tmp_path / SET_MANIFEST) | {"sha256": hashlib.sha256(data).hexdigest()}
        (tmp_path / SET_MANIFEST).write_text(json.dumps(manifest))
        try:
            assert load_set(tmp_path).num_episodes == 3  # a byte that says nothing, such as of a date
        except DemonstrationSetError as refused:
            messages.add(type(refused.__cause__).__name__)
    assert {"error", "BadZipFile"} <= messages  # the first is zlib's
