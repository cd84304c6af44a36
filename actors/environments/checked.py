"""`CheckedEnvironment`: what an environment gives is what its task says, or the run learns of it at once.

Around every environment, so cheap: views only, `np.isfinite` on floats, no copies (measured in its test).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actors.environments.failures import InvalidEnvironmentOutput, NotFinite
from actors.environments.vector_environment import Observation, VectorEnvironment, VectorStep
from agent.task import ArraySpec
from replay.waiting import Waiting


class CheckedEnvironment:
    """Passes everything through to ``environment`` and refuses what its `TaskSpec` does not allow.

    Raises InvalidEnvironmentOutput, naming task, slot, key and step of the episode, for NaN or infinite rewards and
    observations (then it is a NotFinite), wrong keys, shapes and dtypes, discrete values out of range, and texts that
    are too long or change within an episode; RuntimeError for a step in a slot whose episode ended or never began.
    """

    def __init__(self, environment: VectorEnvironment):
        self.environment = environment
        self.task = environment.task
        self.num_envs = environment.num_envs
        self._texts = [key for key, spec in self.task.observation.items() if spec.kind == "text"]
        self._episode_texts: list[list[str]] = [[] for _ in range(self.num_envs)]
        self._steps = np.zeros(self.num_envs, np.int64)
        self._needs_reset = np.ones(self.num_envs, bool)
        self._slots = list(range(self.num_envs))
        self._resetting = Waiting(f"environment {self.task.name} to reset")
        self._stepping = Waiting(f"environment {self.task.name} to step")

    def reset(self, slots: Sequence[int], seeds: Sequence[int]) -> Observation:
        """Begin episodes; see `VectorEnvironment.reset`."""
        with self._resetting:
            observation = self.environment.reset(slots, seeds)
        slots = list(slots)
        self._steps[slots] = 0
        self._needs_reset[slots] = False
        self._check_observation(observation, slots)
        for row, slot in enumerate(slots):
            self._episode_texts[slot] = [observation[key][row] for key in self._texts]
        return observation

    def step(self, action: np.ndarray) -> VectorStep:
        """Act in all slots; see `VectorEnvironment.step`."""
        self._check_action(action)
        if self._needs_reset.any():
            slot = int(self._needs_reset.argmax())
            raise RuntimeError(f"{self.task.name}, slot {slot}: reset it before it is stepped; it has no episode")
        with self._stepping:
            step = self.environment.step(action)
        self._steps += 1
        self._check_flat("reward", step.reward, np.dtype(np.float32))
        if not np.isfinite(step.reward).all():
            slot = int((~np.isfinite(step.reward)).argmax())
            raise self._refusal(slot, "reward", f"is {step.reward[slot]}", NotFinite)
        self._check_flat("terminated", step.terminated, np.dtype(bool))
        self._check_flat("truncated", step.truncated, np.dtype(bool))
        if step.success is not None:
            self._check_flat("success", step.success, np.dtype(bool))
        self._check_observation(step.observation, self._slots)
        for index, key in enumerate(self._texts):
            for slot, text in enumerate(step.observation[key]):
                if text != self._episode_texts[slot][index]:
                    before = self._episode_texts[slot][index]
                    raise self._refusal(slot, key, f"changed from {before!r} to {text!r} within the episode")
        self._needs_reset = step.done
        return step

    def render(self, slot: int) -> np.ndarray:
        """See `VectorEnvironment.render`."""
        return self.environment.render(slot)

    def close(self) -> None:
        """See `VectorEnvironment.close`."""
        self.environment.close()

    def _check_action(self, action: np.ndarray) -> None:
        spec = self.task.action
        expected = (self.num_envs, *spec.shape)
        if action.shape != expected or action.dtype != spec.dtype:
            raise ValueError(f"{self.task.name}: action is {action.dtype} {action.shape}, not {spec.dtype} {expected}")
        if spec.kind == "discrete" and not ((action >= 0) & (action < spec.num_values)).all():
            raise ValueError(f"{self.task.name}: actions are 0 to {spec.num_values - 1}, not {action.tolist()}")
        if spec.kind == "continuous" and not np.isfinite(action).all():
            raise ValueError(f"{self.task.name}: an action is not finite: {action.tolist()}")

    def _check_flat(self, key: str, array: np.ndarray, dtype: np.dtype) -> None:
        if not isinstance(array, np.ndarray) or array.shape != (self.num_envs,) or array.dtype != dtype:
            raise self._refusal(None, key, f"is {_describe(array)}, not {dtype} {(self.num_envs,)}")

    def _check_observation(self, observation: Observation, slots: list[int]) -> None:
        """``observation`` has one row for each of ``slots``."""
        specs = self.task.observation
        if observation.keys() != specs.keys():
            raise self._refusal(None, "observation", f"has keys {sorted(observation)}, not {sorted(specs)}")
        for key, spec in specs.items():
            values = observation[key]
            if spec.kind == "text":
                self._check_text(key, spec, values, slots)
                continue
            expected = (len(slots), *spec.shape)
            if not isinstance(values, np.ndarray) or values.shape != expected or values.dtype != spec.dtype:
                raise self._refusal(None, key, f"is {_describe(values)}, not {spec.dtype} {expected}")
            if spec.kind == "continuous":
                valid = np.isfinite(values)
            elif spec.kind == "discrete":
                valid = (values >= 0) & (values < spec.num_values)
            else:
                continue
            if not valid.all():
                where = np.argwhere(~valid)[0]
                rule = "is not finite" if spec.kind == "continuous" else f"is not in 0 to {spec.num_values - 1}"
                element = f" at {tuple(where[1:].tolist())}" if len(where) > 1 else ""
                error = NotFinite if spec.kind == "continuous" else InvalidEnvironmentOutput
                raise self._refusal(slots[where[0]], key, f"{rule}{element}: {values[tuple(where)]}", error)

    def _check_text(self, key: str, spec: ArraySpec, values: object, slots: list[int]) -> None:
        if not isinstance(values, list) or len(values) != len(slots):
            raise self._refusal(None, key, f"is {_describe(values)}, not a list of {len(slots)} strings")
        for slot, text in zip(slots, values):
            if not isinstance(text, str):
                raise self._refusal(slot, key, f"is {_describe(text)}, not a string")
            size = len(text.encode())
            if size > spec.max_bytes:
                raise self._refusal(slot, key, f"has {size} bytes, the task says at most {spec.max_bytes}")

    def _refusal(
        self,
        slot: int | None,
        key: str,
        problem: str,
        error: type[InvalidEnvironmentOutput] = InvalidEnvironmentOutput,
    ) -> InvalidEnvironmentOutput:
        """``slot`` is None where the problem is that of all slots; the step is then the longest-running episode's."""
        step = int(self._steps.max() if slot is None else self._steps[slot])
        where = "all slots" if slot is None else f"slot {slot}"
        return error(f"{self.task.name}, {where}, step {step} of the episode: {key} {problem}")


def _describe(value: object) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
