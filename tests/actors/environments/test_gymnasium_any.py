from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from actors.environments import gymnasium_any
from actors.environments.failures import EnvironmentFailed, InvalidEnvironmentOutput, SpaceNotSupported, UnknownTask
from actors.environments.gymnasium_spaces import action_form, observation_parts
from agent.task import ArraySpec

BOX = spaces.Box


@pytest.fixture(autouse=True)
def _on_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    yield


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (BOX(-1, 2, (3,)), ArraySpec("continuous", (3,), low=-1.0, high=2.0)),
        (BOX(-np.inf, np.inf, (), np.float64), ArraySpec("continuous", (1,))),
        (BOX(-3.4e38, 3.4e38, (2, 2)), ArraySpec("continuous", (2, 2))),
        (BOX(0, 255, (32, 48, 3), np.uint8), ArraySpec("image", (32, 48, 3))),
        (BOX(0, 255, (32, 48, 1), np.uint8), ArraySpec("image", (32, 48, 1))),
        (BOX(0, 255, (32, 48), np.uint8), ArraySpec("image", (32, 48, 1))),
        (BOX(0, 255, (7, 7, 3), np.uint8), ArraySpec("discrete", (7, 7, 3), num_values=256)),
        (BOX(-5, 5, (2,), np.int64), ArraySpec("discrete", (2,), num_values=11)),
        (BOX(np.array([0, 10]), np.array([3, 19]), dtype=np.int32), ArraySpec("discrete", (2,), num_values=10)),
        (spaces.Discrete(5, start=7), ArraySpec("discrete", (), num_values=5)),
        (spaces.MultiDiscrete([3, 9]), ArraySpec("discrete", (2,), num_values=9)),
        (spaces.MultiBinary((2, 3)), ArraySpec("discrete", (2, 3), num_values=2)),
        (spaces.Text(40, charset="abc"), ArraySpec("text", max_bytes=40)),
        (spaces.Text(40, charset="aé"), ArraySpec("text", max_bytes=80)),
    ],
)
def test_observation_spaces(space: spaces.Space, expected: ArraySpec) -> None:
    (part,) = observation_parts(space, "gymnasium/x")
    assert (part.key, part.spec) == ("observation", expected)
    space.seed(0)
    for _ in range(20):
        value = part.read(space.sample())
        if expected.kind == "text":
            assert isinstance(value, str)
            continue
        assert isinstance(value, np.ndarray) and value.dtype == expected.dtype and value.shape == expected.shape
        if expected.kind == "discrete":
            assert (value >= 0).all() and (value < expected.num_values).all()


def test_nested_observation_has_one_key_a_leaf() -> None:
    space = spaces.Dict({"arm": spaces.Tuple([BOX(0, 1, (2,)), spaces.Discrete(3)]), "eye": BOX(0, 9, (4,), np.int8)})
    parts = observation_parts(space, "gymnasium/x")
    assert [part.key for part in parts] == ["arm.0", "arm.1", "eye"]
    sample = space.sample()
    np.testing.assert_array_equal(parts[0].read(sample), sample["arm"][0])
    assert parts[1].read(sample) == sample["arm"][1]


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (BOX(0, 255, (84, 84, 4), np.uint8), "1 or 3 channels"),
        (BOX(0, 255, (3, 210, 160), np.uint8), "elements"),
        (BOX(0, 1, (5000,)), "elements"),
        (BOX(0, 1, (0,)), "no elements"),
        (BOX(0, 2000, (2,), np.int32), "span 2001 values"),
        (BOX(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64), "at most 1024"),
        (spaces.Discrete(2000), "2000 values"),
        (spaces.Sequence(spaces.Discrete(3)), "no fixed form"),
        (spaces.Graph(BOX(0, 1, (2,)), None), "no fixed form"),
        (spaces.Dict({"a/b": spaces.Discrete(3)}), "rename it"),
        (spaces.Dict({"a.0": spaces.Discrete(3), "a": spaces.Tuple([spaces.Discrete(3)])}), "same name"),
        (spaces.Dict({}), "empty"),
    ],
)
def test_observation_spaces_that_are_refused(space: spaces.Space, reason: str) -> None:
    with pytest.raises(SpaceNotSupported, match=reason) as caught:
        observation_parts(space, "gymnasium/x")
    assert str(caught.value).startswith("gymnasium/x: ")


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (spaces.Discrete(4, start=-2), ArraySpec("discrete", (), num_values=4)),
        (spaces.MultiDiscrete([3, 3], start=[5, 6]), ArraySpec("discrete", (2,), num_values=3)),
        (spaces.MultiDiscrete([[2, 2], [2, 2]]), ArraySpec("discrete", (4,), num_values=2)),
        (spaces.MultiBinary(3), ArraySpec("discrete", (3,), num_values=2)),
        (BOX(2, 6, (2, 2), np.int64), ArraySpec("discrete", (4,), num_values=5)),
        (BOX(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float32), ArraySpec("continuous", (2,), -1.0, 1.0)),
        (BOX(-0.1, 0.1, (), np.float64), ArraySpec("continuous", (1,), -1.0, 1.0)),
    ],
)
def test_action_spaces(space: spaces.Space, expected: ArraySpec) -> None:
    form = action_form(space, "gymnasium/x")
    assert form.spec == expected
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(200):
        if expected.kind == "discrete":
            action = np.asarray(rng.integers(expected.num_values, size=expected.shape), np.int32)
        else:
            action = rng.choice([-3.0, -1.0, 0.0, 1.0, 3.0], size=expected.shape).astype(np.float32)
        converted = form.convert(action)
        assert space.contains(converted), converted
        seen.append(np.asarray(converted, np.float64).reshape(-1))
    if expected.kind == "continuous":  # both ends are reached
        np.testing.assert_allclose(np.min(seen, axis=0), space.low.reshape(-1), rtol=1e-6)
        np.testing.assert_allclose(np.max(seen, axis=0), space.high.reshape(-1), rtol=1e-6)


@pytest.mark.parametrize(
    ("space", "reason"),
    [
        (spaces.MultiDiscrete([3, 4]), "different numbers of values"),
        (BOX(np.array([0, 0]), np.array([3, 4]), dtype=np.int32), "different numbers of values"),
        (spaces.Discrete(1025), "1025 values"),
        (BOX(-np.inf, np.inf, (2,)), "not bounded"),
        (BOX(-3.4e38, 1, (2,)), "not bounded"),
        (spaces.Dict({"a": spaces.Discrete(2)}), "Dict is not one choice"),
        (spaces.Tuple([spaces.Discrete(2)]), "Tuple is not one choice"),
        (spaces.Text(4), "Text is not one choice"),
        (BOX(0, 1, (0,)), "no elements"),
    ],
)
def test_action_spaces_that_are_refused(space: spaces.Space, reason: str) -> None:
    with pytest.raises(SpaceNotSupported, match=reason) as caught:
        action_form(space, "gymnasium/x")
    assert str(caught.value).startswith("gymnasium/x: ")


def test_cartpole_episodes_equal_gymnasium() -> None:
    environment = gymnasium_any.make("gymnasium/CartPole-v1", 2)
    task = environment.task
    assert (task.name, task.max_episode_steps) == ("gymnasium/CartPole-v1", 500)
    reference = [gymnasium.make("CartPole-v1") for _ in range(2)]
    seeds = [11, 12]
    observation = environment.reset([0, 1], seeds)
    for slot in range(2):
        np.testing.assert_array_equal(observation["observation"][slot], reference[slot].reset(seed=seeds[slot])[0])
    rng = np.random.default_rng(0)
    for turn in range(120):
        action = rng.integers(2, size=2).astype(np.int32)
        step = environment.step(action)
        for slot in range(2):
            expected, reward, terminated, truncated, _ = reference[slot].step(int(action[slot]))
            np.testing.assert_array_equal(step.observation["observation"][slot], expected)
            assert (step.reward[slot], step.terminated[slot], step.truncated[slot]) == (reward, terminated, truncated)
            if terminated:
                again = environment.reset([slot], [100 + turn])
                np.testing.assert_array_equal(again["observation"][0], reference[slot].reset(seed=100 + turn)[0])
    picture = environment.render(1)
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
    environment.close()


def test_cut_by_the_time_limit_is_truncation_not_termination() -> None:
    environment = gymnasium_any.make("gymnasium/Pendulum-v1", 1)
    assert environment.task.action == ArraySpec("continuous", (1,), -1.0, 1.0)
    environment.reset([0], [0])
    for turn in range(200):
        step = environment.step(np.zeros((1, 1), np.float32))
        assert not step.terminated[0] and step.truncated[0] == (turn == 199)


def test_entry_point_with_offsets_text_and_success() -> None:
    environment = gymnasium_any.make("tests/counting", 2, entry_point="misbehaving:counting")
    assert environment.task.observation == {
        "count": ArraySpec("discrete", (), num_values=11),
        "goal": ArraySpec("text", max_bytes=20),
        "state": ArraySpec("continuous", (2,)),
    }
    observation = environment.reset([1, 0], [5, 6])
    assert observation["goal"] == ["seed 5", "seed 6"] and observation["count"].tolist() == [0, 0]
    for turn in range(1, 11):
        step = environment.step(np.array([0, 2], np.int32))
        assert step.observation["count"].tolist() == [turn, turn] and step.observation["goal"] == ["seed 6", "seed 5"]
        assert (step.success is None) == (turn < 10)
    assert step.success is not None and step.success.tolist() == [True, True] and step.terminated.all()
    assert [environment._environments[slot].executed[0] for slot in range(2)] == [-1, 1]
    with pytest.raises(ValueError, match="draws no pictures"):
        environment.render(0)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("step raises", EnvironmentFailed, r"slot 1, step 3 of the episode: step\(0\) raised ZeroDivisionError: simul"),
        (
            "reset raises",
            EnvironmentFailed,
            r"slot 1, step 0 of the episode: reset\(seed=8\) raised OSError: no such l",
        ),
        ("wrong shape", InvalidEnvironmentOutput, r"step 3 .* 'state' has shape \(3,\), its space says \(2,\)"),
        ("missing key", InvalidEnvironmentOutput, "step 3 .* 'state' is missing"),
        ("text reward", InvalidEnvironmentOutput, "the reward is 'much', not a number"),
        ("old step", InvalidEnvironmentOutput, "did not return .*terminated, truncated"),
        ("old reset", InvalidEnvironmentOutput, "reset did not return"),
    ],
)
def test_failures_name_task_and_slot(fault: str, kind: type[Exception], message: str) -> None:
    environment = gymnasium_any.make("tests/counting", 2, entry_point="misbehaving:counting")
    environment._environments[1].fault = fault
    environment.reset([0], [7])
    with pytest.raises(kind, match=message) as caught:
        environment.reset([1], [8])
        for _ in range(3):
            environment.step(np.ones(2, np.int32))
    assert "tests/counting, slot 1" in str(caught.value)


@pytest.mark.parametrize(
    ("task", "arguments", "kind", "message"),
    [
        ("gymnasium/CartPole-v7", {}, UnknownTask, "CartPole-v1"),
        ("gymnasium/cartpole-v1", {}, UnknownTask, "did you mean gymnasium/CartPole-v1"),
        ("gymnasium/os:CartPole-v1", {}, ValueError, "use entry_point"),
        ("gymnasium/CartPole-v1", {"wheels": 3}, ValueError, "wheels"),
        ("t/x", {"entry_point": "misbehaving"}, ValueError, "form module:function"),
        ("t/x", {"entry_point": "misbehaving:nothing"}, ValueError, "has no function 'nothing'"),
        ("t/x", {"entry_point": "no_such_module:make"}, ValueError, "PYTHONPATH"),
        ("t/x", {"entry_point": "misbehaving:not_an_environment"}, ValueError, "not a gymnasium.Env"),
        ("t/x", {"entry_point": "misbehaving:counting", "faults": 1}, ValueError, "faults"),
    ],
)
def test_what_cannot_be_made(task: str, arguments: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        gymnasium_any.make(task, 1, **arguments)
    assert task.split("/")[1].split(":")[0].lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("identifier", "kinds"),
    [
        ("ALE/Pong-v5", {"image"}),
        ("MiniGrid-Empty-5x5-v0", {"discrete", "text"}),
        ("FrozenLake-v1", {"discrete"}),
        ("Blackjack-v1", {"discrete"}),
        ("MountainCarContinuous-v0", {"continuous"}),
    ],
)
def test_environments_of_libraries(identifier: str, kinds: set[str]) -> None:
    environment = gymnasium_any.make("gymnasium/any", 1, id=identifier)
    assert {spec.kind for spec in environment.task.observation.values()} == kinds
    environment.reset([0], [3])
    spec = environment.task.action
    action = np.zeros((1, *spec.shape), spec.dtype)
    for _ in range(5):
        if environment.step(action).done[0]:
            environment.reset([0], [4])
    environment.close()
