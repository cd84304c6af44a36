"""`WayTracker`: plays a way that an explorer found although sticky actions push it aside, and finds back to it.

A way is known without sticky actions. Played blindly under them, most of a long one fails (`replay` in
`actors.explorer.demonstrations`). The tracker looks where it stands: it compares the screen with those of the way, and
tries in a second emulator what comes of going on from there. As long as that stays on the way it does so; else it tries
going on a little further ahead or behind, waiting, and, where it is lost, random actions, and takes what comes nearest
to the way again. Its episodes show an imitator how to correct what went wrong, which replays that happened to succeed
do not.

With a *pilot*, a trained agent, it shows how to correct what goes wrong when the agent plays: the agent steers for
stretches of the episode and the tracker for the others, and every step is labelled with what the tracker would do
(DAgger, Ross et al. 2011, algorithm 3.1, with beta-mixtures by stretches instead of steps).

Nothing is known of the game but screens, lives and score. The second emulator is given the state of the game *without*
its random number generator, so that the tracker cannot know which actions will stick.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from ale_py import ALEState

from actors.demonstrations.episode import ActionRecord
from actors.experts.expert import Sees, StepDeadline
from actors.experts.policy_expert import PolicyExpert
from actors.explorer.demonstrations import Way
from actors.explorer.emulator import Emulator

PLAN_SEED = 7_919
"""Seed of the planning emulator: any constant, so that a seed always gives the same episode."""
STRIDE = 2
"""Screens are compared at every other pixel of every other row."""


@dataclasses.dataclass(frozen=True)
class TrackerOptions:
    """How far the tracker looks, and what it calls being on the way.

    Attributes:
        horizon: steps of a look ahead.
        replicas: plays of each candidate that seems good, each with its own sticky actions; their mean counts.
        block: steps between two looks.
        near: pixels of `STRIDE` by which the screen may differ from one of the way.
        gain: such pixels by which another plan must end nearer to the way than going on with it. Where an enemy is out
            of step for good, going on is right all the same.
        slip: steps of the way, before and behind the expected one, whose screens count.
        lost: such pixels from which on random actions are tried.
        life: what a life that the way does not lose counts, in pixels.
        shots: random beginnings that are tried where it is lost.
        longest_shot: their steps.
        patience: steps within which it must get further along the way than ever before.
        stretch: mean steps of a stretch that the pilot steers.
    """

    horizon: int = 20
    replicas: int = 2
    block: int = 4
    near: float = 25.0
    gain: float = 40.0
    slip: int = 8
    lost: float = 300.0
    life: float = 1500.0
    shots: int = 24
    longest_shot: int = 16
    patience: int = 240
    stretch: float = 40.0


@dataclasses.dataclass(frozen=True)
class _Plan:
    """Actions ``before`` going on with the way from step ``index``, and how far from the way that ends, in pixels."""

    distance: float
    before: tuple[int, ...]
    index: int


class WayTracker:
    """Plays one way under sticky actions; see `Expert`.

    Args:
        way: that is to be played.
        sticky: probability that a frame repeats the action of the frame before it.
        options: see there.
        pilot: an agent that steers where `play` is given noise; closed by `close`.
    """

    sees: Sees = "simulator state"

    def __init__(
        self, way: Way, sticky: float, options: TrackerOptions | None = None, pilot: PolicyExpert | None = None
    ) -> None:
        self.name = "way-tracker" if pilot is None else f"way-tracker with {pilot.name}"
        self.way = way
        self._pilot = pilot
        self.options = options or TrackerOptions()
        self._sticky = sticky
        settings = way.settings
        self._actions = way.actions.tolist()
        original = Emulator(settings.task, full_action_space=settings.full_action_space)
        screens, lives = [_look(original)], [original.lives]
        for action in self._actions:
            original.act(action)
            screens.append(_look(original))
            lives.append(original.lives)
        self._screens, self._lives = np.stack(screens), np.array(lives)
        self._plan = Emulator(settings.task, sticky, PLAN_SEED, settings.full_action_space)

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode from the reset, cut where the score of the way is reached.

        Where it gets no further for too long, or has taken three times the way's steps, it is cut behind the last point
        that it earned, and marked as noisy: where it ends is no return of the demonstrator. ``noise`` is the
        probability that a uniformly random action is executed instead; with a pilot, the share of steps that it steers.

        Raises:
            ExpertFailed: it earned nothing, or one step took too long.
        """
        way, settings = self.way, self.way.settings
        game = Emulator(settings.task, self._sticky, seed, settings.full_action_space)
        generator = np.random.default_rng([seed, PLAN_SEED])
        self._deadline = StepDeadline(self.name, settings.task, seed)
        limit = min(settings.max_episode_steps, 3 * len(way.actions))
        beside = self._pilot.begin(seed) if self._pilot is not None and noise else None
        steered, stretch = False, 0
        executed: list[int] = []
        labels: list[int] = []
        score = index = kept = kept_score = furthest = passed_at = 0
        while not game.over and len(executed) < min(limit, passed_at + self.options.patience) and score < way.score:
            lives = game.lives
            last = executed[-1] if executed else 0
            plan = self._choose(game.game.cloneState(), _look(game), lives, last, index, generator)
            index = plan.index
            # The beginning is taken whole, and then as many steps of the way as make up a block.
            following = range(index, min(index + max(1, self.options.block - len(plan.before)), len(self._actions)))
            for label, step in [*((a, None) for a in plan.before), *((self._actions[s], s) for s in following)]:
                action = label
                if beside is not None:
                    chosen = int(beside.choose()[0])
                    if stretch == 0:
                        steered = bool(generator.random() < noise)
                        stretch = int(generator.geometric(1 / self.options.stretch))
                    stretch -= 1
                    action = chosen if steered else label
                elif generator.random() < noise:
                    action = int(generator.integers(len(game.actions)))
                reward = game.act(action)
                if beside is not None and beside.execute(np.array([action], np.int32)).reward[0] != reward:
                    raise self._deadline.failed("the game that its pilot sees went another way")
                executed.append(action)
                labels.append(label)
                score += reward
                if reward and score > kept_score:
                    kept, kept_score = len(executed), score
                index = index if step is None else step + 1
                if game.over or game.lives < lives or score >= way.score or len(executed) >= limit:
                    break
                if beside is not None and action != label:
                    break  # the plan went on from elsewhere
            if game.lives < lives:  # it goes on elsewhere
                index = self._nearest(_look(game), 0, len(self._actions))[1]
            index = min(index, len(self._actions) - 1)
            # Elsewhere it may be taken for a later place: only where it is on the way does it get further.
            if index > furthest and plan.distance < self.options.lost:
                furthest, passed_at = index, len(executed)
            self._deadline.next_step()
        if not kept:
            raise self._deadline.failed("it was lost before it had earned a point")
        return ActionRecord(
            seed,
            np.array(executed[:kept], np.int32),
            np.array(labels[:kept], np.int32),
            np.ones(kept, bool),
            float(kept_score),
            noisy=noise > 0 or kept_score < way.score,
            cut=not (game.over and kept == len(executed)),
        )

    def close(self) -> None:
        """Close the pilot."""
        if self._pilot is not None:
            self._pilot.close()

    def _choose(
        self,
        state: ALEState,
        screen: np.ndarray,
        lives: int,
        last: int,
        index: int,
        generator: np.random.Generator,
    ) -> _Plan:
        """The first plan that ends on the way, or the one that ends nearest to it."""
        best = going_on = self._try(state, lives, last, (), index, self.options.replicas)
        if going_on.distance <= self.options.near + self.options.gain:
            return going_on
        for before, place in self._candidates(screen, last, index, going_on, generator):
            self._deadline.check()
            # Most are no good, and one play says so.
            if self._try(state, lives, last, before, place, 1).distance < best.distance:
                tried = self._try(state, lives, last, before, place, self.options.replicas)
                if tried.distance < best.distance:
                    best = tried
            if best.distance <= self.options.near:
                break
        return best if best.distance < going_on.distance - self.options.gain else going_on

    def _candidates(
        self, screen: np.ndarray, last: int, index: int, best: _Plan, generator: np.random.Generator
    ) -> Iterator[tuple[tuple[int, ...], int]]:
        """Beginnings and places of the way to go on from, the likeliest first."""
        end = len(self._actions) - 1
        seen = self._nearest(screen, 0, end + 1)[1]
        near = self._nearest(screen, index - 4, index + 5)[1]
        places = [near, seen, *(index + offset for offset in (-1, 1, -2, 2, -3, 3, -4, 4, -6, 6, -8, 8))]
        yield from (((), min(max(place, 0), end)) for place in dict.fromkeys(places) if place != index)
        yield from (((action,) * count, index) for action in {0, last} for count in (1, 2, 4, 8, 16))
        yield from (((0,) * count, min(seen, end)) for count in (2, 8))
        if best.distance < self.options.lost:
            return
        for _ in range(self.options.shots):
            shot: list[int] = []
            wanted = int(generator.integers(2, self.options.longest_shot + 1))
            while len(shot) < wanted:
                action = int(generator.integers(len(self._plan.actions)))
                shot += [action] * int(generator.geometric(1 / 6))
            yield tuple(shot[:wanted]), min(int(generator.choice([index, seen, seen + 4])), end)

    def _try(self, state: ALEState, lives: int, last: int, before: Sequence[int], index: int, replicas: int) -> _Plan:
        """How far from the way it ends to take ``before`` and go on from step ``index``, in pixels."""
        plan, total = self._plan, 0.0
        end = min(index + self.options.horizon, len(self._actions))
        lost_by_way = int(self._lives[index] - self._lives[end])
        for _ in range(replicas):
            # The action that a sticky frame repeats is no part of the state: by this step the plan learns of it.
            plan.act(last)
            plan.game.restoreState(state)
            for action in [*before, *self._actions[index:end]]:
                plan.act(action)
            total += self._nearest(_look(plan), end - self.options.slip, end + self.options.slip + 1)[0]
            total += self.options.life * max(0, lives - plan.lives - lost_by_way)
        return _Plan(total / replicas, tuple(before), index)

    def _nearest(self, screen: np.ndarray, first: int, stop: int) -> tuple[float, int]:
        """Distance to the nearest screen of the way within [first, stop), in pixels, and which it is."""
        first = max(0, first)
        distances = (self._screens[first:stop] != screen).sum((1, 2))
        place = int(distances.argmin())
        return float(distances[place]), first + place


def _look(game: Emulator) -> np.ndarray:
    return game.see()[::STRIDE, ::STRIDE].copy()
