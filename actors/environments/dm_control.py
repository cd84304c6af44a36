"""DeepMind Control Suite with state observations (Tassa et al. 2018): E environments stepped in one process.

Each key of the suite's observation becomes one float32 array (a scalar gets shape ``(1,)``). Actions are rescaled from
[-1, 1] to the bounds of the task, rewards are the suite's own, and the time limit truncates: the suite says so with a
discount of 1 at the last step, and a true end with a discount of 0. Nothing is reset automatically.
"""

from __future__ import annotations

import contextlib
import copy
import difflib
import importlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from actors.environments.failures import EnvironmentFailed
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec, TaskSpec


@contextlib.contextmanager
def _no_renderer_yet() -> Iterator[None]:
    """Unless the user named one, keep dm_control from loading OpenGL at import: 55 MB and half a second an actor.

    Pictures need neither: `DMControlEnvironment.render` makes a context of its own.
    """
    if "MUJOCO_GL" in os.environ:
        yield
        return
    os.environ["MUJOCO_GL"] = "disable"
    try:
        yield
    finally:
        del os.environ["MUJOCO_GL"]


with _no_renderer_yet():
    import dm_env
    import mujoco
    from dm_control import suite
    from dm_control.rl import control

RENDER_HEIGHT, RENDER_WIDTH = 240, 320
SHARED_MODELS = frozenset(
    ("acrobot", "ball_in_cup", "cartpole", "cheetah", "hopper", "humanoid", "humanoid_CMU", "pendulum", "walker")
)
"""Domains whose tasks never write to their model, so that E slots share one (11 MB of textures each)."""
UNBOUNDED = 1e9
"""MuJoCo writes 1e10 for an actuator without limits (the ``lqr`` domain)."""


class PhysicsFailure(EnvironmentFailed):
    """The simulation diverged; the message names the task, the slot and the step of the episode."""


class DMControlEnvironment:
    """E environments of one task of the suite.

    An episode depends on its seed and its actions only: a reset gives the task a fresh ``RandomState(seed)``, as
    ``suite.load(..., task_kwargs={"random": seed})`` would, without compiling the model again. (The ``lqr`` models are
    themselves random; here they are always those of seed 0.)

    Attributes:
        task: the `TaskSpec`.
        num_envs: E.
        environments: the suite's own environments by slot, for experts that read the simulator's state.
    """

    def __init__(self, task: TaskSpec, environments: list[control.Environment]) -> None:
        self.task = task
        self.num_envs = len(environments)
        self.environments = environments
        self._bounds = [_action_bounds(environment) for environment in environments]
        self._step_of_episode = np.full(self.num_envs, -1, np.int64)  # -1: must be reset first
        self._pictures: _Pictures | None = None

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin an episode in each of ``slots``; observations float32 [len(slots), *shape] in that order."""
        observation = self._empty(len(slots))
        for row, (slot, seed) in enumerate(zip(slots, seeds, strict=True)):
            environment = self.environments[slot]
            environment.task._random = np.random.RandomState(seed)
            try:
                timestep = _first_timestep(environment, self.task.name)
            except control.PhysicsError as error:
                raise self._failure(slot, 0, error) from error
            self._step_of_episode[slot] = 0
            for key, value in timestep.observation.items():
                observation[key][row] = value
        self._refuse_not_finite(observation, slots)
        return {**observation}

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all E slots; ``action`` is float32 [E, n] in [-1, 1] (clipped). Rewards float32 [E].

        Raises:
            ValueError: wrong shape or a NaN in the action, or a slot whose episode is over or never began.
            PhysicsFailure: the simulation diverged, or gave an observation or reward that is not finite.
        """
        expected = (self.num_envs, *self.task.action.shape)
        if action.shape != expected or not np.isfinite(action).all():
            raise ValueError(f"{self.task.name}: actions must be finite and have shape {expected}, not {action.shape}")
        if (self._step_of_episode < 0).any():
            slots = np.flatnonzero(self._step_of_episode < 0).tolist()
            raise ValueError(f"{self.task.name}: slots {slots} must be reset before they are stepped")
        observation = self._empty(self.num_envs)
        reward = np.empty(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        # In float64, so that the executed control is a function of the stored float32 action on every machine.
        clipped = np.clip(action.astype(np.float64), -1.0, 1.0)
        for slot, environment in enumerate(self.environments):
            low, span = self._bounds[slot]
            self._step_of_episode[slot] += 1
            try:
                timestep = environment.step(low + span * (clipped[slot] + 1.0))
            except control.PhysicsError as error:
                raise self._failure(slot, self._step_of_episode[slot], error) from error
            for key, value in timestep.observation.items():
                observation[key][slot] = value
            reward[slot] = timestep.reward
            if timestep.last():
                terminated[slot] = timestep.discount == 0.0
                truncated[slot] = not terminated[slot]
        self._refuse_not_finite({**observation, "reward": reward}, range(self.num_envs))
        self._step_of_episode[terminated | truncated] = -1
        return VectorStep({**observation}, reward, terminated, truncated)

    def render(self, slot: int) -> np.ndarray:
        """One slot from its first camera, without shadows; uint8 [240, 320, 3].

        Raises:
            RuntimeError: no OpenGL library can draw here.
        """
        if self._pictures is None or self._pictures.slot != slot:
            self._free_pictures()
            self._pictures = _Pictures(slot, self.environments[slot].physics)
        return self._pictures.draw()

    def close(self) -> None:
        """Free simulators and the OpenGL context; harmless when repeated."""
        self._free_pictures()
        for environment in self.environments:
            environment.close()
        self.environments = []

    def _empty(self, rows: int) -> dict[str, np.ndarray]:
        return {key: np.empty((rows, *spec.shape), np.float32) for key, spec in self.task.observation.items()}

    def _refuse_not_finite(self, arrays: dict[str, np.ndarray], slots: Sequence[int]) -> None:
        for key, array in arrays.items():
            if not np.isfinite(array).all():
                row = int(np.argwhere(~np.isfinite(array))[0, 0])
                raise self._failure(slots[row], int(self._step_of_episode[slots[row]]), f"{key} is not finite")

    def _failure(self, slot: int, step: int, cause: object) -> PhysicsFailure:
        self._step_of_episode[slot] = -1
        return PhysicsFailure(f"{self.task.name}: slot {slot} failed at step {step} of its episode: {cause}")

    def _free_pictures(self) -> None:
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None


class _Pictures:
    """Draws one slot. Shadows and reflections are off: in software they take 9 tenths of the time."""

    def __init__(self, slot: int, physics: Any) -> None:
        self.slot = slot
        self._model, self._data = physics.model.ptr, physics.data.ptr
        library = os.environ.get("MUJOCO_GL", "egl").lower()
        try:
            context_class = importlib.import_module(f"mujoco.{library}").GLContext
            self._model.vis.quality.shadowsize = 0
            self._model.vis.quality.offsamples = 0
            self._gl = context_class(RENDER_WIDTH, RENDER_HEIGHT)
            self._gl.make_current()
            self._context = mujoco.MjrContext(self._model, mujoco.mjtFontScale.mjFONTSCALE_100.value)
        except Exception as error:  # PyOpenGL and the drivers raise whatever they like
            raise RuntimeError(
                f"no OpenGL context by MUJOCO_GL={library} ({type(error).__name__}: {error}); install a software one "
                "(Debian: apt-get install libegl1 libgl1-mesa-dri) or set MUJOCO_GL to egl, osmesa or glfw"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN.value, self._context)
        self._scene = mujoco.MjvScene(model=self._model, maxgeom=1000)
        self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._camera = mujoco.MjvCamera()
        if self._model.ncam:
            self._camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            self._camera.fixedcamid = 0
        self._option = mujoco.MjvOption()

    def draw(self) -> np.ndarray:
        picture = np.empty((RENDER_HEIGHT, RENDER_WIDTH, 3), np.uint8)
        area = mujoco.MjrRect(0, 0, RENDER_WIDTH, RENDER_HEIGHT)
        every_category = mujoco.mjtCatBit.mjCAT_ALL.value
        self._gl.make_current()
        mujoco.mjv_updateScene(self._model, self._data, self._option, None, self._camera, every_category, self._scene)
        mujoco.mjr_render(area, self._scene, self._context)
        mujoco.mjr_readPixels(picture, None, area, self._context)
        return np.ascontiguousarray(picture[::-1])  # OpenGL's rows go upwards

    def close(self) -> None:
        self._gl.make_current()
        self._context.free()
        self._gl.free()


def make(task_name: str, num_envs: int, **arguments: Any) -> DMControlEnvironment:
    """E environments of ``dm_control/<domain>-<task>``; other ``arguments`` go to the suite's task (``time_limit``...).

    Raises:
        ValueError: unknown task (with the nearest names), or an argument that it does not take.
    """
    domain, task = _suite_task(task_name)
    if "random" in arguments:
        raise ValueError(f"{task_name}: the argument 'random' is not taken: each reset names its seed")
    try:
        first = suite.load(domain, task, task_kwargs={"random": 0, **arguments})
        if domain in SHARED_MODELS:
            environments = [first, *(_sharing_the_model(first) for _ in range(num_envs - 1))]
        else:
            environments = [first]
            environments += [
                suite.load(domain, task, task_kwargs={"random": 0, **arguments}) for _ in range(num_envs - 1)
            ]
    except TypeError as error:
        raise ValueError(f"{task_name} does not take these arguments: {error}") from error
    # From a reset: some tasks place what they observe only then.
    values = _first_timestep(first, task_name).observation
    spec = TaskSpec(
        name=task_name,
        observation={key: ArraySpec("continuous", np.shape(value) or (1,)) for key, value in values.items()},
        action=ArraySpec("continuous", first.action_spec().shape, low=-1.0, high=1.0),
        action_repeat=first._n_sub_steps,
        max_episode_steps=0 if math.isinf(first._step_limit) else math.ceil(first._step_limit),
    )
    return DMControlEnvironment(spec, environments)


def task_names() -> list[str]:
    """Every task of the suite, as ``dm_control/<domain>-<task>``."""
    return [f"dm_control/{domain}-{task}" for domain, task in suite.ALL_TASKS]


def _first_timestep(environment: control.Environment, task_name: str) -> dm_env.TimeStep:
    """Reset; ``quadruped-escape`` hands its terrain to OpenGL there, even where nothing is drawn."""
    try:
        return environment.reset()
    except RuntimeError as error:
        if "OpenGL" not in str(error):
            raise
        raise RuntimeError(
            f"{task_name} needs OpenGL at its resets; set MUJOCO_GL=egl before Clowder starts"
        ) from error


def _sharing_the_model(first: control.Environment) -> control.Environment:
    """Another environment of the same task, with simulation data of its own."""
    other = copy.copy(first)
    other._task = copy.deepcopy(first.task)
    other._physics = first.physics.copy(share_model=True)
    other._physics.legacy_step = first.physics.legacy_step
    return other


def _suite_task(task_name: str) -> tuple[str, str]:
    names = dict(zip(task_names(), suite.ALL_TASKS))
    if task_name not in names:
        near = difflib.get_close_matches(task_name, names, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see dm_control.suite.ALL_TASKS"
        raise ValueError(f"unknown DM Control task {task_name!r}; {hint}")
    return names[task_name]


def _action_bounds(environment: control.Environment) -> tuple[np.ndarray, np.ndarray]:
    """(low, half of high - low), float64 [n]; an actuator without limits keeps [-1, 1]."""
    spec = environment.action_spec()
    low = np.where(np.abs(spec.minimum) < UNBOUNDED, spec.minimum, -1.0)
    high = np.where(np.abs(spec.maximum) < UNBOUNDED, spec.maximum, 1.0)
    return low, (high - low) / 2
