"""Atari 2600 games through the vector environment that ships in ale-py.

What an agent sees and is given follows Machado et al. 2018 ("Revisiting the Arcade Learning Environment"): sticky
actions, raw rewards, no end on life loss, no no-op starts. The image is Gato's (Reed et al. 2022, section 3.1 and
appendix B): one RGB frame, without stacking, since the sequence model sees earlier frames in its context.
"""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium.vector import AutoresetMode

from actors.environments.vector_environment import Observation, VectorStep
from agent.task import ArraySpec, TaskSpec

IMAGE_HEIGHT = 64
IMAGE_WIDTH = 80
FRAME_SKIP = 4
"""Simulator frames for each step; the observation is the maximum of the last two of them."""
RENDER_SCALE = 4
FOR_TWO_PLAYERS = frozenset(("combat", "joust", "maze_craze", "warlords"))
"""ALE's interface of one player cannot start them, and ends the process where it is asked to."""
MAX_SEED = 2**31 - 1


class RomRefused(ValueError):
    """A ROM that is missing or is not the one that ale-py names; the message says what to do."""


class AtariEnvironment:
    """E copies of one game; see `VectorEnvironment`. Observation ``image``: uint8 [64, 80, 3] RGB."""

    def __init__(self, task: TaskSpec, vector: AtariVectorEnv) -> None:
        self.task = task
        self.num_envs: int = vector.num_envs
        self.lives = np.zeros(self.num_envs, np.int32)
        """Lives left in each slot, int32 [E]; for tests and analyses, never an observation."""
        self._vector = vector
        self._needs_reset = np.ones(self.num_envs, bool)
        self._started = False
        self._image = np.zeros((self.num_envs, IMAGE_HEIGHT, IMAGE_WIDTH, 3), np.uint8)

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin an episode in each slot. The seed, 0 to 2**31 - 1, decides all that is random in the emulator.

        About 0.1 s for each slot: ale-py takes a seed only by loading the game anew.
        """
        slots = [int(slot) for slot in slots]
        if len(slots) != len(seeds):
            raise ValueError(f"{self.task.name}: {len(slots)} slots were given {len(seeds)} seeds")
        if len(set(slots)) != len(slots) or not all(0 <= slot < self.num_envs for slot in slots):
            raise ValueError(f"{self.task.name}: slots must be different and below {self.num_envs}, not {slots}")
        for seed in seeds:
            if not 0 <= int(seed) <= MAX_SEED:
                raise ValueError(f"{self.task.name}: a seed must be between 0 and {MAX_SEED}, not {seed}")
        if not slots:
            return {"image": self._image[:0].copy()}
        by_slot = dict(zip(slots, seeds))
        mask = np.zeros(self.num_envs, bool)
        mask[slots] = True
        if not self._started:
            mask[:] = True  # ale-py wants every slot in its first reset; those not asked for still need theirs
            self._started = True
        ordered = np.array([by_slot.get(int(slot), 0) for slot in np.flatnonzero(mask)], np.int64)
        images, info = self._vector.reset(seed=ordered, options={"reset_mask": mask})
        self._needs_reset[slots] = False
        self._image = images[:, 0]
        self.lives = info["lives"]
        return {"image": images[slots, 0]}

    def step(self, action: np.ndarray) -> VectorStep:
        """Four frames of each game; ``action`` int [E]. A slot whose episode ended must have been reset."""
        if self._needs_reset.any():
            slots = np.flatnonzero(self._needs_reset).tolist()
            raise RuntimeError(f"{self.task.name}: slots {slots} have no episode; reset them before the next step")
        action = np.asarray(action)
        if action.shape != (self.num_envs,) or action.dtype.kind not in "iu":
            raise ValueError(
                f"{self.task.name}: actions must be integers of shape {(self.num_envs,)}, "
                f"not {action.dtype} {action.shape}"
            )
        if action.min() < 0 or action.max() >= self.task.action.num_values:
            raise ValueError(
                f"{self.task.name}: actions must be 0 to {self.task.action.num_values - 1}, not {action.tolist()}"
            )
        images, reward, terminated, truncated, info = self._vector.step(action.astype(np.int32))
        self._image = images[:, 0]
        self._needs_reset = terminated | truncated
        self.lives = info["lives"]
        return VectorStep({"image": self._image}, reward.astype(np.float32), terminated, truncated)

    def render(self, slot: int) -> np.ndarray:
        """The last observation of a slot, enlarged: uint8 [256, 320, 3]."""
        return self._image[slot].repeat(RENDER_SCALE, axis=0).repeat(RENDER_SCALE, axis=1)

    def close(self) -> None:
        """Stop the emulator threads; the environment cannot be used afterwards."""
        self._needs_reset[:] = True
        self._vector.close()
        vars(self._vector).pop("ale", None)  # its destructor joins the threads; gymnasium's close does not


def task_names() -> list[str]:
    """Every game for one player that ale-py ships, as ``atari/<rom>``."""
    return sorted(f"atari/{game}" for game in roms.get_all_rom_ids() if game not in FOR_TWO_PLAYERS)


def rom_name(task_name: str) -> str:
    """ROM of ``atari/<rom>``; an unknown game raises ValueError with the nearest names."""
    domain, _, game = task_name.partition("/")
    games = roms.get_all_rom_ids()
    if domain == "atari" and game in FOR_TWO_PLAYERS:
        raise ValueError(f"{task_name} is a game for two players, which has no interface for one")
    if domain != "atari" or game not in games:
        nearest = difflib.get_close_matches(game.lower().replace("-", "_"), games, n=3, cutoff=0.4)
        hint = f"; nearest: {', '.join('atari/' + name for name in nearest)}" if nearest else ""
        raise ValueError(f"no Atari game {task_name!r}{hint}. Names are atari/<snake_case name of the game>")
    return game


def make(
    task_name: str,
    num_envs: int,
    *,
    full_action_space: bool = False,
    repeat_action_probability: float = 0.25,
    max_episode_steps: int = 27_000,
    num_threads: int = 1,
) -> AtariEnvironment:
    """Environment of ``atari/<rom>``.

    Args:
        task_name: for example ``atari/montezuma_revenge``.
        num_envs: number of copies E.
        full_action_space: all 18 joystick actions, rather than those that the game uses.
        repeat_action_probability: that a *frame* repeats the action of the frame before it (sticky actions).
        max_episode_steps: steps after which an episode is cut; 27,000 are 30 minutes of play (Machado et al. 2018).
        num_threads: emulator threads of this process.

    Raises:
        ValueError: no such game, or an option out of range.
        RomRefused: its ROM is missing or has another checksum than ale-py's list says.
    """
    rom = rom_name(task_name)
    if num_envs < 1 or num_threads < 1 or max_episode_steps < 1:
        raise ValueError(f"{task_name}: num_envs, num_threads and max_episode_steps must be at least 1")
    if not 0.0 <= repeat_action_probability < 1.0:
        raise ValueError(f"{task_name}: repeat_action_probability must be in [0, 1), not {repeat_action_probability}")
    # Every option is given, also where it equals ale-py's default of today: the defaults are another protocol
    # (grey 84 x 84, stack of 4, clipped rewards, no-ops, FIRE at reset, no sticky actions).
    try:
        vector = AtariVectorEnv(
            rom,
            num_envs,
            batch_size=num_envs,
            num_threads=num_threads,
            thread_affinity_offset=-1,
            max_num_frames_per_episode=max_episode_steps * FRAME_SKIP,
            repeat_action_probability=repeat_action_probability,
            full_action_space=full_action_space,
            continuous=False,
            # ale-py knows no mode without autoreset. In this one, a slot that was reset by its caller before the next
            # step is not reset again, and `AtariEnvironment.step` refuses a slot that was not: so no reset step gets
            # out.
            autoreset_mode=AutoresetMode.NEXT_STEP,
            img_height=IMAGE_HEIGHT,
            img_width=IMAGE_WIDTH,
            grayscale=False,
            stack_num=1,
            frameskip=FRAME_SKIP,
            maxpool=True,
            noop_max=0,
            episodic_life=False,
            life_loss_info=False,
            reward_clipping=False,
            use_fire_reset=False,
        )
    except OSError as error:  # ale-py compares checksums itself
        raise RomRefused(
            f"{task_name}: the ROM cannot be used ({' '.join(str(error).split())}); ALE_ROMS_DIR is "
            f"{os.environ.get('ALE_ROMS_DIR', 'not set')}: unset it, or install ale-py anew (pip install "
            "--force-reinstall -c constraints.txt ale-py), which brings the ROMs that its scores are comparable with"
        ) from error
    task = TaskSpec(
        name=task_name,
        observation={"image": ArraySpec("image", (IMAGE_HEIGHT, IMAGE_WIDTH, 3))},
        action=ArraySpec("discrete", num_values=len(vector.ale.get_action_set())),
        action_repeat=FRAME_SKIP,
        max_episode_steps=max_episode_steps,
    )
    return AtariEnvironment(task, vector)


def data_checksums(task_name: str) -> dict[str, str]:
    """What the episodes of a game hang on beside libraries: the MD5 of its ROM, as ale-py lists it."""
    rom = rom_name(task_name)
    path = roms.get_rom_path(rom)
    assert path is not None, rom  # rom_name has checked it
    return {f"rom {rom}": hashlib.md5(Path(path).read_bytes()).hexdigest()}
