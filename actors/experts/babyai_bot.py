"""The bot that ships with BabyAI: it reads the simulator's instruction, keeps a map of what it saw, and plans.

Chevalier-Boisvert et al. 2019, section 4. It advises: told what was really executed, it changes its plan, so that its
choice is a sound label under injected noise too (DART, Laskey et al. 2017).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from minigrid.utils.baby_ai_bot import BabyAIBot

from actors.demonstrations.episode import ActionRecord
from actors.environments.babyai import NUM_ACTIONS, make_level
from actors.experts.expert import Sees

NOISE_STREAM = 0xB0
"""Separates the noise of an episode from other generators made of the same seed."""

ROUNDS = 1_000
"""Looks at its subgoals after which the bot has no plan for a step. It needs some ten, or goes round for ever."""


class _Subgoals(list):  # type: ignore[type-arg]
    """The bot's stack of subgoals, which it may push and pop without an end (GoToImpUnlock, seed 6)."""

    looks = 0

    def __getitem__(self, place: Any) -> Any:
        self.looks += 1
        if self.looks > ROUNDS:
            raise RuntimeError(f"the bot has changed its plan for {ROUNDS} rounds in one step")
        return super().__getitem__(place)


class BabyAIBotExpert:
    """Plays one level with ``BabyAIBot``; see `actors.experts.expert.Expert`."""

    name = "babyai-bot"
    sees: Sees = "privileged information"

    def __init__(self, task_name: str, arguments: dict[str, Any]):
        self._environment = make_level(task_name, arguments)
        self._done = int(self._environment.actions.done)

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; with probability ``noise`` a uniformly random action is executed in the place of the bot's.

        An episode that the bot does not solve has return 0. Noise can make a mission impossible for the bot (an opened
        box vanishes): from there the agent idles to the end of the episode, and those steps are no labels.
        """
        environment = self._environment
        environment.reset(seed=seed)
        rng = np.random.default_rng([seed, NOISE_STREAM])
        made = BabyAIBot(environment)
        made.stack = subgoals = _Subgoals(made.stack)
        bot: BabyAIBot | None = made
        executed: int | None = None
        actions, labels, label_mask = [], [], []
        episode_return, done = 0.0, False
        while not done:
            label = self._done
            if bot is not None:
                subgoals.looks = 0
                try:
                    label = int(bot.replan(executed))
                except Exception:  # the bot asserts, raises its own errors, or goes round, where it has no plan
                    bot = None
            label_mask.append(bot is not None)
            executed = int(rng.integers(NUM_ACTIONS)) if bot is not None and rng.random() < noise else label
            labels.append(label)
            actions.append(executed)
            _, reward, terminated, truncated, _ = environment.step(executed)
            # In float32, as the adapter gives it, so that the replayed return is the same number.
            episode_return += float(np.float32(reward))
            done = terminated or truncated
        return ActionRecord(
            seed=seed,
            action=np.array(actions, np.int32),
            label=np.array(labels, np.int32),
            label_mask=np.array(label_mask, bool),
            episode_return=episode_return,
            noisy=noise > 0,
        )
