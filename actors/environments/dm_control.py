"""DeepMind Control Suite with state observations (Tassa et al. 2018): E environments stepped in one process.

Each key of the suite's observation becomes one float32 array (a scalar gets shape ``(1,)``). Actions are rescaled from
[-1, 1] to the bounds of the task, rewards are the suite's own, and the time limit truncates: the suite says so with a
discount of 1 at the last step, and a true end with a discount of 0. Nothing is reset automatically.

Two arguments change how a task is acted in, and not what it pays: ``action_grid`` (levels of each number of an action,
which becomes one discrete choice) and ``action_repeat`` (steps of the suite that an action is held for; their rewards
add up).
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from actors.environments.action_grid import ActionGrid
from actors.environments.failures import EnvironmentFailed, UnknownTask
from actors.environments.mujoco_pictures import MujocoPictures, without_renderer
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec, TaskSpec

with without_renderer():
    from dm_control import suite
    from dm_control.mujoco.engine import Contexts
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
        grid: from which actions are chosen; None where they are continuous.
        action_repeat: steps of the suite that an action is held for.
    """

    def __init__(
        self,
        task: TaskSpec,
        environments: list[control.Environment],
        grid: ActionGrid | None = None,
        action_repeat: int = 1,
    ) -> None:
        self.task = task
        self.grid = grid
        self.action_repeat = action_repeat
        self.num_envs = len(environments)
        self.environments = environments
        self._bounds = [_action_bounds(environment) for environment in environments]
        self._step_of_episode = np.full(self.num_envs, -1, np.int64)  # -1: must be reset first
        self._pictures: MujocoPictures | None = None

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin an episode in each of ``slots``; observations float32 [len(slots), *shape] in that order."""
        observation = self._empty(len(slots))
        for row, (slot, seed) in enumerate(zip(slots, seeds, strict=True)):
            environment = self.environments[slot]
            environment.task._random = np.random.RandomState(seed)
            try:
                timestep = environment.reset()
            except control.PhysicsError as error:
                raise self._failure(slot, 0, error) from error
            self._step_of_episode[slot] = 0
            for key, value in timestep.observation.items():
                observation[key][row] = value
        self._refuse_not_finite(observation, slots)
        return {**observation}

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all E slots; ``action`` is float32 [E, n] in [-1, 1] (clipped), or int32 [E] with a grid.

        Rewards float32 [E].

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
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, bool)
        truncated = np.zeros(self.num_envs, bool)
        if self.grid is not None:
            action = self.grid.values(action)
        # In float64, so that the executed control is a function of the stored float32 action on every machine.
        clipped = np.clip(action.astype(np.float64), -1.0, 1.0)
        for slot, environment in enumerate(self.environments):
            low, span = self._bounds[slot]
            self._step_of_episode[slot] += 1
            for _ in range(self.action_repeat):
                try:
                    timestep = environment.step(low + span * (clipped[slot] + 1.0))
                except control.PhysicsError as error:
                    raise self._failure(slot, self._step_of_episode[slot], error) from error
                reward[slot] += timestep.reward
                if timestep.last():
                    break
            for key, value in timestep.observation.items():
                observation[key][slot] = value
            if timestep.last():
                terminated[slot] = timestep.discount == 0.0
                truncated[slot] = not terminated[slot]
        self._refuse_not_finite({**observation, "reward": reward}, range(self.num_envs))
        self._step_of_episode[terminated | truncated] = -1
        return VectorStep({**observation}, reward, terminated, truncated)

    def render(self, slot: int) -> np.ndarray:
        """One slot from its first camera, without shadows, uint8 [240, 320, 3]; NoRenderer where OpenGL is missing."""
        physics = self.environments[slot].physics
        if self._pictures is None:
            self._pictures = MujocoPictures(physics.model.ptr, RENDER_HEIGHT, RENDER_WIDTH)
        return self._pictures.draw(physics.model.ptr, physics.data.ptr)

    def close(self) -> None:
        """Free simulators and the OpenGL context; harmless when repeated."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
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


class _NothingDrawn:
    """Stands in for dm_control's own OpenGL context, which is never made here.

    ``quadruped-escape`` hands its terrain to one at each reset, whether or not it draws; `MujocoPictures` reads the
    terrain from the model.
    """

    ptr = None

    @contextlib.contextmanager
    def make_current(self) -> Iterator[_NothingDrawn]:
        yield self

    def call(self, *_: Any) -> None:
        """Upload nothing."""

    def free(self) -> None:
        """Nothing is held."""


def make(
    task_name: str, num_envs: int, action_grid: int | None = None, action_repeat: int = 1, **arguments: Any
) -> DMControlEnvironment:
    """E environments of ``dm_control/<domain>-<task>``; other ``arguments`` go to the suite's task (``time_limit``...).

    Raises:
        UnknownTask: with the nearest names.
        ValueError: an argument that it does not take.
    """
    domain, task = _suite_task(task_name)
    if action_repeat < 1:
        raise ValueError(f"{task_name}: action_repeat must be at least 1, not {action_repeat}")
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
    for environment in environments:
        environment.physics._contexts = Contexts(gl=_NothingDrawn(), mujoco=_NothingDrawn())
    # From a reset: some tasks place what they observe only then.
    values = first.reset().observation
    continuous = ArraySpec("continuous", first.action_spec().shape, low=-1.0, high=1.0)
    try:
        grid = None if action_grid is None else ActionGrid(continuous.size, action_grid)
    except ValueError as error:
        raise ValueError(f"{task_name}: {error}") from None
    limit = first._step_limit
    spec = TaskSpec(
        name=task_name,
        observation={key: ArraySpec("continuous", np.shape(value) or (1,)) for key, value in values.items()},
        action=continuous if grid is None else grid.spec,
        action_repeat=first._n_sub_steps * action_repeat,
        max_episode_steps=0 if math.isinf(limit) else math.ceil(math.ceil(limit) / action_repeat),
    )
    return DMControlEnvironment(spec, environments, grid, action_repeat)


def task_names() -> list[str]:
    """Every task of the suite, as ``dm_control/<domain>-<task>``."""
    return [f"dm_control/{domain}-{task}" for domain, task in suite.ALL_TASKS]


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
        raise UnknownTask(task_name, names)
    return names[task_name]


def _action_bounds(environment: control.Environment) -> tuple[np.ndarray, np.ndarray]:
    """(low, half of high - low), float64 [n]; an actuator without limits keeps [-1, 1]."""
    spec = environment.action_spec()
    low = np.where(np.abs(spec.minimum) < UNBOUNDED, spec.minimum, -1.0)
    high = np.where(np.abs(spec.maximum) < UNBOUNDED, spec.maximum, 1.0)
    return low, (high - low) / 2
