import os
import subprocess
import sys

import numpy as np
import pytest

from actors.environments import dm_control, dm_control_pixels
from actors.environments.failures import LibraryMissing, UnknownTask

CARTPOLE = "dm_control_pixels/cartpole-swingup"


def make_or_skip(task: str = CARTPOLE, num_envs: int = 2, **arguments: object) -> object:
    try:
        return dm_control_pixels.make(task, num_envs, **arguments)
    except LibraryMissing as error:
        pytest.skip(str(error))


def test_pixels_show_the_simulation_of_the_state_task() -> None:
    environment = make_or_skip()
    state = dm_control.make("dm_control/cartpole-swingup", 2)
    task = environment.task
    assert task.observation["image"].shape == (64, 64, 3) and task.observation["image"].kind == "image"
    assert (task.action, task.max_episode_steps) == (state.task.action, state.task.max_episode_steps)
    first = environment.reset([0, 1], [5, 6])["image"]
    state.reset([0, 1], [5, 6])
    assert first.shape == (2, 64, 64, 3) and first.dtype == np.uint8 and (first[0] != first[1]).any()
    random = np.random.default_rng(0)
    for _ in range(20):
        action = random.uniform(-1, 1, (2, 1)).astype(np.float32)
        step, expected = environment.step(action), state.step(action)
        np.testing.assert_array_equal(step.reward, expected.reward)
    assert (step.observation["image"] != first).any()
    again = environment.reset([1], [6])["image"]
    np.testing.assert_array_equal(again[0], first[1])
    assert environment.render(0).shape == (240, 320, 3)
    environment.close()
    environment.close()


@pytest.mark.parametrize("task", ["quadruped-escape", "manipulator-bring_ball", "point_mass-hard", "lqr-lqr_6_2"])
def test_slots_whose_models_differ_are_drawn_as_if_alone(task: str) -> None:
    """One OpenGL context draws every slot, also where resets write to the model (terrain, sizes, colours)."""
    together = make_or_skip(f"dm_control_pixels/{task}", 2)
    image = together.reset([0, 1], [1, 2])["image"]
    together.close()
    for row, seed in enumerate((1, 2)):
        alone = dm_control_pixels.make(f"dm_control_pixels/{task}", 1)
        np.testing.assert_array_equal(alone.reset([0], [seed])["image"][0], image[row])
        alone.close()


def test_effects_size_and_camera_are_arguments() -> None:
    plain = make_or_skip("dm_control_pixels/walker-walk", 1)
    rich = make_or_skip("dm_control_pixels/walker-walk", 1, effects=True)
    wide = make_or_skip("dm_control_pixels/walker-walk", 1, height=48, width=80, camera="back")
    images = [environment.reset([0], [0])["image"][0] for environment in (plain, rich, wide)]
    assert (images[0] != images[1]).any() and images[2].shape == (48, 80, 3)
    for environment in (plain, rich, wide):
        environment.close()


@pytest.mark.parametrize(
    ("task", "arguments", "kind", "message"),
    [
        ("dm_control_pixels/cartpole-swing_up", {}, UnknownTask, CARTPOLE),
        (CARTPOLE, {"height": 8}, ValueError, "at least 16"),
        (CARTPOLE, {"camera": "behind"}, ValueError, "there are: fixed, lookatcart"),
        (CARTPOLE, {"camera": 9}, ValueError, "there are 2"),
        (CARTPOLE, {"gravity": 3}, ValueError, "gravity"),
    ],
)
def test_refusals(task: str, arguments: dict, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        dm_control_pixels.make(task, 1, **arguments)


def test_without_egl_pixels_are_refused_with_the_packages_and_state_goes_on() -> None:
    """EGL is broken by naming a driver that is not there; the process goes on with a state task."""
    script = """
import numpy as np
from actors.config import ActorConfig
from actors.environments.failures import LibraryMissing
from actors.environments.make import list_tasks, make_environment
pixels = ActorConfig(task="dm_control_pixels/cartpole-swingup")
try:
    make_environment(pixels, 1)
except LibraryMissing as error:
    print("refused:", error)
(listing,) = list_tasks({"pixels": pixels})
assert "libegl1" in listing.problem
state = make_environment(ActorConfig(task="dm_control/cartpole-swingup"), 1)
state.reset([0], [0])
print("state goes on:", state.step(np.zeros((1, 1), np.float32)).reward)
"""
    broken = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nowhere.json", "MUJOCO_GL": "egl"}
    variables = {**os.environ, **broken}
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=100, env=variables)
    assert answer.returncode == 0, answer.stderr
    assert "refused: dm_control_pixels/cartpole-swingup: no OpenGL context" in answer.stdout
    assert "apt-get install libegl1 libegl-mesa0 libgl1-mesa-dri" in answer.stdout and "state goes on" in answer.stdout
