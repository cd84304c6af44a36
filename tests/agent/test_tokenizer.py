import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from agent.agent import Agent
from agent.config import AgentConfig
from agent.inputs import TaskInputs, encode_texts
from agent.task import ArraySpec, TaskSpec
from agent.tokenizer import TextTokenizer, Vocabulary, bin_centres, compand, encode_action, encode_observation, to_bins
from tests.agent.tasks import GRID, PIXELS


@pytest.mark.parametrize(
    ("value", "companded"),
    [(0.0, 0.0), (0.01, 0.0683), (0.1, 0.2362), (1.0, 0.4547), (10.0, 0.6806), (100.0, 0.9074), (256.0, 1.0)],
)
def test_companding_matches_the_formula(value: float, companded: float) -> None:
    both = compand(torch.tensor([value, -value], dtype=torch.float64))
    assert both.tolist() == pytest.approx([companded, -companded], abs=5e-5)


@pytest.mark.parametrize(
    ("value", "index"),
    [(-1.0, 0), (-2.0, 0), (-np.inf, 0), (0.0, 512), (1.0, 1023), (1.5, 1023), (np.inf, 1023), (0.999, 1023)],
)
def test_bins_at_the_edges(value: float, index: int) -> None:
    assert to_bins(torch.tensor([value]), 1024).item() == index


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        to_bins(torch.tensor([0.0, np.nan]), 1024)


@given(st.floats(-1, 1, width=32))
def test_a_bin_centre_is_within_half_a_bin(value: float) -> None:
    centre = bin_centres(1024)[to_bins(torch.tensor([value]), 1024)]
    assert abs(centre.item() - value) <= 1 / 1024 + 1e-6


@given(st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=20))
def test_observation_ids_are_monotonic_and_in_range(values: list[float]) -> None:
    vocabulary = Vocabulary.of(AgentConfig())
    ids = encode_observation(torch.tensor(sorted(values)), ArraySpec("continuous", (len(values),)), vocabulary)
    assert (ids.diff() >= 0).all()
    assert ids.min() >= vocabulary.continuous.start and ids.max() < vocabulary.continuous.stop


def test_id_ranges_never_overlap_unless_asked() -> None:
    own = Vocabulary.of(AgentConfig())
    ranges = [own.text, own.continuous, own.discrete, own.returns, own.rewards]
    ids = [i for r in ranges for i in range(r.start, r.stop)]
    ids += [own.no_return, own.separator, own.episode_start, own.hidden_action, own.padding]
    assert sorted(ids) == list(range(own.size)) and own.padding != 0
    paper = Vocabulary.of(AgentConfig(text_ids=32_000, shared_discrete_ids=True))
    assert (paper.discrete.start, paper.continuous.start) == (0, 32_000)


def test_actions_are_not_companded() -> None:
    vocabulary = Vocabulary.of(AgentConfig())
    ids = encode_action(torch.tensor([0.5]), ArraySpec("continuous", (1,), -1.0, 1.0), vocabulary)
    assert ids.item() - vocabulary.continuous.start == 768


@given(st.text(max_size=40))
def test_any_text_is_within_the_id_range(text: str) -> None:
    tokenizer = TextTokenizer.default()
    assert all(0 <= piece < tokenizer.size for piece in tokenizer.encode(text))


def test_text_comes_back() -> None:
    tokenizer = TextTokenizer.default()
    assert tokenizer.decode(tokenizer.encode("go to the grey box, Grüße 世界")) == "go to the grey box, Grüße 世界"


def test_texts_too_long_to_be_read_are_refused_and_empty_ones_are_one_token() -> None:
    tokenizer = TextTokenizer.default()
    assert encode_texts(GRID, [{"mission": ""}], tokenizer)["mission"].shape == (1, 1)
    with pytest.raises(ValueError, match=r"test/grid: with 'mission' of \d+ tokens.*at most 512.*begins 'go to go to"):
        encode_texts(GRID, [{"mission": "go to " * 170_000}], tokenizer)  # a megabyte
    with pytest.raises(ValueError, match="instruction is empty"):
        dataclasses.replace(PIXELS, instruction="")


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_images_of_odd_size_are_padded_and_odd_channels_refused(embedding: str) -> None:
    config = AgentConfig(width=32, layers=1, heads=2, observation_embedding=embedding)
    action = ArraySpec("discrete", (), num_values=3)
    task = TaskSpec("test/odd", {"image": ArraySpec("image", (37, 51, 1))}, action)
    agent = Agent(config, [task]).eval()
    image = torch.randint(0, 256, (2, 1, 37, 51, 1), dtype=torch.uint8)
    zeros = torch.zeros(2, 1, 1, dtype=torch.int64)
    inputs = TaskInputs(task, {"image": image}, {}, zeros, zeros[:, 0, 0].bool(), torch.ones(2, dtype=torch.int64))
    assert agent.observation(inputs, agent.tokens).shape[2] == (2 if embedding == "fused" else 3 * 4)
    for shape in ((37, 51, 4), (37, 51, 2)):
        with pytest.raises(ValueError, match="channels; 1 or 3 can be read"):
            Agent(config, [TaskSpec("test/odd", {"image": ArraySpec("image", shape)}, action)])


def test_more_discrete_values_than_ids_are_refused() -> None:
    task = TaskSpec("a/b", {"place": ArraySpec("discrete", (2,), num_values=300)}, ArraySpec("discrete", num_values=3))
    with pytest.raises(ValueError, match=r"a/b: place has 300 values, the vocabulary 64 .*raise agent\.discrete_ids"):
        Agent(AgentConfig(width=32, layers=1, heads=2, discrete_ids=64), [task])


@pytest.mark.parametrize("embedding", ["fused", "per_element"])
def test_a_text_reads_the_same_beside_a_longer_one(embedding: str) -> None:
    words = {"one": ArraySpec("text", max_bytes=40), "two": ArraySpec("text", max_bytes=40)}
    task = TaskSpec("a/b", words | {"x": ArraySpec("continuous", (2,))}, ArraySpec("discrete", num_values=3))
    agent = Agent(AgentConfig(width=32, layers=1, heads=2, observation_embedding=embedding), [task]).eval()

    def embedded(texts: list[dict[str, str]]) -> torch.Tensor:
        count = len(texts)
        inputs = TaskInputs(
            task,
            {"x": torch.zeros(count, 1, 2)},
            encode_texts(task, texts, agent.text),
            torch.zeros(count, 1, 1, dtype=torch.int64),
            torch.zeros(count, dtype=torch.bool),
            torch.ones(count, dtype=torch.int64),
        )
        with torch.no_grad():
            return agent.observation(inputs, agent.tokens)[0, 0][agent.observation.mask(inputs)[0]]

    short, long = {"one": "go", "two": "red ball"}, {"one": "go to the blue door of the room", "two": "red ball"}
    torch.testing.assert_close(embedded([short]), embedded([short, long]))


def test_more_observation_tokens_than_positions_are_refused() -> None:
    task = TaskSpec("test/wide", {"x": ArraySpec("continuous", (600,))}, ArraySpec("discrete", (), num_values=3))
    for embedding, fix in (("fused", "as an image or a grid"), ("per_element", "observation_embedding=fused")):
        with pytest.raises(ValueError, match=fix):
            Agent(AgentConfig(width=32, layers=1, heads=2, observation_embedding=embedding), [task])
