"""A clone-and-restore planner for Atari games that does not know the emulator's random numbers.

Where the game has a rule (`actors.experts.atari_rules`), most of the play is the rule's, and the plan, which compares
leaving the rule for a moment with following it, overrules it only where that is clearly better. Its labels are meant to
be imitated: a planner that takes the best of many noisy look-aheads at every step wins Boxing by knock-out (97 of 100
points), but what it does is no function of the screen: small policies cloned from five such episodes lost, at about -18
points. Games without a rule are played so all the same, by random shooting: it suits games whose rewards are dense.

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
from actors.experts.atari_rules import RULES, Rule
from actors.experts.expert import STEP_SECONDS, Sees, StepDeadline
from actors.experts.settings import from_entry, settings_file

PLAN_SEED = 7_919
"""Seed of the planning emulator: any constant, so that a seed always gives the same episode."""
FILE = "atari_planner"


@dataclasses.dataclass(frozen=True)
class RuleOptions:
    """How the plan overrules the rule. ``candidates=()`` plays the rule alone.

    Boxing's, measured on 15 episodes without noise: mean return 99 (95 to 100), in 250 to 490 steps and about 10
    CPU-seconds each, 13% to 22% of labels other than the rule's. The rule alone: 69 on 12 episodes, 1 CPU-second.

    Attributes:
        hold: steps for which a candidate action is held before the rule goes on.
        horizon: steps of look-ahead, those included.
        replicas: plays of each candidate, each with its own sticky actions; their mean counts.
        gain: points that a candidate must promise above the rule.
        candidates: actions that may replace the rule's.
        content: points of the rule's own look-ahead from which on no candidate is tried, which saves time.
    """

    hold: int = 2
    horizon: int = 6
    replicas: int = 2
    gain: float = 2.0
    candidates: tuple[str, ...] = ("FIRE", "UP", "DOWN", "LEFT")
    content: float = float("inf")


@dataclasses.dataclass(frozen=True)
class ShootingOptions:
    """Random shooting, for a game without a rule.

    Attributes:
        horizon: steps of look-ahead.
        samples: random plans at each planning; the rest of the plan in use is tried too.
        hold: mean steps for which a plan holds an action (geometric).
        commit: steps that are executed of a plan before the next planning.
        life: points that a life counts in a look-ahead.
        discount: of a step; makes earlier points better than later ones.
    """

    horizon: int = 16
    samples: int = 12
    hold: float = 4.0
    commit: int = 3
    life: float = 100.0
    discount: float = 0.98


class AtariPlanner:
    """Expert of Atari games; see `Expert`. Settings by game: ``configs/experts/atari_planner.yaml``.

    Args:
        task_name: ``atari/<rom>``; a game that the file does not list is played with its ``default``.
        arguments: those of the adapter (`actors.environments.atari.make`), which the play has to agree with.
        options: in the place of the file's; `RuleOptions` only for a game with a rule.
        step_seconds: deadline of a step.
    """

    name = "atari-planner"
    sees: Sees = "simulator state"

    def __init__(
        self,
        task_name: str,
        arguments: Mapping[str, Any],
        options: RuleOptions | ShootingOptions | None = None,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        self._rom = rom_name(task_name)
        if isinstance(options, RuleOptions) and self._rom not in RULES:
            raise ValueError(f"{task_name} has no rule to plan around (there are rules for {', '.join(RULES)})")
        self.options = options or _options_of(task_name, self._rom)
        self._task, self._step_seconds = task_name, step_seconds
        self._sticky = float(arguments.get("repeat_action_probability", 0.25))
        self._max_steps = int(arguments.get("max_episode_steps", 27_000))
        game = self._emulator(seed=0)
        full = bool(arguments.get("full_action_space", False))
        self._actions = list(game.getLegalActionSet() if full else game.getMinimalActionSet())

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; ``noise`` is the probability that a uniformly random action is executed instead."""
        deadline = StepDeadline(self.name, self._task, seed, self._step_seconds)
        game, plan = self._emulator(seed), self._emulator(PLAN_SEED)
        chooser: _AroundRule | _Shooting
        if isinstance(self.options, RuleOptions):
            chooser = _AroundRule(game, plan, RULES[self._rom](), self.options)
        else:
            random = np.random.default_rng([seed, PLAN_SEED, 1])
            chooser = _Shooting(game, plan, self._actions, self.options, random, deadline)
        noise_source = np.random.default_rng([seed, PLAN_SEED])
        actions: list[int] = []
        labels: list[int] = []
        episode_return = 0
        executed = Action.NOOP
        while not game.game_over() and len(actions) < self._max_steps:
            executed = label = chooser.choose(executed)
            if noise_source.random() < noise:
                executed = self._actions[noise_source.integers(len(self._actions))]
            episode_return += _step(game, executed)
            actions.append(self._actions.index(executed))
            labels.append(self._actions.index(label))
            deadline.next_step()
        return ActionRecord(
            seed=seed,
            action=np.array(actions, np.int32),
            label=np.array(labels, np.int32),
            label_mask=np.ones(len(labels), bool),
            episode_return=float(episode_return),
            noisy=noise > 0.0,
        )

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


class _AroundRule:
    """One episode: the rule's action, or the candidate that beats it by enough."""

    def __init__(self, game: ALEInterface, plan: ALEInterface, rule: Rule, options: RuleOptions) -> None:
        self._game, self._plan, self._rule, self._options = game, plan, rule, options
        self._candidates = [Action.__members__[name] for name in options.candidates]
        self._before = game.getRAM()

    def choose(self, executed: Action) -> Action:
        """Action for the game's present state; ``executed`` is the action before this one."""
        ram = self._game.getRAM()
        usual = self._rule.choose(ram, self._before)
        others = [action for action in self._candidates if action != usual]
        chosen = usual
        if others:
            state = self._game.cloneState(include_rng=False)
            follow = self._value(state, usual, executed)
            if follow - self._rule.potential(ram) < self._options.content:
                values = [self._value(state, action, executed) for action in others]
                best = int(np.argmax(values))
                if values[best] >= follow + self._options.gain:
                    chosen = others[best]
        self._before = ram
        return chosen

    def _value(self, state: ale_py.ALEState, first: Action, executed: Action) -> float:
        """Mean points from holding ``first`` for some steps and following the rule afterwards."""
        total, plan, rule = 0.0, self._plan, self._rule
        for _ in range(self._options.replicas):
            _restore(plan, state, executed)
            before = self._before
            for step in range(self._options.horizon):
                ram = plan.getRAM()
                total += _step(plan, first if step < self._options.hold else rule.choose(ram, before))
                before = ram
            total += rule.potential(plan.getRAM())
        return total / self._options.replicas


class _Shooting:
    """One episode: the best of random plans of held actions."""

    def __init__(
        self,
        game: ALEInterface,
        plan: ALEInterface,
        actions: list[Action],
        options: ShootingOptions,
        random: np.random.Generator,
        deadline: StepDeadline,
    ) -> None:
        self._game, self._plan, self._actions, self._options = game, plan, actions, options
        self._random, self._deadline = random, deadline
        self._best = self._sample()
        self._used = options.commit  # plan at the first step

    def choose(self, executed: Action) -> Action:
        """The plan's action for this step; a new plan where enough of the last was executed."""
        if self._used == self._options.commit:
            self._replan(executed)
        self._used += 1
        return self._actions[self._best[self._used - 1]]

    def _replan(self, executed: Action) -> None:
        state, lives = self._game.cloneState(include_rng=False), self._game.lives()
        rest = self._best[self._options.commit :]
        self._best = np.concatenate([rest, self._sample()[: self._options.commit]])
        best = self._value(state, self._best, executed, lives)
        for _ in range(self._options.samples):
            plan = self._sample()
            value = self._value(state, plan, executed, lives)
            if value > best:
                self._best, best = plan, value
            self._deadline.check()
        self._used = 0

    def _sample(self) -> np.ndarray:
        """Indices of actions, int [horizon]: each held for a geometric time."""
        horizon = self._options.horizon
        changes = np.cumsum(self._random.random(horizon) < 1 / self._options.hold)
        return self._random.integers(len(self._actions), size=horizon + 1)[changes]

    def _value(self, state: ale_py.ALEState, plan: np.ndarray, executed: Action, lives: int) -> float:
        _restore(self._plan, state, executed)
        value, weight = 0.0, 1.0
        for action in plan:
            value += weight * _step(self._plan, self._actions[action])
            if self._plan.game_over():
                break
            weight *= self._options.discount
        return value - self._options.life * max(lives - self._plan.lives(), 0)


class AtariRule(AtariPlanner):
    """The rule of a game alone, without a look-ahead: fast, and weak enough to improve on.

    Raises:
        ValueError: the game has no rule.
    """

    name = "atari-rule"

    def __init__(self, task_name: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(task_name, arguments, RuleOptions(candidates=()))


def _options_of(task_name: str, rom: str) -> RuleOptions | ShootingOptions:
    """Those of the settings file."""
    entries = settings_file(FILE)
    where = task_name if task_name in entries else "default"
    place = f"configs/experts/{FILE}.yaml: {where}"
    if rom in RULES:
        return from_entry(RuleOptions, entries[where], place)
    return from_entry(ShootingOptions, entries[where], place)


def _restore(plan: ALEInterface, state: ale_py.ALEState, executed: Action) -> None:
    """Put the planning emulator into ``state``, reached by the action ``executed``."""
    plan.restoreState(state)
    plan.act(executed)  # the action that a sticky frame repeats is no part of the state: so the plan learns of it
    plan.restoreState(state)


def _step(game: ALEInterface, action: Action) -> int:
    """Reward of one step; a game that is over gives no more."""
    return sum(game.act(action) for _ in range(FRAME_SKIP))
