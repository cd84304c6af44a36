import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest
from dm_control import suite

from actors.environments import dm_control

CARTPOLE = "dm_control/cartpole-swingup"


def random_action(environment: dm_control.DMControlEnvironment, random: np.random.Generator) -> np.ndarray:
    return random.uniform(-1, 1, (environment.num_envs, *environment.task.action.shape)).astype(np.float32)


# One task for each oddity: many keys, scalars, 2-d arrays, several substeps, a model changed at reset, other bounds.
@pytest.mark.parametrize(
    "task",
    [
        "cartpole-swingup",
        "ball_in_cup-catch",
        "walker-walk",
        "point_mass-hard",
        "manipulator-bring_ball",
        "quadruped-walk",
    ],
)
def test_a_reset_gives_the_episode_of_a_freshly_loaded_suite(task: str) -> None:
    domain, name = task.split("-")
    fresh = suite.load(domain, name, task_kwargs={"random": 7})
    spec = fresh.action_spec()
    environment = dm_control.make(f"dm_control/{task}", 2)
    random = np.random.default_rng(0)
    environment.reset([0, 1], [2, 3])
    environment.step(random_action(environment, random))  # neither what came before nor the other slot leaves a trace

    observation, expected = environment.reset([0, 1], [4, 7]), fresh.reset().observation
    for _ in range(5):
        for key, array in environment.task.observation.items():
            assert observation[key].shape == (2, *array.shape) and observation[key].dtype == np.float32
            np.testing.assert_array_equal(observation[key][1], np.float32(expected[key]).reshape(array.shape))
        action = random_action(environment, random)
        step = environment.step(action)
        timestep = fresh.step(spec.minimum + (spec.maximum - spec.minimum) * (action[1].astype(np.float64) + 1) / 2)
        observation, expected = step.observation, timestep.observation
        assert step.reward[1] == np.float32(timestep.reward)
    environment.close()


@pytest.mark.parametrize("domain", sorted(dm_control.SHARED_MODELS))
def test_models_that_slots_share_are_never_written_to(domain: str) -> None:
    def model_bytes(model: mujoco.MjModel) -> bytes:
        buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
        mujoco.mj_saveModel(model, None, buffer)
        return buffer.tobytes()

    for name in suite.TASKS_BY_DOMAIN[domain]:
        environment = dm_control.make(f"dm_control/{domain}-{name}", 2)
        one, other = (each.physics.model.ptr for each in environment.environments)
        assert one is other
        before = model_bytes(one)
        environment.reset([0, 1], [0, 1])
        environment.step(random_action(environment, np.random.default_rng(0)))
        assert model_bytes(one) == before


def test_task_spec() -> None:
    environment = dm_control.make("dm_control/finger-turn_easy", 1)
    task = environment.task
    assert task.observation["dist_to_target"].shape == (1,)  # a scalar
    assert (task.action_repeat, task.max_episode_steps) == (2, 1000)
    assert (task.action.kind, task.action.shape, task.action.low, task.action.high) == ("continuous", (2,), -1, 1)


def test_slots_are_independent_and_reset_by_the_caller() -> None:
    together = dm_control.make(CARTPOLE, 3)
    together.reset([0, 1, 2], [5, 6, 7])
    random = np.random.default_rng(1)
    for _ in range(10):
        together.step(random_action(together, random))
    observation = together.reset([2, 0], [11, 12])
    for row, seed in enumerate([11, 12]):
        alone = dm_control.make(CARTPOLE, 1).reset([0], [seed])
        np.testing.assert_array_equal(observation["position"][row], alone["position"][0])


def test_the_time_limit_truncates_and_then_a_reset_is_due() -> None:
    environment = dm_control.make(CARTPOLE, 2, time_limit=0.03)
    assert environment.task.max_episode_steps == 3
    with pytest.raises(ValueError, match=r"slots \[0, 1\] must be reset"):
        environment.step(np.zeros((2, 1), np.float32))
    environment.reset([0, 1], [0, 1])
    action = np.zeros((2, 1), np.float32)
    assert not environment.step(action).done.any()
    environment.reset([1], [1])
    environment.step(action)
    step = environment.step(action)
    assert step.truncated.tolist() == [True, False] and not step.terminated.any()
    with pytest.raises(ValueError, match=r"slots \[0\] must be reset"):
        environment.step(action)


def test_discount_zero_terminates() -> None:
    environment = dm_control.make("dm_control/lqr-lqr_2_1", 1)  # ends when the state has come to rest
    assert environment.task.max_episode_steps == 0
    environment.reset([0], [0])
    physics = environment.environments[0].physics
    with physics.reset_context():
        physics.data.qpos[:] = 1e-12
    step = environment.step(np.zeros((1, 1), np.float32))
    assert step.terminated[0] and not step.truncated[0]


def test_actions_reach_the_bounds_of_the_task() -> None:
    environment = dm_control.make("dm_control/quadruped-walk", 1)
    spec = environment.environments[0].action_spec()
    assert spec.maximum.max() > 1  # or this test shows nothing
    environment.reset([0], [0])
    for sign, bound in ((-1, spec.minimum), (1, spec.maximum), (3, spec.maximum)):
        environment.step(np.full((1, *spec.shape), sign, np.float32))
        np.testing.assert_allclose(environment.environments[0].physics.data.ctrl, bound, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "near"), [("dm_control/cartpole-swing_up", CARTPOLE), ("dm_control/ballincup-catch", "ball_in_cup-catch")]
)
def test_an_unknown_task_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ValueError, match=near):
        dm_control.make(name, 1)


def test_wrong_arguments_and_actions_are_refused() -> None:
    with pytest.raises(ValueError, match="gravity"):
        dm_control.make(CARTPOLE, 1, gravity=3)
    with pytest.raises(ValueError, match="each reset names its seed"):
        dm_control.make(CARTPOLE, 1, random=3)
    environment = dm_control.make(CARTPOLE, 2)
    environment.reset([0, 1], [0, 1])
    for action in (np.zeros((1, 1), np.float32), np.full((2, 1), np.nan, np.float32)):
        with pytest.raises(ValueError, match="finite and have shape"):
            environment.step(action)


def test_a_diverging_simulation_is_named() -> None:
    environment = dm_control.make(CARTPOLE, 2)
    environment.reset([0, 1], [0, 1])
    environment.step(np.zeros((2, 1), np.float32))
    environment.environments[1].physics.data.qvel[:] = 1e11
    with pytest.raises(dm_control.PhysicsFailure, match=r"cartpole-swingup: slot 1 failed at step 2"):
        environment.step(np.zeros((2, 1), np.float32))


@pytest.mark.parametrize("library", [None, "no_such_library"])
def test_pictures_in_a_process_of_their_own(library: str | None) -> None:
    """OpenGL is loaded by the first picture and not before; where it cannot be, the error says what to do."""
    script = f"""
import sys
import numpy as np
from actors.environments import dm_control
from actors.environments.failures import LibraryMissing
import os
{f'os.environ["MUJOCO_GL"] = {library!r}' if library else ""}
environment = dm_control.make({CARTPOLE!r}, 2)
environment.reset([0, 1], [0, 1])
environment.environments[1].physics.data.qpos[0] = 1.0
assert not any(name.startswith(("OpenGL", "glfw")) for name in sys.modules), "OpenGL was loaded before it was asked for"
try:
    first, second, again = environment.render(0), environment.render(1), environment.render(0)
except LibraryMissing as error:
    print("refused:", error)
else:
    assert first.shape == (240, 320, 3) and first.dtype == np.uint8
    assert (first == again).all() and (first != second).any() and first.std() > 5
    environment.close()
    environment.close()
    print("drawn")
"""
    variables = {name: value for name, value in os.environ.items() if name != "MUJOCO_GL"}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=variables)
    assert answer.returncode == 0, answer.stderr
    if library:
        assert f"MUJOCO_GL={library}" in answer.stdout and "libegl1" in answer.stdout
    else:
        assert "drawn" in answer.stdout or "libegl1" in answer.stdout  # a machine without OpenGL is told so


@pytest.mark.parametrize("library", ["", "egl", "no_such_library"])
def test_state_tasks_need_no_opengl(library: str) -> None:
    """Whatever MUJOCO_GL says; ``quadruped-escape`` hands its terrain to OpenGL, were there one."""
    script = """
import sys
import numpy as np
from actors.environments import dm_control
environment = dm_control.make("dm_control/quadruped-escape", 2)
environment.reset([0, 1], [0, 1])
environment.step(np.zeros((2, 12), np.float32))
environment.close()
assert not any(name.startswith(("OpenGL", "glfw")) for name in sys.modules)
"""
    variables = {**os.environ, "MUJOCO_GL": library}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env=variables)
    assert answer.returncode == 0, answer.stderr
