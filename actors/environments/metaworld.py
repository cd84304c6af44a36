"""Meta-World (Yu et al. 2019): ``metaworld/<name>-v3``, the 50 tasks of MT50 with one Sawyer arm.

Observation ``state``: Meta-World's own 39 numbers, float32: hand, gripper and objects now (18), the same one step ago
(18), and the goal (3). The goal is there, as in the multi-task benchmarks MT1 to MT50 (and in what Gato's specialist
read, Reed et al. 2022, section 5.5), and as the scripted policies need it; the meta-learning benchmarks hide it. Four
actions in [-1, 1]: the hand's movement and the gripper's force. Rewards are raw (the library's "v2", 0 to 10 a step).

Objects and goal are drawn anew at each reset, from its seed alone; Meta-World's benchmarks draw from 50 fixed
placements instead. ``success`` stays true once the task was solved in an episode, which is how Meta-World counts. An
episode lasts 500 steps, unless ``terminate_on_success`` (Meta-World's own option for evaluation) ends it.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from actors.environments.failures import UnknownTask
from actors.environments.gymnasium_any import GymnasiumEnvironment, single_environments
from actors.environments.mujoco_pictures import MujocoPictures, without_renderer

with without_renderer():
    import metaworld
    import mujoco

STATE_SIZE = 39
MAX_EPISODE_STEPS = 500
"""Meta-World refuses to go on after as many."""
PICTURE_HEIGHT, PICTURE_WIDTH, CAMERA = 240, 320, "corner4"


class MetaWorldTask(gymnasium.Env):
    """One task, placed by the seed of each reset.

    Attributes:
        simulator: Meta-World's own environment, for experts that read its state.
    """

    render_mode = "rgb_array"
    observation_space = gymnasium.spaces.Dict(
        {"state": gymnasium.spaces.Box(-np.inf, np.inf, (STATE_SIZE,), np.float64)}
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (4,), np.float32)

    def __init__(
        self, name: str, max_episode_steps: int = MAX_EPISODE_STEPS, terminate_on_success: bool = False
    ) -> None:
        if not 1 <= max_episode_steps <= MAX_EPISODE_STEPS:
            raise ValueError(f"metaworld/{name}: max_episode_steps is 1 to {MAX_EPISODE_STEPS}")
        self.simulator = metaworld.ALL_V3_ENVIRONMENTS[name]()
        # What MT1 does by unpickling a `Task`, without its list of 50 placements (2 to 4 s to make).
        self.simulator._partially_observable = False
        self.simulator.__dict__.pop("sawyer_observation_space", None)  # cached from before the goal was to be seen
        self.simulator._set_task_called = True
        self.simulator._freeze_rand_vec = False
        self.simulator.seeded_rand_vec = True
        self._max_episode_steps = max_episode_steps
        self._terminate_on_success = terminate_on_success
        self._steps, self._solved = 0, False
        self._pictures: MujocoPictures | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Begin an episode; ``seed`` is always given here, and decides it alone."""
        assert seed is not None
        self._steps, self._solved = 0, False
        self.simulator.seed(seed)
        # Meta-World places objects before it resets the physics; nothing of the last episode may show.
        mujoco.mj_resetData(self.simulator.model, self.simulator.data)
        state, _ = self.simulator.reset()
        return {"state": state}, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """One of at most 500 steps."""
        state, reward, _, _, info = self.simulator.step(action)
        self._steps += 1
        self._solved |= bool(info["success"])
        terminated = self._terminate_on_success and self._solved
        truncated = self._steps >= self._max_episode_steps and not terminated
        return {"state": state}, float(reward), terminated, truncated, {"success": self._solved}

    def render(self) -> np.ndarray:  # type: ignore[override]
        """From the corner, without shadows, uint8 [240, 320, 3]; NoRenderer where OpenGL is missing."""
        if self._pictures is None:
            self._pictures = MujocoPictures(self.simulator.model, PICTURE_HEIGHT, PICTURE_WIDTH, CAMERA)
        return self._pictures.draw(self.simulator.model, self.simulator.data)[
            ::-1, ::-1
        ]  # its cameras hang upside down

    def close(self) -> None:
        """Free simulator and OpenGL context; harmless when repeated."""
        if self._pictures is not None:
            self._pictures.close()
            self._pictures = None
        self.simulator.close()


def task_names() -> list[str]:
    """All 50 tasks, as ``metaworld/<name>-v3``."""
    return [f"metaworld/{name}" for name in metaworld.ALL_V3_ENVIRONMENTS]


def make(task_name: str, num_envs: int, **arguments: Any) -> GymnasiumEnvironment:
    """E copies of one task; ``arguments`` are ``max_episode_steps`` (at most 500) and ``terminate_on_success``.

    Raises:
        UnknownTask: with the nearest names.
        ValueError: an argument that there is not.
    """
    if task_name not in task_names():
        raise UnknownTask(task_name, task_names())
    name = task_name.removeprefix("metaworld/")
    return single_environments(
        task_name,
        num_envs,
        lambda **given: MetaWorldTask(name, **given),
        arguments,
        max_episode_steps=arguments.get("max_episode_steps", MAX_EPISODE_STEPS),
    )
