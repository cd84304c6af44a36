"""Model-predictive control of DM Control tasks: sampled plans, simulated from the true state by `mujoco.rollout`.

One controller for all tasks; what differs is in ``configs/experts/dm_control_mpc.yaml`` and, for the rewards, in
`actors.experts.dm_control_rewards`. It sees the simulator's state, which a state observation shows nearly all of.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from mujoco import rollout

from actors.demonstrations.episode import ActionRecord
from actors.environments import dm_control
from actors.experts.disturbance import bursts
from actors.experts.dm_control_rewards import REWARDS, SHAPING, Simulated
from actors.experts.expert import STEP_SECONDS, Sees, StepDeadline
from actors.experts.sampling_planner import PlannerSettings, SamplingPlanner
from actors.experts.settings import task_settings

FILE = "dm_control_mpc"
PHYSICS = mujoco.mjtState.mjSTATE_FULLPHYSICS
PLAN_STREAM = 0xD3
"""Separates the planner's noise from other generators made of the same seed."""


class Simulator:
    """Rolls plans out from the environment's present state, in this thread.

    Args:
        environment: the suite's environment, whose model and data are read at each call.
    """

    def __init__(self, environment: Any) -> None:
        physics = environment.physics
        self.model: mujoco.MjModel = physics.model.ptr
        self.actions = self.model.nu
        self._data: mujoco.MjData = physics.data.ptr
        self._scratch = mujoco.MjData(self.model)
        self._substeps: int = environment._n_sub_steps
        spec = environment.action_spec()
        self._low, self._span = spec.minimum, (spec.maximum - spec.minimum) / 2
        self._rollout = rollout.Rollout(nthread=0)
        self._state = np.empty(mujoco.mj_stateSize(self.model, PHYSICS))

    def simulate(self, plans: np.ndarray) -> Simulated:
        """States after each step of plans [m, steps, n] within [-1, 1]."""
        count, substeps, model = len(plans), self._substeps, self.model
        control = self._low + self._span * (plans + 1)
        # Sensors are those of the state before a physics step: one more step gives those of the last state.
        commands = np.repeat(control, substeps, axis=1)
        commands = np.concatenate([commands, commands[:, -1:]], axis=1)
        mujoco.mj_getState(model, self._data, self._state, PHYSICS)
        start = np.repeat(self._state[None], count, axis=0)
        warm = np.repeat(self._data.qacc_warmstart[None], count, axis=0)
        states, sensors = self._rollout.rollout(
            model, self._scratch, start, commands, initial_warmstart=warm if model.nv else None
        )
        # MuJoCo puts a diverged simulation back to its start: its states are finite, but its clock is behind.
        sound = states[:, -1, 0] > self._state[0] + (commands.shape[1] - 0.5) * model.opt.timestep
        states = states[:, substeps - 1 : -1 : substeps]
        return Simulated(
            model,
            states[:, :, 1 : 1 + model.nq],  # MuJoCo's state begins with the time
            states[:, :, 1 + model.nq : 1 + model.nq + model.nv],
            control,
            sensors[:, substeps::substeps],
            sound,
        )


class DMControlMPC:
    """Plays the tasks that its settings file lists; see `Expert`. ``arguments`` are the adapter's.

    Raises:
        ValueError: a task without settings.
    """

    name = "dm-control-mpc"
    sees: Sees = "simulator state"

    def __init__(
        self,
        task_name: str,
        arguments: dict[str, Any],
        settings: PlannerSettings | None = None,
        step_seconds: float = STEP_SECONDS,
    ) -> None:
        self.settings = settings or task_settings(self.name, FILE, task_name, PlannerSettings)
        self._task, self._step_seconds = task_name, step_seconds
        name = task_name.partition("/")[2]
        self._reward, self._shaping = REWARDS[name], SHAPING.get(name)
        if self.settings.shaping and self._shaping is None:
            raise ValueError(f"{task_name} has no shaping term, but its settings weigh one; set shaping to 0")
        self._environment = dm_control.make(task_name, 1, **arguments)
        self._simulator = Simulator(self._environment.environments[0])
        self._weight = np.ones(self.settings.horizon)
        self._weight[-1] = self.settings.terminal

    def play(self, seed: int, noise: float = 0.0) -> ActionRecord:
        """One episode; ``noise`` is the standard deviation of bursts added to every number of the executed action.

        The label [T, n] is what the plan said in the state that was really reached (DART, Laskey et al. 2017). Where
        the adapter holds actions for several steps, it is the mean of the plan over them, and where it has a grid, the
        nearest of its actions.
        """
        settings, actions = self.settings, self._simulator.actions
        grid, held = self._environment.grid, self._environment.action_repeat
        replan = held * max(1, settings.replan // held)
        deadline = StepDeadline(self.name, self._task, seed, self._step_seconds)
        noise_sources = [bursts(each, noise) for each in np.random.default_rng(seed).spawn(actions)]
        self._environment.reset([0], [seed])
        planner = SamplingPlanner(settings, actions, self._returns, np.random.default_rng([seed, PLAN_STREAM]))
        labels: list[np.ndarray] = []
        executed: list[np.ndarray] = []
        rewards: list[np.float32] = []
        done = False
        while not done:
            place = len(labels) * held % replan
            if place == 0:
                if labels:
                    planner.shift(replan)
                iterations = settings.iterations if labels else settings.first_iterations
                if not planner.improve(iterations, deadline.check):
                    raise deadline.failed("no plan led to a finite state; the simulation diverges here")
            planned = planner.plan[place : place + held].mean(0)
            disturbed = np.clip(planned + [next(source) for source in noise_sources], -1, 1)
            for actions_so_far, numbers in ((labels, planned), (executed, disturbed)):
                actions_so_far.append(numbers.astype(np.float32) if grid is None else grid.nearest(numbers))
            step = self._environment.step(executed[-1][None])
            rewards.append(step.reward[0])
            done = bool(step.done[0])
            deadline.next_step()
        return ActionRecord.of_steps(seed, executed, labels, rewards, noisy=noise > 0)

    def _returns(self, plans: np.ndarray) -> np.ndarray:
        simulated = self._simulator.simulate(plans)
        reward = self._reward(simulated)
        if self.settings.shaping and self._shaping is not None:
            reward = reward + self.settings.shaping * self._shaping(simulated)
        returns = reward @ self._weight
        return np.where(simulated.sound & np.isfinite(returns), returns, -np.inf)
