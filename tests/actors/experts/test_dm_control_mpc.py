"""The controller of DM Control: its rewards are the suite's, its episodes the adapter's, and it gives up in time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.demonstrations.episode import ActionRecord
from actors.environments import dm_control
from actors.experts.dm_control_mpc import FILE, DMControlMPC, Simulator
from actors.experts.dm_control_rewards import REWARDS, SHAPING
from actors.experts.expert import ExpertFailed
from actors.experts.sampling_planner import PlannerSettings
from actors.experts.settings import settings_file, task_settings

TINY = PlannerSettings(horizon=12, samples=8, first_iterations=2)
RARE = {
    "pendulum-swingup": ({"hinge": 0.0}, {}),
    "ball_in_cup-catch": ({"ball_x": 0.0, "ball_z": 0.33, "cup_x": 0.0, "cup_z": 0.0}, {}),
    "cartpole-swingup_sparse": ({"slider": 0.1, "hinge_1": 0.05}, {}),
    "point_mass-easy": ({"root_x": 0.005, "root_y": -0.015}, {}),
    "finger-spin": ({"proximal": 1.0, "distal": -1.0}, {"hinge": -30.0}),
    "hopper-stand": ({"rootz": 0.2, "waist": 0.0, "hip": 0.0, "knee": 0.1, "ankle": 0.0, "rooty": 0.0}, {}),
}
"""Joint positions and velocities at which a reward that random states miss is above a half."""


@pytest.mark.parametrize("name", sorted(REWARDS))
def test_the_planners_reward_is_the_suites(name: str) -> None:
    """From random states, under random actions: dynamics, poses, sensors and control terms agree for two steps."""
    environment = dm_control.make(f"dm_control/{name}", 1)
    environment.reset([0], [3])
    suite_environment = environment.environments[0]
    simulator, random = Simulator(suite_environment), np.random.default_rng(0)
    physics = suite_environment.physics
    start, rewards = physics.data.qpos.copy(), []
    for trial in range(12):
        spread = [0.0, 0.05, 0.6][trial % 3]  # near the reset's state too, where sparse rewards may be found
        with physics.reset_context():
            physics.data.qpos[:] = start + spread * random.normal(size=physics.model.nq)
            physics.data.qvel[:] = 5 * spread * random.normal(size=physics.model.nv)
        plan = random.uniform(-1, 1, (1, 2, simulator.actions)).astype(np.float32)
        simulated = simulator.simulate(np.repeat(plan.astype(np.float64), 3, axis=0))
        ours = REWARDS[name](simulated)
        assert ours.shape == (3, 2) and simulated.sound.all()
        given = [environment.step(plan[:, t]).reward[0] for t in range(2)]
        np.testing.assert_allclose(ours[0], given, atol=2e-5)
        rewards += given
        if name in SHAPING:
            assert np.isfinite(SHAPING[name](simulated)).all()
    if not (set(rewards) <= {0.0, 1.0} or name in RARE):
        assert np.ptp(rewards) > 0.01, "the test saw one value only"


def test_rewards_where_they_are_rare() -> None:
    for name, (positions, velocities) in RARE.items():
        environment = dm_control.make(f"dm_control/{name}", 1)
        environment.reset([0], [0])
        physics = environment.environments[0].physics
        with physics.reset_context():
            for joint, value in positions.items():
                physics.named.data.qpos[joint] = value
            physics.data.qvel[:] = 0
            for joint, value in velocities.items():
                physics.named.data.qvel[joint] = value
        plan = np.zeros((1, 1, physics.model.nu))
        ours = REWARDS[name](Simulator(environment.environments[0]).simulate(plan))
        given = environment.step(plan[:, 0].astype(np.float32)).reward[0]
        assert ours[0, 0] == pytest.approx(given, abs=1e-5) and given > 0.5, name


def test_every_task_with_settings_has_a_reward_and_the_shaping_it_weighs() -> None:
    assert {task.partition("/")[2] for task in settings_file(FILE)} == set(REWARDS)
    for task in settings_file(FILE):
        settings = task_settings("dm-control-mpc", FILE, task, PlannerSettings)
        name = task.partition("/")[2]
        assert not settings.shaping or name in SHAPING, task
        assert 0 < settings.replan <= settings.horizon and settings.elites <= settings.samples, task


def replayed_return(task: str, record: ActionRecord, **arguments: float) -> float:
    environment = dm_control.make(task, 1, **arguments)
    environment.reset([0], [record.seed])
    steps = [environment.step(action[None]) for action in record.action]
    assert [bool(step.done[0]) for step in steps] == [False] * (len(steps) - 1) + [True]
    return float(np.sum([step.reward[0] for step in steps], dtype=np.float64))


@pytest.mark.parametrize("task", ["dm_control/reacher-easy", "dm_control/walker-stand", "dm_control/finger-spin"])
def test_an_episode_replays_through_the_adapter_and_a_seed_gives_one(task: str) -> None:
    short = {"time_limit": 0.5}
    expert = DMControlMPC(task, short, TINY)
    record = expert.play(seed=5)
    assert record.action.shape == record.label.shape == (len(record.label_mask), expert._simulator.actions)
    assert record.action.dtype == np.float32 and not record.noisy and record.label_mask.all()
    np.testing.assert_array_equal(record.action, record.label)
    assert replayed_return(task, record, **short) == record.episode_return
    np.testing.assert_array_equal(record.action, DMControlMPC(task, short, TINY).play(seed=5).action)


def test_noise_disturbs_what_is_executed_and_not_the_label() -> None:
    short = {"time_limit": 6.0}
    record = DMControlMPC("dm_control/reacher-easy", short, TINY).play(seed=1, noise=0.3)
    assert record.noisy and np.abs(record.action).max() <= 1 and np.abs(record.label).max() <= 1
    differ = (record.action != record.label).any(axis=1).mean()
    assert 0.1 < differ < 0.9
    assert replayed_return("dm_control/reacher-easy", record, **short) == record.episode_return


def test_it_balances_a_pole() -> None:
    """Half a second of leaning would be 0.5 below this."""
    expert = DMControlMPC("dm_control/cartpole-balance", {"time_limit": 1.0})
    assert expert.play(seed=0).episode_return > 97


def test_tasks_without_settings_and_wrong_settings_are_refused() -> None:
    with pytest.raises(
        ValueError, match="no settings for 'dm_control/walker-wal'; did you mean dm_control/walker-walk"
    ):
        DMControlMPC("dm_control/walker-wal", {})
    with pytest.raises(ValueError, match="no shaping term"):
        DMControlMPC("dm_control/walker-walk", {}, dataclasses.replace(TINY, shaping=1.0))


def test_a_step_has_a_deadline() -> None:
    """Settings that would take for ever end with an error that names expert, task, seed and step."""
    endless = dataclasses.replace(TINY, iterations=10**9, first_iterations=1)
    expert = DMControlMPC("dm_control/reacher-easy", {}, endless, step_seconds=1.0)
    with pytest.raises(ExpertFailed, match=r"'dm-control-mpc' on dm_control/reacher-easy, seed 8: step 1 took"):
        expert.play(seed=8)


def test_a_simulation_that_diverges_is_no_plan() -> None:
    expert = DMControlMPC("dm_control/cartpole-balance", {}, TINY)
    physics = expert._environment.environments[0].physics
    expert._environment.reset([0], [0])
    physics.data.qvel[:] = 1e12
    assert not expert._simulator.simulate(np.zeros((2, 12, 1))).sound.any()
    assert (expert._returns(np.zeros((2, 12, 1))) == -np.inf).all()
