"""BabyAI through minigrid: ``babyai/GoToLocal`` is ``BabyAI-GoToLocal-v0``.

Observation: ``grid`` (7 x 7 cells x (object, colour, state): what the agent sees), ``direction``, ``mission`` (text).
Seven discrete actions. Reward is minigrid's own: 1 - 0.9 * steps / limit on success, else 0.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium
import minigrid  # noqa: F401  (registers the levels)
import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.envs.babyai.core import roomgrid_level
from minigrid.envs.babyai.core.levelgen import LevelGen
from minigrid.envs.babyai.core.roomgrid_level import RoomGridLevel

from actors.environments.failures import EnvironmentFailed, UnknownTask
from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec, TaskSpec

VIEW = 7
GRID_VALUES = len(OBJECT_TO_IDX)
NUM_ACTIONS = 7
MISSION_BYTES, LONG_MISSION_BYTES = 256, 352
"""Upper limits of a mission's length, of one action and of a sequence of up to four (at most 321: "put the yellow ball
in front of you next to the yellow door in front of you" four times). Small enough for Gato's form of the observation:
with 148 symbols beside it, at most 512 tokens have a local position."""
PICTURE_PIXELS = 320
"""Upper limit of the longer side of a rendered picture."""

# The level generator prints each rejected layout; a module-level name shadows the builtin for that module alone, which
# is safe with threads (redirecting sys.stdout is not) and costs nothing.
roomgrid_level.print = lambda *_: None  # type: ignore[attr-defined]


@functools.cache
def levels() -> dict[str, str]:
    """Gymnasium id of the newest version of each level, by its name without prefix and version."""
    found = sorted(name for name in gymnasium.registry if name.startswith("BabyAI-"))
    return {name.removeprefix("BabyAI-").rpartition("-v")[0]: name for name in found}


def task_names() -> list[str]:
    """All tasks of this domain."""
    return [f"babyai/{name}" for name in levels()]


def make_level(task_name: str, arguments: dict[str, Any]) -> RoomGridLevel:
    """The bare level (no Gymnasium wrappers), with the fast `observe` in the place of its own ``gen_obs``.

    Raises UnknownTask with the nearest names.
    """
    level = levels().get(task_name.removeprefix("babyai/"))
    if level is None:
        raise UnknownTask(task_name, task_names())
    environment = gymnasium.make(level, disable_env_checker=True, **arguments).unwrapped
    assert isinstance(environment, RoomGridLevel)
    if environment.agent_view_size != VIEW or environment.see_through_walls:
        raise ValueError(f"{task_name}: agent_view_size and see_through_walls cannot be changed")
    environment.gen_obs = functools.partial(observe, environment)  # type: ignore[method-assign]
    return environment


@functools.cache
def _cells_in_view(direction: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Offset from the agent of each cell of its view, as rows of (dx, dy); the last row is the agent's own."""
    forward = ((1, 0), (0, 1), (-1, 0), (0, -1))[direction]
    right = (-forward[1], forward[0])
    return tuple(
        tuple(
            (
                forward[0] * (VIEW - 1 - j) + right[0] * (i - VIEW // 2),
                forward[1] * (VIEW - 1 - j) + right[1] * (i - VIEW // 2),
            )
            for i in range(VIEW)
        )
        for j in range(VIEW)
    )


@functools.cache
def _sweep_row(lit: int, clear: int) -> tuple[int, int]:
    """Bits seen in a row and in the row beyond it, given the bits lit so far and the bits that can be seen through.

    One row of minigrid's ``Grid.process_vis``: light spreads to the right, then to the left, and up on the way.
    """
    above = 0
    for step, columns in ((1, range(VIEW - 1)), (-1, range(VIEW - 1, 0, -1))):
        for i in columns:
            if lit >> i & 1 and clear >> i & 1:
                lit |= 1 << (i + step)
                above |= 1 << i | 1 << (i + step)
    return lit, above


_EMPTY = (OBJECT_TO_IDX["empty"], 0, 0)
_WALL = (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0)
_UNSEEN = (OBJECT_TO_IDX["unseen"], 0, 0)


def observe(environment: RoomGridLevel) -> dict[str, Any]:
    """What ``MiniGridEnv.gen_obs`` returns, value for value, in a fifth of the time.

    It reads the 49 cells in view in place; minigrid copies and rotates the grid up to five times.
    """
    x, y = (int(n) for n in environment.agent_pos)
    width, height, cells = environment.grid.width, environment.grid.height, environment.grid.grid
    codes: list[Any] = [_UNSEEN] * (VIEW * VIEW)
    lit = 1 << (VIEW // 2)
    for j in range(VIEW - 1, -1, -1):
        clear, row = 0, []
        for i, (dx, dy) in enumerate(_cells_in_view(environment.agent_dir)[j]):
            cell_x, cell_y = x + dx, y + dy
            if 0 <= cell_x < width and 0 <= cell_y < height:
                cell = cells[cell_y * width + cell_x]
                if cell is None:
                    clear |= 1 << i
                    row.append(_EMPTY)
                else:
                    if cell.see_behind():
                        clear |= 1 << i
                    row.append(cell.encode())
            else:
                row.append(_WALL)
        lit, above = _sweep_row(lit, clear)
        for i in range(VIEW):
            if lit >> i & 1:
                codes[i * VIEW + j] = row[i]
        lit = above
    # The agent sees what it carries in its own cell.
    carried = environment.carrying
    codes[VIEW // 2 * VIEW + VIEW - 1] = carried.encode() if carried else _EMPTY
    image = np.array(codes, np.uint8).reshape(VIEW, VIEW, 3)
    return {"image": image, "direction": environment.agent_dir, "mission": environment.mission}


class BabyAIEnvironment:
    """E levels in one process, each reset by the caller with its own seed; see `VectorEnvironment`."""

    def __init__(self, task: TaskSpec, environments: list[RoomGridLevel]):
        self.task = task
        self.num_envs = len(environments)
        self._environments = environments

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin episodes; see `VectorEnvironment.reset`."""
        observations = []
        for slot, seed in zip(slots, seeds, strict=True):
            try:
                observations.append(self._environments[slot].reset(seed=int(seed))[0])
            except Exception as error:
                raise self._failure(slot, f"reset(seed={seed})", error) from error
        return _stack(observations)

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all slots, ``action`` int32 [E]; see `VectorEnvironment.step`."""
        observations = []
        reward = np.zeros(self.num_envs, np.float32)
        terminated, truncated = np.zeros(self.num_envs, bool), np.zeros(self.num_envs, bool)
        for slot, (environment, chosen) in enumerate(zip(self._environments, action.tolist(), strict=True)):
            try:
                observation, reward[slot], terminated[slot], truncated[slot], _ = environment.step(chosen)
            except Exception as error:
                raise self._failure(slot, f"step({chosen})", error) from error
            observations.append(observation)
        # minigrid rewards success alone, and always by more than zero.
        return VectorStep(_stack(observations), reward, terminated, truncated, success=terminated & (reward > 0))

    def render(self, slot: int) -> np.ndarray:
        """The whole grid with the agent's view highlighted, uint8 [height, width, 3]."""
        environment = self._environments[slot]
        tile = max(4, PICTURE_PIXELS // max(environment.width, environment.height))
        return environment.get_frame(highlight=True, tile_size=tile)

    def close(self) -> None:
        """Free the levels."""
        for environment in self._environments:
            environment.close()

    def _failure(self, slot: int, call: str, error: Exception) -> EnvironmentFailed:
        return EnvironmentFailed(f"{self.task.name}, slot {slot}: {call} raised {type(error).__name__}: {error}")


def _stack(observations: list[dict[str, Any]]) -> Observation:
    """Observations of n levels in the dtypes of the task."""
    return {
        "grid": np.stack([observation["image"] for observation in observations]).astype(np.int32),
        "direction": np.array([observation["direction"] for observation in observations], np.int32),
        "mission": [observation["mission"] for observation in observations],
    }


def _longest_episode(environment: RoomGridLevel) -> int:
    """Upper limit of steps over the missions of a level: minigrid's own limit depends on the mission drawn.

    One "navigation" is worth the number of cells of the maze; a placing needs two, a sequence the sum of its parts.
    """
    if environment.fixed_max_steps:
        return environment.max_steps
    cells = environment.room_size**2 * environment.num_rows * environment.num_cols
    if isinstance(environment, LevelGen):
        per_action = 2 if "putnext" in environment.action_kinds else 1
        actions = max({"action": 1, "and": 2, "seq": 4}[kind] for kind in environment.instr_kinds)
        return cells * per_action * actions
    # Other levels draw from at most a few forms of instruction.
    navigations = []
    for seed in range(8):
        environment.reset(seed=seed)
        navigations.append(environment.num_navs_needed(environment.instrs))  # type: ignore[attr-defined]
    return cells * max(navigations)


def make(task_name: str, num_envs: int, **arguments: Any) -> BabyAIEnvironment:
    """E copies of one level; ``arguments`` go to the level's constructor (``room_size``, ``max_steps``, ...)."""
    environments = [make_level(task_name, arguments) for _ in range(num_envs)]
    long = "seq" in getattr(environments[0], "instr_kinds", ())
    task = TaskSpec(
        name=task_name,
        observation={
            "grid": ArraySpec("discrete", (VIEW, VIEW, 3), num_values=GRID_VALUES),
            "direction": ArraySpec("discrete", num_values=4),
            "mission": ArraySpec("text", max_bytes=LONG_MISSION_BYTES if long else MISSION_BYTES),
        },
        action=ArraySpec("discrete", num_values=NUM_ACTIONS),
        max_episode_steps=_longest_episode(environments[0]),
    )
    return BabyAIEnvironment(task, environments)
