"""Configurations: words, files and folders are composed or refused in one line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from distributed.compose import actor_file, compose, known_keys, parse, typed
from distributed.errors import ClowderError, ConfigError
from tests.faults.fuzz.conftest import Target
from tests.faults.fuzz.damage import EDITS, JSON_EDITS, cases, edited, edited_json

BASE = ["actors=[cartpole_v1]"]
KEYS = known_keys(compose(BASE))
WORD_VALUES = st.one_of(
    st.sampled_from(
        [
            "1",
            "-1",
            "0",
            "nan",
            "inf",
            "1e400",
            "null",
            "[1,2]",
            "{a:1}",
            "'x'",
            '"',
            "[",
            "${seed}",
            "a=b",
            "glob(*)",
            "range(3)",
            "1,2",
            "${oc.env:HOME}",
            "!!python/object/apply:os.system",
            "true",
            "9" * 40,
        ]
    ),
    st.text(max_size=10),
    st.text("[]{}(),'\"\\=:$.*~+@/ a1\n", max_size=12),
)
PREFIXES = st.sampled_from(["", "", "", "+", "++", "~"])
JOINTS = st.sampled_from(["=", "=", "=", "", "@x=", ".y="])
GROUP_KEYS = st.sampled_from(["actors", "experiment", "model", "hydra.run.dir", "hydra/job_logging", "actors@x"])
WORDS = st.one_of(
    st.builds("{}{}{}{}".format, PREFIXES, st.sampled_from(KEYS), JOINTS, WORD_VALUES),
    st.builds("{}={}".format, GROUP_KEYS, WORD_VALUES),
    st.text(max_size=20),
)


@cases(100, 0.63)
@given(words=st.lists(WORDS, min_size=1, max_size=2))
def test_any_words_are_parsed_or_refused_in_one_line(target: Target, words: list[str]) -> None:
    tried = target.tries(lambda: parse(words), ClowderError, one_line=True)
    assert tried.error is not None or len(tried.value) == len(words)


ACTOR = b"""# A task.
cartpole:
  task: gymnasium/CartPole-v1
  envs_per_actor: 8
  weight: 1.5
  value_range: [0, 100]
  arguments: {a: 1, "b": [x, y]}
"""
YAML_PIECES = st.sampled_from(
    [
        b"&a [*a]",
        b"&a",
        b"*a",
        b"!!python/object/apply:os.system [ls]",
        b"!!binary aGk=",
        b"2001-99-99",
        b"2001-01-01",
        b"? {}",
        b"<<: *a",
        b"---\n",
        b"\t",
        b"\xff",
        b"%YAML 9.9\n",
        b"{",
        b"[",
        b"- ",
        b": ",
        b"|\n",
        b"0x",
        b"1_0",
        b"0o9",
        b".nan",
        b"12:30:99",
        b"=",
        b"!!set {a}",
        b"!!timestamp x",
        b"!!int x",
        b"!!float ''",
        b"!!pairs [a]",
        b"!!omap [a: 1]",
        b'"\\x',
        b"[" * 1500,
    ]
)


@cases(100, 0.34)
@given(edits=EDITS, pieces=st.lists(st.tuples(st.integers(0, 400), YAML_PIECES), max_size=2))
def test_any_actor_file_is_a_mapping_or_refused(target: Target, edits: Any, pieces: Any) -> None:
    data = edited(ACTOR, edits[: 1 + len(edits) % 2])
    for at, piece in pieces:
        data = data[: at % (len(data) + 1)] + piece + data[at % (len(data) + 1) :]
    path = target.folder / "cartpole.yaml"
    path.write_bytes(data)
    tried = target.tries(lambda: actor_file("cartpole", path), ClowderError)
    assert tried.error is not None or isinstance(tried.value["cartpole"], dict)


PLAIN_CONFIG = OmegaConf.to_container(OmegaConf.structured(compose(BASE)))


@cases(15, 0.02)
@given(edits=JSON_EDITS)
def test_any_values_are_a_configuration_or_refused_in_one_line(target: Target, edits: Any) -> None:
    target.tries(lambda: typed(edited_json(PLAIN_CONFIG, edits)), ClowderError, one_line=True)


@cases(5, 0.01)
@given(edits=EDITS, words=st.lists(WORDS, max_size=2))
def test_any_folder_and_words_are_composed_or_refused_in_one_line(target: Target, edits: Any, words: list[str]) -> None:
    (target.folder / "actors").mkdir(exist_ok=True)
    (target.folder / "actors" / "cartpole.yaml").write_bytes(edited(ACTOR, edits))
    chosen = [] if any(word.startswith("actors=") for word in words) else ["actors=[cartpole]"]
    target.tries(lambda: compose([*chosen, *words], [target.folder]), ClowderError, one_line=True)


# Found by the above


BAD_YAML = {
    "not UTF-8": b"cartpole:\n  task: \xff\n",
    "no such day": b"cartpole:\n  task: 2001-99-99\n",
    "a thousand brackets": b"cartpole: " + b"[" * 2000,
    "a timestamp that is none": b"cartpole:\n  task: !!timestamp x\n",
    "an integer that is none": b"cartpole:\n  task: !!int ''\n",
    "a bool that is none": b"cartpole:\n  task: !!bool x\n",
    "a thousand brackets in a flow": b"cartpole: {a: " + b"{a: " * 1000,
    "code": b"cartpole: !!python/object/apply:os.system [ls]\n",
}


@pytest.mark.parametrize("case", BAD_YAML)
def test_what_is_no_yaml_is_refused_in_one_line_that_names_the_file(tmp_path: Path, case: str) -> None:
    (tmp_path / "actors").mkdir()
    path = tmp_path / "actors" / "cartpole.yaml"
    path.write_bytes(BAD_YAML[case])
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} is not YAML") as refused:
        actor_file("cartpole", path)
    assert "\n" not in str(refused.value)
    with pytest.raises(ClowderError) as refused:
        compose(["actors=[cartpole]"], [tmp_path])
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("data", [b"3", b"true", b"- a", b"text"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "actors").mkdir()
    (tmp_path / "actors" / "cartpole.yaml").write_bytes(data)
    with pytest.raises(ClowderError, match=r"cartpole"):
        actor_file("cartpole", tmp_path / "actors" / "cartpole.yaml")
    with pytest.raises(ClowderError) as refused:
        compose(["actors=[cartpole]"], [tmp_path])
    assert "\n" not in str(refused.value)


def test_a_key_with_a_line_break_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError, match=r"^: no such key; top-level keys: actors"):
        typed(PLAIN_CONFIG | {"\n": 1})
