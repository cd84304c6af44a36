from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from actors.experts.sampling_planner import PlannerSettings, SamplingPlanner

SETTINGS = PlannerSettings(horizon=20, samples=48, deviation=0.6, colour=1.0)
TARGET = np.stack([np.sin(np.linspace(0, 3, 20)), np.full(20, -0.5)], axis=1)


def near_target(plans: np.ndarray) -> np.ndarray:
    return -np.square(plans - TARGET).sum((1, 2))


def nothing() -> None:
    """No deadline."""


@pytest.mark.parametrize("execute", ["mean", "best"])
def test_it_finds_a_plan_and_stays_in_bounds(execute: str) -> None:
    settings = dataclasses.replace(SETTINGS, execute=execute)
    planner = SamplingPlanner(settings, 2, near_target, np.random.default_rng(0))
    assert planner.improve(60, nothing)
    assert np.abs(planner.plan).max() <= 1
    assert np.abs(planner.plan - TARGET).mean() < 0.12


def test_a_shift_drops_what_was_executed_and_holds_the_last_action() -> None:
    planner = SamplingPlanner(SETTINGS, 2, near_target, np.random.default_rng(0))
    planner.improve(3, nothing)
    before = planner.plan.copy()
    planner.shift(4)
    np.testing.assert_array_equal(planner.plan[:16], before[4:])
    np.testing.assert_array_equal(planner.plan[16:], np.repeat(before[-1:], 4, axis=0))


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_has_unit_deviation_and_its_colour(colour: float) -> None:
    settings = dataclasses.replace(SETTINGS, colour=colour, horizon=64)
    planner = SamplingPlanner(settings, 3, near_target, np.random.default_rng(0))
    noise = planner._noise(4000)
    assert noise.shape == (4000, 64, 3) and noise.std() == pytest.approx(1, rel=0.03)
    neighbours = np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]
    assert neighbours == pytest.approx({0.0: 0.0, 1.0: 0.72, 2.0: 0.97}[colour], abs=0.1)


def test_plans_that_are_not_finite_never_count() -> None:
    def half(plans: np.ndarray) -> np.ndarray:
        return np.where(plans[:, 0, 0] > 0, -np.inf, near_target(plans))

    planner = SamplingPlanner(SETTINGS, 2, half, np.random.default_rng(0))
    assert planner.improve(5, nothing) and planner.plan[0, 0] <= 0
    hopeless = SamplingPlanner(SETTINGS, 2, lambda plans: np.full(len(plans), -np.inf), np.random.default_rng(0))
    assert not hopeless.improve(1, nothing)
