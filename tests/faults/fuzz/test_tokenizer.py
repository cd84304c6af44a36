"""The tokenizer: ids in their ranges that say the values again, or ValueError."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config import AgentConfig
from agent.task import ArraySpec
from agent.tokenizer import (
    TextTokenizer,
    Vocabulary,
    bin_centres,
    encode_action,
    encode_observation,
    encode_return,
    return_centres,
)
from tests.agent.tasks import CONTROL
from tests.faults.fuzz.conftest import Target
from tests.faults.fuzz.damage import EDITS, cases, edited

VOCABULARY = Vocabulary.of(AgentConfig(continuous_bins=64, discrete_ids=16, return_bins=8))
TEXT = TextTokenizer.default()
FLOATS = st.lists(st.floats(width=32), min_size=1, max_size=6)


@cases(100, 0.25)
@given(text=st.text(st.characters(), max_size=40))
@example(text="\ud800")
def test_any_text_becomes_ids_that_say_it_again(target: Target, text: str) -> None:
    tried = target.tries(lambda: TEXT.encode(text), ValueError)
    if tried.error is not None:
        assert re.search("[\ud800-\udfff]", text)
        return
    assert all(0 <= piece < TEXT.size for piece in tried.value)
    said = TEXT.decode(tried.value)
    assert TEXT.decode(TEXT.encode(said)) == said
    # What is lost is what SentencePiece's normalisation takes: forms of a character, spaces, control characters.
    if text.isascii() and text.isprintable():
        assert said == " ".join(text.split())


@cases(100, 0.1)
@given(ids=st.lists(st.one_of(st.integers(-2, 520), st.integers()), max_size=12))
def test_any_ids_become_text_or_are_refused(target: Target, ids: list[int]) -> None:
    tried = target.tries(lambda: TEXT.decode(ids), ValueError)
    assert (tried.error is None) == all(0 <= piece < TEXT.size for piece in ids)
    assert tried.error is not None or isinstance(tried.value, str)


@cases(100, 0.25)
@given(values=FLOATS)
def test_any_numbers_become_ids_of_their_range_or_are_refused(target: Target, values: list[float]) -> None:
    spec, tensor = ArraySpec("continuous", (len(values),)), torch.tensor(values)
    for encode in (encode_observation, encode_action):
        tried = target.tries(lambda encode=encode: encode(tensor, spec, VOCABULARY), ValueError)
        assert (tried.error is None) == (not np.isnan(values).any())
        if tried.error is None:
            bins = tried.value - VOCABULARY.continuous.start
            assert bins.min() >= 0 and bins.max() < VOCABULARY.continuous.count
            assert (np.diff(bins.numpy()[np.argsort(values)]) >= 0).all()
            if encode is encode_action:
                assert (bin_centres(64)[bins] - tensor.clamp(-1, 1)).abs().max() <= 1 / 64 + 1e-6


@cases(100, 0.2)
@given(values=st.lists(st.integers(-(2**31), 2**31 - 1) | st.integers(-2, 20), max_size=6), count=st.integers(1, 16))
def test_any_discrete_values_become_legal_ids_or_are_refused(target: Target, values: list[int], count: int) -> None:
    spec, tensor = ArraySpec("discrete", (len(values),), num_values=count), torch.tensor(values, dtype=torch.int32)
    legal = VOCABULARY.legal_actions(spec)
    for encode in (encode_observation, encode_action):
        tried = target.tries(lambda encode=encode: encode(tensor, spec, VOCABULARY), ValueError)
        assert (tried.error is None) == all(0 <= value < count for value in values)
        if tried.error is None:
            assert ((tried.value >= legal.start) & (tried.value < legal.stop)).all()
            assert (tried.value - legal.start).tolist() == values


@cases(100, 0.1)
@given(values=FLOATS, low=st.floats(-1e6, 1e6), span=st.floats(1e-3, 1e6))
def test_any_returns_become_bins_or_are_refused(target: Target, values: list[float], low: float, span: float) -> None:
    task = dataclasses.replace(CONTROL, return_range=(low, low + span))
    tensor = torch.tensor(values)
    tried = target.tries(lambda: encode_return(tensor, task, 8), ValueError)
    assert (tried.error is None) == (not np.isnan(values).any())
    if tried.error is None:
        assert tried.value.min() >= 0 and tried.value.max() < 8
        inside = ((tensor >= low) & (tensor <= low + span)).numpy()
        error = (return_centres(task, 8)[tried.value] - tensor).abs().numpy()[inside]
        assert (error <= span / 16 + 1e-5 * max(abs(low), abs(low + span))).all()


@cases(30, 0.1)
@given(edits=EDITS, text=st.text(max_size=10))
def test_a_damaged_text_model_is_refused_or_still_a_tokenizer(target: Target, edits: Any, text: str) -> None:
    def use() -> None:
        tokenizer = TextTokenizer(edited(TEXT.model, edits))
        ids = tokenizer.encode(text)
        assert all(0 <= piece < tokenizer.size for piece in ids)
        tokenizer.decode(ids)

    target.tries(use, ValueError)


# Found by the above


@pytest.mark.parametrize("ids", [[512], [-1], [2**31], [2**63]])
def test_ids_of_no_piece_are_refused(ids: list[int]) -> None:
    with pytest.raises(ValueError, match="piece ids in 0 to 511"):
        TEXT.decode(ids)


def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(ValueError, match="surrogates not allowed"):
        TEXT.encode("go to \ud800")


def test_a_discrete_value_beyond_its_spec_never_becomes_the_id_of_something_else() -> None:
    spec = ArraySpec("discrete", (2,), num_values=4)
    for encode in (encode_observation, encode_action):
        for values in ([0, 4], [-1, 0], [0, VOCABULARY.size]):
            with pytest.raises(ValueError, match="not in 0 to 3"):
                encode(torch.tensor(values), spec, VOCABULARY)


def test_an_empty_text_model_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValueError, match="it has no pieces"):
        TextTokenizer(b"")
