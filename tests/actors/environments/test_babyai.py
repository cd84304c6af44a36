from __future__ import annotations

import numpy as np
import pytest
from minigrid.minigrid_env import MiniGridEnv

from actors.environments import babyai
from actors.environments.failures import EnvironmentFailed, UnknownTask
from agent.task import ArraySpec, TaskSpec


def test_the_task() -> None:
    environment = babyai.make("babyai/GoToLocal", 2)
    assert environment.task.observation == {
        "direction": ArraySpec("discrete", (), num_values=4),
        "grid": ArraySpec("discrete", (7, 7, 3), num_values=11),
        "mission": ArraySpec("text", max_bytes=256),
    }
    assert environment.task.action == ArraySpec("discrete", (), num_values=7)
    assert environment.task.max_episode_steps == 64
    assert TaskSpec.from_json(environment.task.to_json()).dumps() == environment.task.dumps()


@pytest.mark.parametrize(
    "level",
    ["GoToLocal", "BossLevel", "KeyCorridorS3R3", "UnblockPickup", "GoToObjS6", "OneRoomS20", "BlockedUnlockPickup"],
)
def test_the_fast_observation_is_minigrids_own(level: str) -> None:
    """Random play with doors, carried objects, corners of the grid: every value equal."""
    environment = babyai.make_level(f"babyai/{level}", {})
    rng = np.random.default_rng(0)
    environment.reset(seed=0)
    carried = False
    for turn in range(300):
        fast, own = environment.gen_obs(), MiniGridEnv.gen_obs(environment)
        np.testing.assert_array_equal(fast["image"], own["image"])
        assert fast["image"].dtype == own["image"].dtype
        assert (fast["direction"], fast["mission"]) == (own["direction"], own["mission"])
        carried |= environment.carrying is not None
        ended = environment.step(int(rng.choice(7, p=[0.15, 0.15, 0.3, 0.15, 0.05, 0.15, 0.05])))[2:4]
        if any(ended):
            environment.reset(seed=turn)
    assert carried or level in ("GoToObjS6", "OneRoomS20", "GoToLocal", "BossLevel", "KeyCorridorS3R3")


def test_an_episode_is_its_seed_and_its_actions() -> None:
    environment = babyai.make("babyai/GoToLocal", 3)
    actions = np.random.default_rng(0).integers(7, size=200).astype(np.int32)

    def play(slot: int, seed: int) -> list[bytes]:
        """The episode in one slot while the others do something else."""
        start = environment.reset([slot], [seed])
        trace = [start["grid"].tobytes(), start["mission"][0].encode()]
        for action in actions:
            all_actions = np.full(3, 6, np.int32)
            all_actions[slot] = action
            step = environment.step(all_actions)
            for key in ("grid", "direction"):
                trace.append(step.observation[key][slot].tobytes())
            trace.append(step.reward[slot].tobytes())
            if step.done[slot]:
                return trace
        raise AssertionError("an episode has at most 64 steps")

    environment.reset([0, 1, 2], [1, 2, 3])
    for seed in (5, 6):
        first = play(0, seed)
        environment.reset([1, 2], [9, 9])
        assert play(0, seed) == first
        assert play(2, seed) == first


def test_rewards_ends_and_success() -> None:
    environment = babyai.make("babyai/GoToLocal", 4)
    environment.reset(range(4), range(4))
    rng = np.random.default_rng(1)
    ends = []
    for turn in range(400):
        step = environment.step(rng.integers(3, size=4).astype(np.int32))
        assert step.reward.dtype == np.float32 and step.observation["grid"].dtype == np.int32
        assert isinstance(step.success, np.ndarray) and (step.success == (step.terminated & (step.reward > 0))).all()
        assert ((step.reward > 0) <= step.terminated).all()
        for slot in np.flatnonzero(step.done):
            ends.append((bool(step.terminated[slot]), bool(step.success[slot])))
            environment.reset([slot], [100 + turn])
    assert (True, True) in ends and (False, False) in ends


def test_levels_their_limits_and_the_newest_version() -> None:
    assert babyai.levels()["GoToObjS6"] == "BabyAI-GoToObjS6-v1"
    assert len(babyai.task_names()) == 96
    limits = {"GoToLocal": 64, "PutNextLocal": 128, "GoTo": 576, "OpenDoorsOrderN4": 720, "BossLevel": 64 * 9 * 8}
    for level, limit in limits.items():
        assert babyai.make(f"babyai/{level}", 1).task.max_episode_steps == limit, level
    assert babyai.make("babyai/GoToLocal", 1, max_steps=20).task.max_episode_steps == 20
    assert babyai.make("babyai/BossLevel", 1).task.observation["mission"].max_bytes == 352


def test_pictures() -> None:
    environment = babyai.make("babyai/GoToLocal", 1)
    environment.reset([0], [0])
    picture = environment.render(0)
    assert picture.shape == (320, 320, 3) and picture.dtype == np.uint8 and picture.std() > 0


def test_the_level_generator_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    environment = babyai.make("babyai/PutNextLocal", 1)
    for seed in range(40):
        environment.reset([0], [seed])
    assert capfd.readouterr().out == ""


def test_errors_name_what_to_do() -> None:
    with pytest.raises(UnknownTask, match=r"did you mean babyai/GoToLocal"):
        babyai.make("babyai/gotolocal", 1)
    with pytest.raises(ValueError, match="cannot be changed"):
        babyai.make("babyai/GoToLocal", 1, agent_view_size=5)
    environment = babyai.make("babyai/GoToLocal", 2)
    environment.reset([0, 1], [0, 1])
    with pytest.raises(EnvironmentFailed, match=r"babyai/GoToLocal, slot 1: step\(9\) raised ValueError"):
        environment.step(np.array([0, 9], np.int32))
