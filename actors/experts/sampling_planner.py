"""Plans continuous actions by sampling: MPPI's weighted mean with the additions of the improved cross-entropy method.

Williams et al. 2017 ("Information theoretic MPC") weigh sampled plans by their returns; Pinneri et al. 2020
("Sample-efficient cross-entropy method for real-time planning") add coloured noise, elites that are kept from step to
step, and the shifted mean as a start. Knows no simulator: returns of plans come from a function.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Literal

import numpy as np


@dataclasses.dataclass(frozen=True)
class PlannerSettings:
    """Settings of one task.

    Attributes:
        horizon: steps that a plan looks ahead.
        samples: new plans at each iteration.
        iterations: at each planning.
        first_iterations: at an episode's start.
        replan: steps that are executed of a plan before the next planning.
        deviation: standard deviation of the noise, in units of the action's half range.
        colour: exponent of the noise's spectrum: 0 is white, 2 a random walk; larger is slower.
        elites: best plans that the mean is made of.
        kept: best plans that are tried again at the next iteration or planning.
        temperature: of the weights, in units of the difference between the best and the worst elite.
        floor: smallest standard deviation of later iterations.
        execute: the ``mean`` of the elites (smooth labels), or the ``best`` plan (where means hit nothing).
        shaping: weight of the planner's own shaping term; 0 plans for the environment's reward alone.
        terminal: the last reward of a plan counts this often, for what follows it.
    """

    horizon: int
    samples: int = 32
    iterations: int = 1
    first_iterations: int = 4
    replan: int = 1
    deviation: float = 0.5
    colour: float = 1.0
    elites: int = 8
    kept: int = 3
    temperature: float = 0.3
    floor: float = 0.1
    execute: Literal["mean", "best"] = "mean"
    shaping: float = 0.0
    terminal: float = 1.0


class SamplingPlanner:
    """One episode's plan of actions within [-1, 1].

    Args:
        settings: see there.
        actions: numbers of one action, n.
        returns: returns [m] of plans [m, horizon, n]; a plan that is not finite gives -inf.
        random: source of all noise.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        actions: int,
        returns: Callable[[np.ndarray], np.ndarray],
        random: np.random.Generator,
    ) -> None:
        self.settings = settings
        self.plan = np.zeros((settings.horizon, actions))
        """The plan to execute, float64 [horizon, n]."""
        self._mean = self.plan.copy()
        self._kept = np.zeros((0, settings.horizon, actions))
        self._returns, self._random = returns, random
        frequency = np.fft.rfftfreq(settings.horizon)
        frequency[0] = frequency[1] if settings.horizon > 1 else 1.0
        self._spectrum = frequency ** (-settings.colour / 2)
        white = np.fft.irfft(self._spectrum, settings.horizon)  # its energy is the variance of the coloured noise
        self._spectrum /= np.sqrt(np.sum(white**2))

    def improve(self, iterations: int, check: Callable[[], None]) -> bool:
        """Sample around the plan so many times, with ``check`` called after each; False where no plan is finite."""
        settings = self.settings
        deviation: np.ndarray | float = settings.deviation
        for _ in range(iterations):
            sampled = self._mean + deviation * self._noise(settings.samples)
            fixed = [self._mean[None], np.zeros_like(self._mean)[None], self._kept]
            plans = np.clip(np.concatenate([*fixed, sampled]), -1.0, 1.0)
            values = self._returns(plans)
            order = np.argsort(-values, kind="stable")[: settings.elites]
            order = order[np.isfinite(values[order])]
            if not len(order):
                return False
            elites, scores = plans[order], values[order]
            weight = np.exp((scores - scores[0]) / (settings.temperature * max(scores[0] - scores[-1], 1e-9)))
            weight /= weight.sum()
            self._mean = np.tensordot(weight, elites, 1)
            spread = np.sqrt(np.tensordot(weight, (elites - self._mean) ** 2, 1))
            deviation = np.clip(spread, settings.floor, settings.deviation)
            self._kept = elites[: settings.kept]
            self.plan = elites[0] if settings.execute == "best" else self._mean
            check()
        return True

    def shift(self, steps: int) -> None:
        """So many steps were executed: what follows them comes first, and the last action is held."""

        def shifted(plans: np.ndarray) -> np.ndarray:
            held = np.repeat(plans[..., -1:, :], steps, axis=-2)
            return np.concatenate([plans[..., steps:, :], held], axis=-2)

        self._mean, self._kept, self.plan = shifted(self._mean), shifted(self._kept), shifted(self.plan)

    def _noise(self, samples: int) -> np.ndarray:
        """Noise of standard deviation 1, [samples, horizon, n], with the colour's spectrum along the horizon."""
        horizon, actions = self._mean.shape
        white = np.fft.rfft(self._random.standard_normal((samples, actions, horizon)))
        return np.fft.irfft(white * self._spectrum, horizon).transpose(0, 2, 1)
