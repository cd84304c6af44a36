"""Model-predictive control of cart-pole swing-up, on the true state of the simulator.

At every step the plan of the step before is shifted, put on the state that was really reached, and improved by
iterative LQR with a bounded control (Tassa, Mansard & Todorov 2014, "Control-limited differential dynamic
programming"). Plans are rolled out, and the dynamics differentiated, by batched `mujoco.rollout`. Only the first guess
of a plan is sampled, once and from a fixed seed; so the label is nearly a smooth function of the state. It is made to
be imitated: a sampling planner (MPPI) earns about the same, but its noise is more than a small network can average out.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from actors.demonstrations.episode import ActionRecord
from actors.environments import dm_control
from actors.experts.disturbance import bursts
from actors.experts.expert import Sees, StepDeadline

TASK = "dm_control/cartpole-swingup"
STATE = 4
"""Cart position (m), pole angle (rad, 0 is up), and their velocities."""
HANGING = np.array([0.0, np.pi, 0.0, 0.0])


@dataclasses.dataclass(frozen=True)
class PlannerSettings:
    """Settings of the planner; costs are in units of the reward of one step.

    Attributes:
        horizon: steps of 10 ms that a plan looks ahead.
        iterations: iterations of iterative LQR at each step.
        first_iterations: the same at the start of an episode.
        control_cost: cost of a squared control beside the task's own; larger makes gentler labels and a lower return.
        free_range: distance (m) from the centre that the cart may use; the rail's stops are at 1.8.
        range_cost: cost of the squared distance beyond it.
        terminal_weight: the last reward of a plan counts this often, for what follows it.
    """

    horizon: int = 200
    iterations: int = 1
    first_iterations: int = 40
    control_cost: float = 0.5
    free_range: float = 1.3
    range_cost: float = 5.0
    terminal_weight: float = 20.0


def reward(state: np.ndarray, control: np.ndarray) -> np.ndarray:
    """The suite's reward [...] of states [..., 4] reached by controls [...] within [-1, 1]."""
    upright = (1 + np.cos(state[..., 1])) / 2
    centred = (1 + 0.1 ** (state[..., 0] / 2) ** 2) / 2
    slow = (1 + 0.1 ** (state[..., 3] / 5) ** 2) / 2
    gentle = 1 - np.square(control) / 5
    return upright * centred * slow * gentle


def reward_derivatives(state: np.ndarray, control: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Gradient [n, 5] and Hessian [n, 5, 5] of `reward` in (state, control), for states [n, 4] and controls [n]."""
    # The reward is a product of functions of one variable each: value, first and second derivative, by column.
    value, first, second = np.ones((len(control), 5)), np.zeros((len(control), 5)), np.zeros((len(control), 5))
    for column, width in ((0, 2.0), (3, 5.0)):
        z, rate = state[:, column], 2 * np.log(0.1) / width**2
        bell = np.exp(rate * z**2 / 2)
        value[:, column] = (1 + bell) / 2
        first[:, column] = bell * rate * z / 2
        second[:, column] = bell * (rate + (rate * z) ** 2) / 2
    angle = state[:, 1]
    value[:, 1], first[:, 1], second[:, 1] = (1 + np.cos(angle)) / 2, -np.sin(angle) / 2, -np.cos(angle) / 2
    value[:, 4], first[:, 4], second[:, 4] = 1 - control**2 / 5, -2 * control / 5, -2 / 5
    value = np.maximum(value, 1e-9)  # hanging straight down the product is zero, and must still be divided
    product = value.prod(axis=1)
    slope = first / value
    gradient = product[:, None] * slope
    hessian = gradient[:, :, None] * slope[:, None, :]
    diagonal = np.arange(5)
    hessian[:, diagonal, diagonal] = product[:, None] * second / value
    return gradient, hessian


class Planner:
    """Iterative LQR over the next ``horizon`` controls, warm-started from its own last plan.

    Attributes:
        states: float64 [horizon + 1, 4] of the plan.
        controls: float64 [horizon] of the plan, in [-1, 1].
    """

    STEP_SIZES = np.array([1.0, 0.5, 0.25, 0.1, 0.03])  # of the line search, rolled out together
    DIFFERENCE = 1e-6
    CONVERGED = 1e-4  # largest change of a control not worth a line search; the bins of actions are wider

    def __init__(self, model: mujoco.MjModel, settings: PlannerSettings) -> None:
        self.settings = settings
        self._model, self._data = model, mujoco.MjData(model)
        self._rollout = rollout.Rollout(nthread=0)  # in this thread
        self._weight = np.ones(settings.horizon)
        self._weight[-1] = settings.terminal_weight
        self.states = np.zeros((settings.horizon + 1, STATE))
        self.controls = np.zeros(settings.horizon)
        self._change = np.zeros(settings.horizon)
        self._gain = np.zeros((settings.horizon, STATE))
        self._damping = 0.0

    def begin(self, state: np.ndarray, guess: np.ndarray) -> None:
        """Plan from ``state`` [4], starting from a guess of the controls [horizon]."""
        self.controls = guess.copy()
        self.states = np.concatenate([state[None], self._predict(state[None], guess[None])[0]])
        self._improve(self.settings.first_iterations)

    def advance(self, state: np.ndarray) -> None:
        """Shift the plan by one step, put it on the ``state`` [4] that was reached, and improve it."""
        for array in (self.states, self.controls, self._gain):
            array[:-1] = array[1:]
        self._change[:] = 0
        states, controls = self._follow(state, np.zeros(1))
        self.states, self.controls = states[0], controls[0]
        self._improve(self.settings.iterations)

    def guess(self) -> np.ndarray:
        """Controls [horizon] for a hanging pole, by the cross-entropy method with a fixed seed; pushes right first."""
        knots, samples, elite = 8, 128, 16
        random = np.random.default_rng(0)
        times = np.linspace(0, knots - 1, self.settings.horizon)
        start = np.repeat(HANGING[None], samples, axis=0)
        points = random.uniform(-1, 1, (samples, knots))
        for _ in range(8):
            controls = np.stack([np.interp(times, np.arange(knots), row) for row in points])
            states = np.concatenate([start[:, None], self._predict(start, controls)], axis=1)
            order = np.argsort(self._cost(states, controls))
            best = points[order[:elite]]
            points = best.mean(0) + random.normal(size=(samples, knots)) * (best.std(0) + 0.05)
            points = np.clip(points, -1, 1)
            points[0] = best[0]
        self.begin(HANGING, controls[order[0]])
        # Left and right are mirror images: always the same one, or the clone would see both labels in one state.
        return self.controls.copy() if self.controls[0] > 0 else -self.controls

    def _improve(self, iterations: int) -> None:
        """Derivatives, backward pass, line search; until ``iterations`` or nothing changes."""
        self._damping = 1e-6
        for _ in range(iterations):
            before = self._cost(self.states[None], self.controls[None])[0]
            self._backward(*self._derivatives())
            if np.abs(self._change).max() < self.CONVERGED:
                return
            states, controls = self._follow(self.states[0], self.STEP_SIZES)
            costs = self._cost(states, controls)
            best = int(np.argmin(costs))
            if costs[best] < before:
                self.states, self.controls = states[best], controls[best]
                self._damping = max(self._damping / 3, 1e-6)
            else:
                self._damping = min(self._damping * 10, 1e3)

    def _predict(self, state: np.ndarray, control: np.ndarray) -> np.ndarray:
        """States [n, steps, 4] that follow states [n, 4] under controls [n, steps]."""
        initial = np.concatenate([np.zeros((len(state), 1)), state], axis=1)  # MuJoCo's state begins with the time
        result, _ = self._rollout.rollout(self._model, self._data, initial, control[:, :, None])
        return result[:, :, 1:]

    def _cost(self, states: np.ndarray, controls: np.ndarray) -> np.ndarray:
        """Costs [n] of plans with states [n, horizon + 1, 4] and controls [n, horizon]."""
        settings = self.settings
        beyond = np.maximum(np.abs(states[:, 1:, 0]) - settings.free_range, 0)
        cost = settings.control_cost * controls**2 + settings.range_cost * beyond**2 - reward(states[:, 1:], controls)
        return cost @ self._weight

    def _cost_derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """Gradient [horizon, 5] and positive semi-definite Hessian [horizon, 5, 5] of each step's cost."""
        settings = self.settings
        gradient, hessian = reward_derivatives(self.states[1:], self.controls)
        gradient, hessian = -gradient, -hessian
        gradient[:, 4] += 2 * settings.control_cost * self.controls
        hessian[:, 4, 4] += 2 * settings.control_cost
        position = self.states[1:, 0]
        beyond = np.maximum(np.abs(position) - settings.free_range, 0)
        gradient[:, 0] += 2 * settings.range_cost * np.sign(position) * beyond
        hessian[:, 0, 0] += 2 * settings.range_cost * (beyond > 0)
        values, vectors = np.linalg.eigh(hessian)
        hessian = (vectors * np.maximum(values, 0)[:, None]) @ vectors.transpose(0, 2, 1)
        return gradient * self._weight[:, None], hessian * self._weight[:, None, None]

    def _follow(self, state: np.ndarray, step_sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The plan with its change and feedback: states [n, horizon + 1, 4] and controls [n, horizon] for n sizes."""
        n, horizon = len(step_sizes), self.settings.horizon
        states, controls = np.empty((n, horizon + 1, STATE)), np.empty((n, horizon))
        states[:, 0] = state
        # Buffers and skip_checks: the wrapper's checks cost more than a step of this simulator.
        current = np.zeros((n, 1 + STATE))
        current[:, 1:] = state
        command, after = np.empty((n, 1, 1)), np.empty((n, 1, 1 + STATE))
        models, no_sensors = [self._model] * n, np.empty((n, 1, self._model.nsensordata))
        for t in range(horizon):
            control = self.controls[t] + step_sizes * self._change[t]
            control += (current[:, 1:] - self.states[t]) @ self._gain[t]
            controls[:, t] = command[:, 0, 0] = np.clip(control, -1, 1)
            self._rollout.rollout(
                models, [self._data], current, command, skip_checks=True, nstep=1, state=after, sensordata=no_sensors
            )
            current[:] = after[:, 0]
            states[:, t + 1] = current[:, 1:]
        return states, controls

    def _derivatives(self) -> tuple[np.ndarray, np.ndarray]:
        """Jacobians of the dynamics along the plan: [horizon, 4, 4] in the state, [horizon, 4] in the control."""
        horizon = self.settings.horizon
        states = np.repeat(self.states[:-1, None], STATE + 1, axis=1)
        controls = np.repeat(self.controls[:, None], STATE + 1, axis=1)
        each = np.arange(STATE)
        states[:, each, each] += self.DIFFERENCE
        inwards = np.where(self.controls > 0, -self.DIFFERENCE, self.DIFFERENCE)  # the actuator clips at its bounds
        controls[:, STATE] += inwards
        after = self._predict(states.reshape(-1, STATE), controls.reshape(-1, 1)).reshape(horizon, STATE + 1, STATE)
        change = after - self.states[1:, None]
        return change[:, :STATE].transpose(0, 2, 1) / self.DIFFERENCE, change[:, STATE] / inwards[:, None]

    def _backward(self, dynamics: np.ndarray, actuation: np.ndarray) -> None:
        """Riccati recursion with one bounded control: sets the open-loop change and the gain of every step."""
        gradient, hessian = self._cost_derivatives()
        slope, curvature = np.zeros(STATE), np.zeros((STATE, STATE))
        for t in reversed(range(self.settings.horizon)):
            a, b = dynamics[t], actuation[t]
            g, h = gradient[t, :STATE] + slope, hessian[t, :STATE, :STATE] + curvature
            cross = hessian[t, STATE, :STATE]
            q_u = b @ g + gradient[t, STATE]
            q_uu = b @ h @ b + 2 * (cross @ b) + hessian[t, STATE, STATE] + self._damping
            q_ux = (h @ b + cross) @ a
            change = min(max(-q_u / q_uu, -1 - self.controls[t]), 1 - self.controls[t])
            gain = -q_ux / q_uu if change == -q_u / q_uu else np.zeros(STATE)  # no feedback at a bound
            self._change[t], self._gain[t] = change, gain
            slope = a.T @ g + gain * (q_u + q_uu * change) + q_ux * change
            coupling = np.outer(gain, q_ux)
            curvature = a.T @ h @ a + q_uu * np.outer(gain, gain) + coupling + coupling.T


class CartpoleMPC:
    """Plays ``dm_control/cartpole-swingup`` (an `Expert`); ``arguments`` are the adapter's.

    Raises:
        ValueError: for any other task, or an adapter that does not take its actions as they are.
    """

    name = "cartpole-mpc"
    sees: Sees = "simulator state"

    def __init__(self, task_name: str, arguments: dict[str, Any], settings: PlannerSettings | None = None) -> None:
        if task_name != TASK:
            raise ValueError(f"the expert {self.name!r} plays {TASK} only, not {task_name}")
        self._environment = dm_control.make(task_name, 1, **arguments)
        if self._environment.grid is not None or self._environment.action_repeat != 1:
            raise ValueError(
                f"the expert {self.name!r} acts continuously, at every step; with action_grid or action_repeat choose "
                "dm-control-mpc"
            )
        physics = self._environment.environments[0].physics
        self._data = physics.data
        self._planner = Planner(physics.model.ptr, settings or PlannerSettings())
        self._guess: np.ndarray | None = None

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode, about 20 CPU-seconds; ``noise`` is the standard deviation added to the executed action.

        The noise comes in bursts and changes slowly within one, as a clone's errors do: white noise would average out
        over the 10 ms steps. It throws the pole over, so that one episode holds several swing-ups. The label [T, 1] is
        what the planner chose in the state that was really reached (DART, Laskey et al. 2017).
        """
        if self._guess is None:
            self._guess = self._planner.guess()
        disturbance = bursts(np.random.default_rng(seed), noise)
        deadline = StepDeadline(self.name, TASK, seed)
        self._environment.reset([0], [seed])
        self._planner.begin(self._state(), self._guess)
        labels: list[np.float32] = []
        actions: list[np.float32] = []
        rewards: list[np.float32] = []
        done = False
        while not done:
            if labels:
                self._planner.advance(self._state())
            labels.append(np.float32(self._planner.controls[0]))
            disturbed = labels[-1] + next(disturbance)
            actions.append(np.float32(np.clip(disturbed, -1, 1)))
            step = self._environment.step(np.full((1, 1), actions[-1], np.float32))
            rewards.append(step.reward[0])
            done = bool(step.done[0])
            deadline.next_step()
        executed, labelled = (np.array(each, np.float32)[:, None] for each in (actions, labels))
        return ActionRecord.of_steps(seed, executed, labelled, rewards, noisy=noise > 0)

    def _state(self) -> np.ndarray:
        return np.concatenate([self._data.qpos, self._data.qvel])
