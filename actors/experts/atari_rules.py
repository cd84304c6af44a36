"""Short rules of play for Atari games, on the emulator's memory: where there is one, the planner plans around it.

Addresses are those of Anand et al. 2019 ("Unsupervised State Representation Learning in Atari"), table 3 and code.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np
from ale_py import Action

# Boxing: positions in pixels.
PLAYER_X, ENEMY_X, PLAYER_Y, ENEMY_Y = 32, 33, 34, 35
HIGHEST_Y, LOWEST_Y = 3, 87
# Breakout: the bytes are 49, 48 and 47 more than pixels from the left; the ball's height counts downwards.
BALL_X, BALL_Y, PADDLE_X = 99, 101, 72
# Freeway: height of the chicken above its start.
CHICKEN_Y = 14

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


class Rule(Protocol):
    """What to do, from memory alone."""

    def choose(self, ram: np.ndarray, before: np.ndarray) -> Action:
        """Action for memory ``ram`` (uint8 [128]), which was ``before`` a step ago (the same at a game's start)."""
        ...

    def potential(self, ram: np.ndarray) -> float:
        """Points that the planner adds for where a look-ahead ends, beyond its rewards: its own shaping."""
        ...


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

    def choose(self, ram: np.ndarray, before: np.ndarray) -> Action:
        """See `Rule`; the opponent goes on for a step as it went in the last."""
        player_x, player_y = int(ram[PLAYER_X]), int(ram[PLAYER_Y])
        enemy_x, enemy_y = int(ram[ENEMY_X]), int(ram[ENEMY_Y])
        enemy_y = min(max(2 * enemy_y - int(before[ENEMY_Y]), HIGHEST_Y), LOWEST_Y)  # where it will be a step later
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

    def potential(self, ram: np.ndarray) -> float:
        """None."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class BreakoutRule:
    """Go where the ball will come down; serve when there is none.

    Attributes:
        slack: distance in pixels from that place within which the paddle, 16 wide, rests.
        paddle_y: height byte of the ball at the paddle.
        left, right: bytes of the ball at the walls.
    """

    slack: int = 4
    paddle_y: int = 180
    left: int = 57
    right: int = 200

    def choose(self, ram: np.ndarray, before: np.ndarray) -> Action:
        """See `Rule`."""
        x, y = int(ram[BALL_X]), int(ram[BALL_Y])
        if y == 0:
            return Action.FIRE
        speed_x, speed_y = x - int(before[BALL_X]), y - int(before[BALL_Y])
        if speed_y > 0 and int(before[BALL_Y]) > 0 and y < self.paddle_y:
            x += round(speed_x * (self.paddle_y - y) / speed_y)
            width = self.right - self.left
            x = self.left + abs((x - self.left + width) % (2 * width) - width)  # reflected at the walls
        offset = x - int(ram[PADDLE_X]) - 9
        if abs(offset) <= self.slack:
            return Action.NOOP
        return Action.RIGHT if offset > 0 else Action.LEFT

    def potential(self, ram: np.ndarray) -> float:
        """None."""
        return 0.0


@dataclasses.dataclass(frozen=True)
class FreewayRule:
    """Always up; a crossing is worth a point, and half a crossing half of one.

    Attributes:
        road: height of the other side above the start.
    """

    road: float = 170.0

    def choose(self, ram: np.ndarray, before: np.ndarray) -> Action:
        """See `Rule`."""
        return Action.UP

    def potential(self, ram: np.ndarray) -> float:
        """How much of the road lies behind the chicken."""
        return float(ram[CHICKEN_Y]) / self.road


RULES: dict[str, type[BoxingRule] | type[BreakoutRule] | type[FreewayRule]] = {
    "boxing": BoxingRule,
    "breakout": BreakoutRule,
    "freeway": FreewayRule,
}
"""By ROM."""
