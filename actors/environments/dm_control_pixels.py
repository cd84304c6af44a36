"""DeepMind Control Suite from pixels: ``dm_control_pixels/<domain>-<task>``, what the task's first camera sees.

Observation ``image``: uint8 [64, 64, 3], one frame a step. Simulation, actions, rewards, seeds and ends are those of
``dm_control/<domain>-<task>`` (`dm_control.py`); only what is observed differs. Drawn off screen by EGL without
shadows, reflections and multisampling, which take 9 tenths of the time in software: so pixels differ from the suite's
stock images, unless ``effects`` is asked for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.environments import dm_control
from actors.environments.failures import UnknownTask
from actors.environments.mujoco_pictures import MujocoPictures
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec

IMAGE_SIDE = 64


class DMControlPixelsEnvironment:
    """E environments of one task, seen through a camera; see `VectorEnvironment`.

    Attributes:
        state: the environments that are seen, for experts that read the simulator's state.
    """

    def __init__(self, task_name: str, state: dm_control.DMControlEnvironment, pictures: MujocoPictures) -> None:
        self.state = state
        self.num_envs = state.num_envs
        self.task = dataclasses.replace(
            state.task, name=task_name, observation={"image": ArraySpec("image", pictures.shape)}
        )
        self._pictures = pictures

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin episodes; see `VectorEnvironment.reset`."""
        self.state.reset(slots, seeds)
        return self._see(slots)

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all slots; see `DMControlEnvironment.step`."""
        step = self.state.step(action)
        return dataclasses.replace(step, observation=self._see(range(self.num_envs)))

    def render(self, slot: int) -> np.ndarray:
        """A larger picture than the agent's, uint8 [240, 320, 3]."""
        return self.state.render(slot)

    def close(self) -> None:
        """Free simulators and OpenGL contexts; harmless when repeated."""
        self._pictures.close()
        self.state.close()

    def _see(self, slots: Sequence[int]) -> Observation:
        physics = [self.state.environments[slot].physics for slot in slots]
        return {"image": np.stack([self._pictures.draw(each.model.ptr, each.data.ptr) for each in physics])}


def task_names() -> list[str]:
    """Every task of the suite, as ``dm_control_pixels/<domain>-<task>``."""
    return [name.replace("dm_control/", "dm_control_pixels/") for name in dm_control.task_names()]


def make(
    task_name: str,
    num_envs: int,
    *,
    height: int = IMAGE_SIDE,
    width: int = IMAGE_SIDE,
    camera: int | str = 0,
    effects: bool = False,
    **arguments: Any,
) -> DMControlPixelsEnvironment:
    """E environments of ``dm_control_pixels/<domain>-<task>``.

    Args:
        task_name: the task.
        num_envs: number of copies E.
        height, width: of the image, at least 16 (a patch).
        camera: number or name; 0 is the suite's own choice.
        effects: shadows, reflections and multisampling.
        arguments: for the suite's task (``time_limit``...).

    Raises:
        UnknownTask: with the nearest names.
        NoRenderer: no OpenGL library can draw here; the message has the packages to install.
        ValueError: an argument that cannot be used.
    """
    if task_name not in task_names():
        raise UnknownTask(task_name, task_names())
    if min(height, width) < 16:
        raise ValueError(f"{task_name}: height and width must be at least 16, not {height} x {width}")
    state = dm_control.make(task_name.replace("dm_control_pixels/", "dm_control/"), num_envs, **arguments)
    try:
        pictures = MujocoPictures(state.environments[0].physics.model.ptr, height, width, camera, effects)
    except ValueError as error:
        state.close()
        raise type(error)(f"{task_name}: {error}") from error
    return DMControlPixelsEnvironment(task_name, state, pictures)
