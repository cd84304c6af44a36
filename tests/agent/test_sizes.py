"""Parameter counts of the presets against the paper's, and against arithmetic on its table 5."""

import pytest

from agent.agent import Agent, count_parameters
from agent.config import AgentConfig
from distributed.compose import compose


def preset(name: str, positions: str) -> AgentConfig:
    return compose([f"model={name}", "actors=[cartpole_swingup]", f"agent.positions={positions}"]).agent


@pytest.mark.parametrize(
    ("name", "layers", "width", "head_width", "paper"),
    [("gato-79m", 8, 768, 32, 79e6), ("gato-364m", 12, 1536, 128, 364e6), ("gato-1.2b", 24, 2048, 128, 1180e6)],
)
def test_the_papers_sizes(name: str, layers: int, width: int, head_width: int, paper: float) -> None:
    rotary, xl = (count_parameters(preset(name, positions)) for positions in ("rotary", "xl"))
    config = preset(name, "xl")
    assert width // config.heads == head_width and config.feedforward * width == 4 * width
    # Attention 4 d^2; GEGLU of 4d in all: d x 4d in, 2d x d out; two norms a layer and one at the end.
    assert rotary["transformer"] == layers * (10 * width**2 + 2 * width) + width
    # Transformer-XL: a projection of distances d x d and two biases of d.
    assert xl["transformer"] - rotary["transformer"] == layers * (width**2 + 2 * width)
    assert sum(xl.values()) == pytest.approx(paper, rel=0.005)
    assert 33_024 * width < rotary["vocabulary"] < 33_300 * width


def test_counting_makes_the_same_numbers_as_a_model() -> None:
    config = AgentConfig(width=32, layers=2, heads=2, positions="xl", attention_window=8)
    assert sum(count_parameters(config).values()) == Agent(config, []).parameter_count()
