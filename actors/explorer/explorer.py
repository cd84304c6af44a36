"""`Explorer`: Go-Explore's first phase in one process: choose a cell, go back to it, act at random, keep what is new.

After Ecoffet et al. 2021 ("First return, then explore", Nature 590), without domain knowledge. The emulator has no
sticky actions here, so a list of actions leads to its cell again; what it is worth under sticky actions is seen by
replaying it (`actors.explorer.demonstrations`).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from actors.environments.atari import FRAME_SKIP
from actors.explorer.archive import Archive, Cell
from actors.explorer.cell_key import GREYS, HEIGHT, WIDTH, CellKey
from actors.explorer.emulator import Emulator
from actors.explorer.trajectory_tree import ROOT, TrajectoryTree


@dataclasses.dataclass(frozen=True)
class ExplorerSettings:
    """What decides an exploration, with the number of frames: the same settings give the same archive.

    Attributes:
        task: ``atari/<rom>``.
        seed: of the explorer's choices. The emulator has no randomness.
        steps: of one run from a cell.
        mean_hold: steps for which a random action is held, on average: geometric.
        end_on_life_loss: end a run there, as at the end of the game, so that demonstrations lose no life. Without it, a
            lost life puts the player back to a known place, and ways survive sticky actions more often
            (docs/exploration.md).
        capacity: most cells; each takes about 5 kB of memory.
        full_action_space: all 18 joystick actions.
        max_episode_steps: no way is longer.
        width, height, greys: of the key, see `CellKey`.
    """

    task: str
    seed: int = 0
    steps: int = 100
    mean_hold: float = 10.0
    end_on_life_loss: bool = False
    capacity: int = 50_000
    full_action_space: bool = False
    max_episode_steps: int = 27_000
    width: int = WIDTH
    height: int = HEIGHT
    greys: int = GREYS

    def __post_init__(self) -> None:
        for name, least in (("seed", 0), ("steps", 1), ("mean_hold", 1), ("capacity", 1), ("max_episode_steps", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} of an explorer must be at least {least}, not {getattr(self, name)}")


@dataclasses.dataclass(frozen=True)
class Find:
    """The shortest known way to a score, ending with the step that earned it.

    Attributes:
        length: its steps.
        node: in the `TrajectoryTree`.
    """

    length: int
    node: int


@dataclasses.dataclass
class Progress:
    """What an exploration did so far.

    Attributes:
        frames: emulated, returns excluded since they cost none.
        runs: from a cell.
        cpu_seconds: of this process, earlier ones that it continues included.
        best: highest score reached, 0 at first.
        firsts: frames and CPU-seconds at which each new best score was reached, oldest first.
        rooms: seen, where the game is known to say them; for reports only.
    """

    frames: int = 0
    runs: int = 0
    cpu_seconds: float = 0.0
    best: int = 0
    firsts: list[dict[str, float]] = dataclasses.field(default_factory=list)
    rooms: list[int] = dataclasses.field(default_factory=list)


class Explorer:
    """See the module. One emulator, one archive, one process.

    Attributes:
        finds: by score above 0, the shortest way to it.
    """

    def __init__(self, settings: ExplorerSettings) -> None:
        self._set_up(settings)
        self.tree = TrajectoryTree()
        self.archive = Archive(settings.capacity)
        self.finds: dict[int, Find] = {}
        self.progress = Progress()
        self.random = np.random.default_rng(settings.seed)
        first = self._key(self.game.see(), self.game.see_grey)
        self.archive.keep(Cell(first, self.game.state(), score=0, length=0, node=ROOT))
        self._note_room()

    def _set_up(self, settings: ExplorerSettings) -> None:
        self.settings = settings
        self.game = Emulator(settings.task, full_action_space=settings.full_action_space)
        self._key = CellKey(settings.width, settings.height, settings.greys)
        self._cpu = time.process_time()

    @classmethod
    def restored(
        cls,
        settings: ExplorerSettings,
        archive: Archive,
        tree: TrajectoryTree,
        finds: dict[int, Find],
        progress: Progress,
        random_state: dict[str, Any],
    ) -> Explorer:
        """An explorer that goes on exactly where one was when these were kept."""
        explorer = cls.__new__(cls)
        explorer._set_up(settings)
        explorer.archive, explorer.tree, explorer.finds, explorer.progress = archive, tree, finds, progress
        explorer.random = np.random.default_rng()
        explorer.random.bit_generator.state = random_state
        return explorer

    def run(self) -> None:
        """One run: at most ``steps`` steps from one cell, about 50 milliseconds."""
        settings, archive, game = self.settings, self.archive, self.game
        start = archive.select(self.random)
        cell = archive.cells[start]
        game.restore(cell.state)
        # Until the first step the screen is not the restored one: keys are taken after steps only.
        key, score, length, node = cell.key, cell.score, cell.length, cell.node
        steps = min(settings.steps, settings.max_episode_steps - length)
        visited, improved = {start}, set()
        since: list[int] = []  # actions after `node`
        lives = game.lives
        for action in self._actions(steps):
            reward = game.act(action)
            since.append(action)
            length, score = length + 1, score + reward
            self.progress.frames += FRAME_SKIP
            remaining = game.lives
            over = game.over or (settings.end_on_life_loss and remaining < lives)
            lives = remaining
            if reward:
                node, since = self._find(score, length, node, since)
            if over:
                break
            seen = self._key(game.see(), game.see_grey)
            if seen == key and not reward:
                continue
            key = seen
            if archive.wants(key, score, length):
                if since:
                    node, since = self.tree.add(node, since), []
                improved.add(archive.keep(Cell(key, game.state(), score, length, node)))
                self._note_room()
            number = archive.find(key)
            if number is not None:
                visited.add(number)
        archive.count(visited, improved)
        self.progress.runs += 1
        now = time.process_time()
        self.progress.cpu_seconds += now - self._cpu
        self._cpu = now

    def screens(self, cells: Sequence[int]) -> np.ndarray:
        """What some cells look like a step later, uint8 [N, 210, 160, 3]; the exploration is not disturbed."""
        pictures = []
        for number in cells:
            self.game.restore(self.archive.cells[number].state)
            self.game.act(0)  # drawn only by a step
            pictures.append(self.game.see_colour())
        return np.stack(pictures)

    def _actions(self, steps: int) -> list[int]:
        """Uniform random actions, each held for a geometric time, int [steps]."""
        holds = self.random.geometric(1.0 / self.settings.mean_hold, steps)
        choices = self.random.integers(len(self.game.actions), size=steps)
        actions: list[int] = np.repeat(choices, holds)[:steps].tolist()
        return actions

    def _find(self, score: int, length: int, node: int, since: list[int]) -> tuple[int, list[int]]:
        """Keep the way to a score that is new or was longer; returns the node and the actions after it."""
        known = self.finds.get(score)
        if score > 0 and (known is None or length < known.length):
            node, since = self.tree.add(node, since), []
            self.finds[score] = Find(length, node)
        if score > self.progress.best:
            self.progress.best = score
            cpu = self.progress.cpu_seconds + time.process_time() - self._cpu
            self.progress.firsts.append({"score": score, "frames": self.progress.frames, "cpu_seconds": round(cpu, 1)})
        return node, since

    def _note_room(self) -> None:
        room = self.game.room
        if room is not None and room not in self.progress.rooms:
            self.progress.rooms.append(room)
