"""Any Gymnasium environment: by id (``gymnasium/CartPole-v1``) or by ``entry_point: module:function`` of the user.

E single environments in a list, so that each slot is reset by its caller with its own seed; Gymnasium's vector
environments reset themselves.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from actors.environments.failures import EnvironmentFailed, InvalidEnvironmentOutput, LibraryMissing, UnknownTask
from actors.environments.gymnasium_spaces import ActionForm, ObservationPart, action_form, observation_parts
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import TaskSpec

REGISTERED_BY = {"ALE/": "ale_py", "BabyAI-": "minigrid", "MiniGrid-": "minigrid"}
"""Libraries among Clowder's own dependencies that must be imported before Gymnasium knows their ids."""
SUCCESS_KEYS = ("success", "is_success")


class GymnasiumEnvironment:
    """E copies of one Gymnasium environment; see `VectorEnvironment`."""

    def __init__(
        self, task: TaskSpec, environments: list[gymnasium.Env], parts: list[ObservationPart], action: ActionForm
    ):
        self.task = task
        self.num_envs = len(environments)
        self._environments = environments
        self._parts = parts
        self._action = action
        self._steps = [0] * self.num_envs

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin episodes; see `VectorEnvironment.reset`."""
        rows = []
        for slot, seed in zip(slots, seeds, strict=True):
            self._steps[slot] = 0
            result = self._call(slot, "reset", seed=int(seed))
            if not isinstance(result, tuple) or len(result) != 2:
                raise self._refusal(slot, "reset did not return (observation, info), as Gymnasium's interface says")
            rows.append(self._read(slot, result[0]))
        return self._stack(rows)

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all slots; see `VectorEnvironment.step`."""
        rows = []
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        success: np.ndarray | None = None
        for slot in range(self.num_envs):
            self._steps[slot] += 1
            result = self._call(slot, "step", self._action.convert(action[slot]))
            if not isinstance(result, tuple) or len(result) != 5:
                raise self._refusal(
                    slot, "step did not return (observation, reward, terminated, truncated, info), as Gymnasium says"
                )
            observation, raw_reward, terminated[slot], truncated[slot], info = result
            rows.append(self._read(slot, observation))
            try:
                reward[slot] = raw_reward
            except (TypeError, ValueError):
                raise self._refusal(slot, f"the reward is {raw_reward!r}, not a number") from None
            for key in SUCCESS_KEYS:
                if key in info:
                    success = np.zeros(self.num_envs, bool) if success is None else success
                    success[slot] = bool(info[key])
        return VectorStep(self._stack(rows), reward, terminated, truncated, success)

    def render(self, slot: int) -> np.ndarray:
        """The environment's own picture; ValueError where it was made without ``render_mode: rgb_array``."""
        environment = self._environments[slot]
        picture = environment.render() if environment.render_mode == "rgb_array" else None
        if not isinstance(picture, np.ndarray) or picture.ndim != 3:
            raise ValueError(
                f"{self.task.name} draws no pictures; if it can, its config needs arguments: {{render_mode: rgb_array}}"
            )
        return picture

    def close(self) -> None:
        """Free the environments."""
        for environment in self._environments:
            environment.close()

    def _call(self, slot: int, method: str, *arguments: Any, **named: Any) -> Any:
        try:
            return getattr(self._environments[slot], method)(*arguments, **named)
        except Exception as error:
            given = ", ".join([*map(str, arguments), *(f"{key}={value}" for key, value in named.items())])
            raise EnvironmentFailed(
                f"{self.task.name}, slot {slot}, step {self._steps[slot]} of the episode: {method}({given}) raised "
                f"{type(error).__name__}: {error}"
            ) from error

    def _read(self, slot: int, observation: Any) -> list[np.ndarray | str]:
        row = []
        for part in self._parts:
            try:
                row.append(part.read(observation))
            except (KeyError, IndexError):
                raise self._refusal(slot, f"observation {part.key!r} is missing") from None
            except (TypeError, ValueError) as error:
                raise self._refusal(slot, f"observation {part.key!r} {error}") from None
        return row

    def _stack(self, rows: list[list[np.ndarray | str]]) -> Observation:
        stacked: Observation = {}
        for index, part in enumerate(self._parts):
            values = [row[index] for row in rows]
            if part.spec.kind == "text":
                stacked[part.key] = [str(value) for value in values]
            else:
                stacked[part.key] = np.array(values, part.spec.dtype).reshape(len(rows), *part.spec.shape)
        return stacked

    def _refusal(self, slot: int, problem: str) -> InvalidEnvironmentOutput:
        step = self._steps[slot]
        return InvalidEnvironmentOutput(f"{self.task.name}, slot {slot}, step {step} of the episode: {problem}")


def make(
    task_name: str,
    num_envs: int,
    *,
    entry_point: str | None = None,
    **arguments: Any,
) -> GymnasiumEnvironment:
    """E copies of a Gymnasium environment.

    Args:
        task_name: ``gymnasium/<id>``, or any name with ``entry_point`` or with the argument ``id``.
        num_envs: number of copies E.
        entry_point: ``module:function`` that is called with ``arguments`` and returns a `gymnasium.Env`.
        arguments: for the environment. ``id`` names an id with a slash in it: ``ALE/Pong-v5``.

    Raises:
        UnknownTask: no such id, with the nearest ones.
        SpaceNotSupported: its spaces cannot be tokenised.
        LibraryMissing, ValueError: it cannot be made; the message says why.
    """
    create = _from_entry_point(task_name, entry_point) if entry_point else _from_id(task_name, arguments)
    return single_environments(task_name, num_envs, create, arguments)


def single_environments(
    task_name: str,
    num_envs: int,
    create: Callable[..., gymnasium.Env],
    arguments: Mapping[str, Any],
    max_episode_steps: int | None = None,
) -> GymnasiumEnvironment:
    """E copies of what ``create(**arguments)`` returns; see `make` for what it raises.

    ``max_episode_steps`` is said by the caller where the environment has no registered limit.
    """
    environments: list[gymnasium.Env] = []
    try:
        for _ in range(num_envs):
            environments.append(create(**arguments))
        parts = observation_parts(environments[0].observation_space, task_name)
        action = action_form(environments[0].action_space, task_name)
        registered = environments[0].spec.max_episode_steps if environments[0].spec else None
        task = TaskSpec(
            name=task_name,
            observation={part.key: part.spec for part in parts},
            action=action.spec,
            max_episode_steps=max_episode_steps or registered or 0,
        )
    except gymnasium.error.DependencyNotInstalled as error:
        raise LibraryMissing(f"{task_name}: {error}") from error
    except (TypeError, ValueError) as error:
        for environment in environments:
            environment.close()
        if isinstance(error, ValueError):
            raise
        raise ValueError(f"{task_name}: cannot be made with arguments {dict(arguments)}: {error}") from error
    return GymnasiumEnvironment(task, environments, parts, action)


def _from_id(task_name: str, arguments: dict[str, Any]) -> Callable[..., gymnasium.Env]:
    """Maker of a registered environment; takes ``id`` out of ``arguments``, and asks for pictures where it can."""
    identifier = str(arguments.pop("id", task_name.removeprefix("gymnasium/")))
    if ":" in identifier:
        raise ValueError(f"{task_name}: the id {identifier!r} names a module; use entry_point: module:function")
    for prefix, library in REGISTERED_BY.items():
        if identifier.startswith(prefix):
            gymnasium.register_envs(importlib.import_module(library))
    try:
        spec = gymnasium.spec(identifier)
    except gymnasium.error.Error as error:
        raise UnknownTask(f"gymnasium/{identifier}", [f"gymnasium/{known}" for known in gymnasium.registry]) from error
    try:
        creator = spec.entry_point if callable(spec.entry_point) else load_env_creator(str(spec.entry_point))
    except ImportError as error:
        raise LibraryMissing(f"{task_name}: {identifier} needs a package that is not installed: {error}") from error
    if "rgb_array" in getattr(creator, "metadata", {}).get("render_modes", ()):
        arguments.setdefault("render_mode", "rgb_array")
    # Without the checker wrapper: `CheckedEnvironment` checks what comes out, every step.
    return lambda **given: gymnasium.make(spec, disable_env_checker=True, **given)


def _from_entry_point(task_name: str, entry_point: str) -> Callable[..., gymnasium.Env]:
    """Maker from the user's ``module:function``."""
    module_name, _, function_name = entry_point.partition(":")
    if not module_name or not function_name or ":" in function_name:
        raise ValueError(f"{task_name}: entry_point has the form module:function, not {entry_point!r}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # the module is there; something that it imports is not
        raise ValueError(
            f"{task_name}: entry_point {entry_point!r}: there is no module {error.name!r} on the path; install it, or "
            "put its folder on PYTHONPATH"
        ) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise ValueError(f"{task_name}: entry_point {entry_point!r}: {module_name} has no function {function_name!r}")

    def create(**given: Any) -> gymnasium.Env:
        environment = function(**given)
        if not isinstance(environment, gymnasium.Env):
            raise TypeError(f"{entry_point} returned a {type(environment).__name__}, not a gymnasium.Env")
        return environment

    return create
