"""A clone-and-restore planner for Boxing, around a rule, that does not know the emulator's random numbers.

Its labels are meant to be imitated. A planner that takes the best of many noisy look-aheads at every step wins by
knock-out (97 of 100 points), but what it does is no function of the screen: small policies cloned from five such
episodes lost, at about -18 points. So most of the play is a short rule on the positions of the boxers, and the plan,
which compares leaving the rule for a moment with following it, overrules it only where that is clearly better.

The look-ahead runs in a second emulator, to which the state of the game is copied *without* its random number
generator: sticky actions in the plan fall as they may, and cannot be those that will really come. Copying the generator
too would make an oracle whose labels depend on what no agent can see.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import ale_py
import numpy as np
from ale_py import Action, ALEInterface, roms

from actors.demonstrations.episode import ActionRecord
from actors.environments.atari import FRAME_SKIP, rom_name

PLAN_SEED = 7_919
"""Seed of the planning emulator: any constant, so that a seed always gives the same episode."""

# RAM of Boxing: positions in pixels (Anand et al. 2019, "Unsupervised State Representation Learning in Atari").
PLAYER_X, ENEMY_X, PLAYER_Y, ENEMY_Y = 32, 33, 34, 35
HIGHEST_Y, LOWEST_Y = 3, 87

_MOVES = {
    (0, 0): Action.NOOP,
    (0, -1): Action.UP,
    (0, 1): Action.DOWN,
    (1, 0): Action.RIGHT,
    (1, -1): Action.UPRIGHT,
    (1, 1): Action.DOWNRIGHT,
    (-1, 0): Action.LEFT,
    (-1, -1): Action.UPLEFT,
    (-1, 1): Action.DOWNLEFT,
}


@dataclasses.dataclass(frozen=True)
class BoxingRule:
    """Stand a little above or below the opponent, close enough to touch, and punch while it is beside a glove.

    Distances in pixels, found by random search; the player (white) is always on the left.

    Attributes:
        beside: height difference to stand at.
        apart: horizontal distance to stand at.
        slack_x, slack_y: distance from that place within which it does not walk.
        reach: horizontal distance up to which it punches.
        glove: height difference from which on a glove passes the opponent's and meets the head.
        margin: the side is chosen away from the rope when the opponent is nearer to it than this.
        swerve: height difference to that place from which on it does not come nearer: it walks beside first.
    """

    beside: int = 6
    apart: int = 15
    slack_x: int = 4
    slack_y: int = 7
    reach: int = 16
    glove: int = 9
    margin: int = 10
    swerve: int = 8

    def choose(self, ram: np.ndarray, last_enemy_y: int) -> Action:
        """Action for memory ``ram`` (uint8 [128]); ``last_enemy_y`` is where the opponent stood a step ago."""
        player_x, player_y = int(ram[PLAYER_X]), int(ram[PLAYER_Y])
        enemy_x, enemy_y = int(ram[ENEMY_X]), int(ram[ENEMY_Y])
        enemy_y = min(max(2 * enemy_y - last_enemy_y, HIGHEST_Y), LOWEST_Y)  # where it will be a step later
        side = 1 if player_y >= enemy_y else -1
        if enemy_y > LOWEST_Y - self.margin:
            side = -1
        elif enemy_y < HIGHEST_Y + self.margin:
            side = 1
        if enemy_x - player_x <= self.reach and side * (player_y - enemy_y) >= self.glove:
            return Action.FIRE
        to_x = enemy_x - self.apart - player_x
        to_y = enemy_y + side * self.beside - player_y
        move_x = int(np.sign(to_x)) if abs(to_x) > self.slack_x else 0
        move_y = int(np.sign(to_y)) if abs(to_y) > self.slack_y else 0
        if move_y and abs(to_y) > self.swerve:
            move_x = min(move_x, 0)
        return _MOVES[move_x, move_y]


@dataclasses.dataclass(frozen=True)
class PlannerOptions:
    """How the plan overrules the rule. ``candidates=()`` plays the rule alone.

    Measured on 15 episodes without noise: mean return 99 (95 to 100), in 250 to 490 steps and about 10 CPU-seconds
    each, 13% to 22% of labels other than the rule's. The rule alone: 69 on 12 episodes, 1 CPU-second.

    Attributes:
        hold: steps for which a candidate action is held before the rule goes on.
        horizon: steps of look-ahead, those included.
        replicas: plays of each candidate, each with its own sticky actions; their mean counts.
        gain: points that a candidate must promise above the rule.
        candidates: actions that may replace the rule's.
    """

    hold: int = 2
    horizon: int = 6
    replicas: int = 2
    gain: float = 2.0
    candidates: tuple[str, ...] = ("FIRE", "UP", "DOWN", "LEFT")


class AtariPlanner:
    """Expert of ``atari/boxing``; see `Expert`.

    Args:
        task_name: ``atari/boxing``; another game raises ValueError, since the rule reads this one's memory.
        arguments: those of the adapter (`actors.environments.atari.make`), which the play has to agree with.
        rule, options: see there.
    """

    name = "atari-planner"

    def __init__(
        self,
        task_name: str,
        arguments: Mapping[str, Any],
        rule: BoxingRule | None = None,
        options: PlannerOptions | None = None,
    ) -> None:
        rom = rom_name(task_name)
        if rom != "boxing":
            raise ValueError(f"the expert {self.name!r} plays atari/boxing only, not {task_name!r}")
        self.rule = rule or BoxingRule()
        self.options = options or PlannerOptions()
        self._rom = rom
        self._sticky = float(arguments.get("repeat_action_probability", 0.25))
        self._max_steps = int(arguments.get("max_episode_steps", 27_000))
        game = self._emulator(seed=0)
        full = bool(arguments.get("full_action_space", False))
        self._actions = list(game.getLegalActionSet() if full else game.getMinimalActionSet())
        self._candidates = [Action.__members__[name] for name in self.options.candidates]

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; ``noise`` is the probability that a uniformly random action is executed instead."""
        game = self._emulator(seed)
        plan = self._emulator(PLAN_SEED)
        noise_source = np.random.default_rng([seed, PLAN_SEED])
        actions: list[int] = []
        labels: list[int] = []
        episode_return = 0
        executed = Action.NOOP
        last_enemy_y = int(game.getRAM()[ENEMY_Y])
        while not game.game_over() and len(actions) < self._max_steps:
            ram = game.getRAM()
            executed = label = self._choose(game, plan, ram, last_enemy_y, executed)
            last_enemy_y = int(ram[ENEMY_Y])
            if noise_source.random() < noise:
                executed = self._actions[noise_source.integers(len(self._actions))]
            episode_return += _step(game, executed)
            actions.append(self._actions.index(executed))
            labels.append(self._actions.index(label))
        return ActionRecord(
            seed=seed,
            action=np.array(actions, np.int32),
            label=np.array(labels, np.int32),
            label_mask=np.ones(len(labels), bool),
            episode_return=float(episode_return),
            noisy=noise > 0.0,
        )

    def _choose(
        self, game: ALEInterface, plan: ALEInterface, ram: np.ndarray, last_enemy_y: int, executed: Action
    ) -> Action:
        """The rule's action, or the candidate that beats it by enough; ``executed`` is the action before this one."""
        usual = self.rule.choose(ram, last_enemy_y)
        others = [action for action in self._candidates if action != usual]
        if not others:
            return usual
        state = game.cloneState(include_rng=False)
        values = [self._value(state, plan, action, last_enemy_y, executed) for action in [usual, *others]]
        best = int(np.argmax(values[1:]))
        return others[best] if values[1 + best] >= values[0] + self.options.gain else usual

    def _value(
        self, state: ale_py.ALEState, plan: ALEInterface, first: Action, last_enemy_y: int, executed: Action
    ) -> float:
        """Mean points from holding ``first`` for some steps and following the rule afterwards."""
        total = 0
        for _ in range(self.options.replicas):
            # The action that a sticky frame repeats is no part of the state: by this frame the plan learns of it.
            plan.act(executed)
            plan.restoreState(state)
            seen = last_enemy_y
            for step in range(self.options.horizon):
                ram = plan.getRAM()
                total += _step(plan, first if step < self.options.hold else self.rule.choose(ram, seen))
                seen = int(ram[ENEMY_Y])
        return total / self.options.replicas

    def _emulator(self, seed: int) -> ALEInterface:
        """An emulator just after its reset, made and seeded exactly as ale-py's vector environment does it."""
        ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
        game = ALEInterface()
        game.setFloat("repeat_action_probability", self._sticky)
        game.setInt("random_seed", seed)
        rom_path = roms.get_rom_path(self._rom)
        assert rom_path is not None, self._rom  # rom_name has checked it
        game.loadROM(rom_path)
        game.reset_game()
        return game


def _step(game: ALEInterface, action: Action) -> int:
    """Reward of one step; a game that is over gives no more."""
    return sum(game.act(action) for _ in range(FRAME_SKIP))
