"""`Emulator`: one Atari game whose states can be kept and returned to, as the explorer and its replays need it."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path

import ale_py
import numpy as np
from ale_py import ALEInterface, ALEState, roms

from actors.environments.atari import FRAME_SKIP, rom_name

SCREEN_HEIGHT, SCREEN_WIDTH = 210, 160
RAM_ROOM = {"montezuma_revenge": 3}
"""Byte of the memory that holds the room, by ROM: counted for reports and never seen by the explorer."""


class Emulator:
    """One step is `FRAME_SKIP` frames with one action, as in `actors.environments.atari`: without no-ops, from reset.

    Args:
        task_name: ``atari/<rom>``; another one raises ValueError with the nearest names.
        sticky: probability that a frame repeats the action of the frame before it.
        seed: of the sticky actions; taken only here, since ale-py takes a seed only by loading the game.
        full_action_space: all 18 joystick actions, rather than those that the game uses.
    """

    def __init__(self, task_name: str, sticky: float = 0.0, seed: int = 0, full_action_space: bool = False) -> None:
        self.rom = rom_name(task_name)
        ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        self.game = game = ALEInterface()
        game.setInt("frame_skip", FRAME_SKIP)
        game.setFloat("repeat_action_probability", sticky)
        game.setInt("random_seed", seed)
        game.loadROM(rom_path(self.rom))
        game.reset_game()
        self.actions = list(game.getLegalActionSet() if full_action_space else game.getMinimalActionSet())
        self.screen = np.zeros((SCREEN_HEIGHT, SCREEN_WIDTH), np.uint8)
        """Colour indices, filled by `see`. A game of another size raises ValueError here."""
        if game.getScreenDims() != self.screen.shape:
            raise ValueError(f"{task_name} has screens of {game.getScreenDims()}, not {self.screen.shape}")

    def act(self, action: int) -> int:
        """Reward of one step; ``action`` is an index, as in the task's action space."""
        return int(self.game.act(self.actions[action]))

    @property
    def over(self) -> bool:
        """Whether the game has ended."""
        return bool(self.game.game_over())

    @property
    def lives(self) -> int:
        """Lives left."""
        return int(self.game.lives())

    def see(self) -> np.ndarray:
        """Colour indices of the screen, uint8 [210, 160], overwritten by the next call. Stale after `restore`, until a
        step was made: the emulator draws only then."""
        self.game.getScreen(self.screen)
        return self.screen

    def see_grey(self) -> np.ndarray:
        """Brightness of the screen, uint8 [210, 160]."""
        return np.asarray(self.game.getScreenGrayscale())

    def see_colour(self) -> np.ndarray:
        """The screen, uint8 [210, 160, 3]."""
        return np.asarray(self.game.getScreenRGB())

    @property
    def room(self) -> int | None:
        """Where the game is known to say it, for reports only."""
        return int(self.game.getRAM()[RAM_ROOM[self.rom]]) if self.rom in RAM_ROOM else None

    def state(self) -> bytes:
        """All of the game but the random numbers of sticky actions, about 4 kB."""
        return zlib.compress(self.game.cloneState().serialize(), 1)

    def restore(self, state: bytes) -> None:
        """Go on from ``state``, of this game and version of ale-py; ValueError where it is damaged."""
        try:
            self.game.restoreState(ALEState(zlib.decompress(state)))
        except (zlib.error, SystemError, RuntimeError) as error:
            raise ValueError(f"a state of {self.rom} is damaged ({error}); begin the exploration anew") from error


def rom_path(rom: str) -> Path:
    """File of a ROM that ale-py ships."""
    path = roms.get_rom_path(rom)
    if path is None:
        raise ValueError(f"ale-py ships no ROM {rom!r}")
    return Path(path)


def rom_checksum(rom: str) -> str:
    """MD5 of the ROM, by which ale-py knows it too."""
    return hashlib.md5(rom_path(rom).read_bytes()).hexdigest()
