"""Token ids and layouts against the paper's formulas (Reed et al. 2022, section 2.1, appendices B and C).

What is expected is computed here from the formulas alone, in double precision and one number at a time.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from agent.agent import Agent
from agent.config import AgentConfig
from agent.inputs import TaskInputs, encode_texts
from agent.task import ArraySpec, TaskSpec
from agent.tokenizer import Vocabulary, bin_centres, encode_action, encode_observation

PAPER = AgentConfig(
    width=32, layers=1, heads=2, observation_embedding="per_element", text_ids=32_000, shared_discrete_ids=True
)
TEXT, BINS = 32_000, 1024


def companded(x: float) -> float:
    return math.copysign(math.log(abs(x) * 100 + 1) / math.log(256 * 100 + 1), x)


def continuous_id(y: float) -> int:
    clipped = min(1.0, max(-1.0, y))
    return TEXT + min(BINS - 1, math.floor((clipped + 1) / 2 * BINS))


def far_from_an_edge(y: float) -> bool:
    """Where single and double precision cannot fall into different bins."""
    place = (min(1.0, max(-1.0, y)) + 1) / 2 * BINS
    return place in (0.0, BINS) or abs(place - round(place)) > 1e-3


GRID = [sign * base * 10.0**power for sign in (-1, 1) for power in range(-4, 4) for base in np.linspace(1, 9.7, 17)]
OBSERVED = [x for x in [0.0, 256.0, -256.0, 1e30, -1e30, *GRID] if far_from_an_edge(companded(x))]
ACTED = [x for x in [0.0, 1.0, -1.0, 2.0, -2.0, *np.linspace(-1.2, 1.2, 211)] if far_from_an_edge(x)]


def test_ids_of_continuous_observations() -> None:
    assert len(OBSERVED) > 200
    ids = encode_observation(
        torch.tensor(OBSERVED, dtype=torch.float32), ArraySpec("continuous", (len(OBSERVED),)), Vocabulary.of(PAPER)
    )
    assert ids.tolist() == [continuous_id(companded(x)) for x in OBSERVED]


def test_ids_of_continuous_actions_and_what_they_are_decoded_to() -> None:
    assert len(ACTED) > 150
    spec = ArraySpec("continuous", (len(ACTED),), -1.0, 1.0)
    ids = encode_action(torch.tensor(ACTED, dtype=torch.float32), spec, Vocabulary.of(PAPER))
    assert ids.tolist() == [continuous_id(x) for x in ACTED]
    centres = bin_centres(BINS)[ids - TEXT]
    assert centres.tolist() == pytest.approx([(i - TEXT + 0.5) / BINS * 2 - 1 for i in ids.tolist()], abs=1e-6)


def test_discrete_values_are_their_own_ids_and_share_rows_with_text() -> None:
    values = torch.arange(BINS, dtype=torch.int32)
    spec = ArraySpec("discrete", (BINS,), num_values=BINS)
    vocabulary = Vocabulary.of(PAPER)
    assert encode_observation(values, spec, vocabulary).tolist() == list(range(BINS))
    assert encode_action(values, spec, vocabulary).tolist() == list(range(BINS))


NUMBERS = np.array([[0.3, -2.0, 17.0], [0.001, -0.6, 5.5]], np.float32)
SYMBOLS = np.arange(12, dtype=np.int32).reshape(2, 3, 2)
CASES = {
    "a scalar": {"x": (ArraySpec("discrete", (), num_values=9), np.int32(7))},
    "a vector": {"x": (ArraySpec("continuous", (3,)), NUMBERS[0])},
    "a matrix, row by row": {"x": (ArraySpec("continuous", (2, 3)), NUMBERS)},
    "a grid of symbols, row by row": {"x": (ArraySpec("discrete", (2, 3, 2), num_values=12), SYMBOLS)},
    "several arrays, by key": {
        "z": (ArraySpec("continuous", (3,)), NUMBERS[1]),
        "a": (ArraySpec("discrete", (), num_values=9), np.int32(4)),
        "m": (ArraySpec("discrete", (2, 3, 2), num_values=12), SYMBOLS),
    },
    "nested arrays, by path": {
        "arm/velocity": (ArraySpec("continuous", (3,)), NUMBERS[1]),
        "arm/position": (ArraySpec("continuous", (3,)), NUMBERS[0]),
        "B": (ArraySpec("discrete", (), num_values=9), np.int32(1)),
    },
    "text among arrays": {
        "mission": (ArraySpec("text", max_bytes=40), "go to the red ball"),
        "grid": (ArraySpec("discrete", (2, 3, 2), num_values=12), SYMBOLS),
        "turn": (ArraySpec("discrete", (), num_values=9), np.int32(3)),
    },
}


def ids_of(spec: ArraySpec, value: object, agent: Agent) -> list[int]:
    if spec.kind == "text":
        return agent.text.encode(str(value))
    flat = [x for x in np.asarray(value).flatten(order="C").tolist()]
    return [continuous_id(companded(x)) if spec.kind == "continuous" else int(x) for x in flat]


def inputs_of(agent: Agent, task: TaskSpec, values: dict[str, object], action: list[float]) -> TaskInputs:
    texts = {key: str(values[key]) for key, spec in task.observation.items() if spec.kind == "text"}
    arrays = {
        key: torch.from_numpy(np.asarray(values[key], spec.dtype))[None, None]
        for key, spec in task.observation.items()
        if spec.kind != "text"
    }
    dtype = torch.int64 if task.action.kind == "discrete" else torch.float32
    return TaskInputs(
        task,
        arrays,
        encode_texts(task, [texts], agent.text),
        torch.tensor(action, dtype=dtype)[None, None],
        torch.tensor([False]),
        torch.tensor([1]),
    )


@pytest.mark.parametrize("instruction", [None, "stand up"])
@pytest.mark.parametrize("name", CASES)
def test_layout_of_a_timestep(name: str, instruction: str | None) -> None:
    """Observation, separator, action; every token is its row plus its local position."""
    case = CASES[name]
    task = TaskSpec(
        "test/layout",
        {key: spec for key, (spec, _) in case.items()},
        ArraySpec("continuous", (2,), -1.0, 1.0),
        instruction=instruction,
    )
    agent = Agent(PAPER, [task]).eval()
    torch.nn.init.normal_(agent.separator_position)
    torch.nn.init.normal_(agent.action_position)
    embedded = agent.embed(inputs_of(agent, task, {key: value for key, (_, value) in case.items()}, [0.25, -0.9]))[0, 0]

    expected = [] if instruction is None else agent.text.encode(instruction)
    for key in sorted(case):
        expected += ids_of(*case[key], agent)
    rows, places = agent.tokens.weight, agent.observation.local_positions.weight
    parts = [rows[i] + places[place] for place, i in enumerate(expected)]
    parts.append(rows[agent.vocabulary.separator] + agent.separator_position)
    parts += [rows[continuous_id(x)] + agent.action_position for x in (0.25, -0.9)]
    torch.testing.assert_close(embedded, torch.stack(parts))


def test_layout_of_an_image() -> None:
    """Patches of 16 x 16 in raster order, each encoded alone, with positions of the paper's worked example: an image
    80 wide and 64 high has rows at 0, 32, 64, 96, 128 and columns at 0, 26, 51, 77, 102, 128."""
    task = TaskSpec(
        "test/image",
        {"after": ArraySpec("discrete", (), num_values=5), "Image": ArraySpec("image", (64, 80, 3))},
        ArraySpec("discrete", (), num_values=3),
    )
    agent = Agent(PAPER, [task]).eval()
    image = np.random.default_rng(0).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    embedded = agent.embed(inputs_of(agent, task, {"Image": image, "after": 2}, [1]))[0, 0]
    encoder, places = agent.observation.patches, agent.observation.local_positions.weight
    middles_of_rows, middles_of_columns = [16, 48, 80, 112], [13, 38, 64, 90, 115]
    parts = []
    for row in range(4):
        for column in range(5):
            patch = image[16 * row : 16 * row + 16, 16 * column : 16 * column + 16].astype(np.float64)
            scaled = torch.from_numpy((patch / 255 * 2 - 1) / 4).float().permute(2, 0, 1)[None]
            assert scaled.abs().max() <= 0.25
            stem = encoder.stem(scaled)
            features = torch.nn.functional.avg_pool2d(stem + encoder.block(stem), 4).flatten(1)
            vector = encoder.out(features)[0]
            vector = vector + encoder.rows.weight[middles_of_rows[row]]
            vector = vector + encoder.columns.weight[middles_of_columns[column]]
            parts.append(vector + places[len(parts)])
    parts.append(agent.tokens.weight[2] + places[20])
    torch.testing.assert_close(embedded[:21], torch.stack(parts), atol=1e-5, rtol=1e-5)

    encoder.train()
    edges = torch.tensor([0, 26, 51, 77, 102, 128])
    drawn = torch.stack([encoder.interval_index(edges) for _ in range(2000)])
    assert drawn.min(0).values.tolist() == edges[:-1].tolist()
    assert drawn.max(0).values.tolist() == (edges[1:] - 1).tolist()
