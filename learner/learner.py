"""`Learner`: one visible update, and what it counts."""

from __future__ import annotations

import contextlib
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from agent.agent import Agent
from agent.weights import flat_weights
from learner.batch import Batch, packed_embeddings
from learner.batch_source import DEMONSTRATIONS, BatchSource, SourcedBatch, TaskSources
from learner.config import LearnerConfig
from learner.objectives.objective import make_objective
from learner.optimiser import learning_rate, make_optimiser

ENTROPY_ROWS = 4
"""Rows of a batch whose attention is looked at, once each time metrics are asked for."""


class Diverged(RuntimeError):
    """The loss or a gradient has not been a finite number for too many updates in a row."""


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; asking for CUDA without one raises ValueError."""
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("learner.device is cuda, but PyTorch sees none; use learner.device=auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Learner:
    """Samples batches, updates the agent, and counts.

    Attributes:
        step_count: updates made.
        version: of the newest weights handed out by `next_version`; goes on after a resume.
        seconds: seconds of training so far, over resumes.
    """

    def __init__(self, agent: Agent, sources: Mapping[str, TaskSources], config: LearnerConfig, seed: int) -> None:
        config.validate()
        self.config = config
        self.device = pick_device(config.device)
        self.agent = agent.to(self.device)
        self.optimiser = make_optimiser(agent, config)
        self.step_count = 0
        self.version = 0
        self.seconds = 0.0
        self.windows_learned: dict[str, int] = defaultdict(int)
        self.online_windows_learned = 0
        self.tokens_seen = 0
        self._seed = seed
        self._sources = sources
        self._batches: BatchSource | None = None
        self._newest: Batch | None = None
        self._carry: dict[tuple[str, str], float] = {}
        self._autocast = config.autocast == "on" or (config.autocast == "auto" and self.device.type == "cuda")
        self.objective = make_objective(self.agent, config)
        if agent.config.attention == "flexible" and self.device.type != "cuda":
            raise ValueError("agent.attention=flexible has no gradients on a CPU; use agent.attention=fused")
        agent.transformer.recompute = config.activation_checkpointing
        if config.compile:
            agent.transformer.compile(dynamic=True)
        zero = torch.zeros((), device=self.device)
        self._skipped, self._bad_in_a_row, self._most_in_a_row = zero, zero, zero
        self._forget()

    @property
    def progress(self) -> float:
        """How far training is, in [0, 1]: by steps or by minutes, whichever is nearer its end."""
        by_time = self.seconds / (60 * self.config.minutes) if self.config.minutes else 0.0
        return min(1.0, max(self.step_count / self.config.steps, by_time))

    @property
    def finished(self) -> bool:
        """Whether training has reached its end."""
        return self.progress >= 1.0

    @property
    def batches(self) -> BatchSource:
        """Where batches come from; made when first needed, so that a resumed learner starts at its own step."""
        if self._batches is None:
            varied = self.objective.varied_lengths
            self._batches = BatchSource(
                self.agent, self._sources, self.config, self._seed, first=self.step_count, varied_lengths=varied
            )
        return self._batches

    def step(self) -> None:
        """One update. Waits for data with a deadline (`NoData` names the table that gave none)."""
        began = time.perf_counter()
        sourced = self.batches.get()
        waited = time.perf_counter()
        batch = sourced.batch.to(self.device)
        moved = time.perf_counter()

        self.agent.train()
        torch.manual_seed(hash((self._seed, self.step_count)) % 2**31)
        rate = learning_rate(self.step_count, self.progress, self.config)
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["scale"]
        self.optimiser.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, torch.bfloat16) if self._autocast else contextlib.nullcontext():
            loss, record = self.objective.loss(self.agent, batch)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.agent.parameters(), self.config.gradient_clip)
        self._skip_where_not_finite(loss.detach() + norm.detach())
        self.optimiser.step()
        self.objective.updated(self.agent)

        self.step_count += 1
        self._carry = sourced.carry  # batches are prepared ahead: the mixture itself is further on
        self.seconds += time.perf_counter() - began
        self._count(sourced, record, norm, rate)
        self._newest = batch
        self._times["data_wait"] += waited - began
        self._times["transfer"] += moved - waited
        self._times["compute"] += time.perf_counter() - moved

    def _skip_where_not_finite(self, value: torch.Tensor) -> None:
        """Have the optimiser leave weights and moments as they are where ``value`` is no finite number.

        The fused optimiser reads a flag from the device, as it does for gradient scaling, so that nothing waits for it.
        """
        bad = (~value.isfinite()).float()
        self.optimiser.found_inf, self.optimiser.grad_scale = bad, None  # type: ignore[attr-defined]
        self._skipped = self._skipped + bad
        self._bad_in_a_row = (self._bad_in_a_row + 1) * bad
        self._most_in_a_row = torch.maximum(self._most_in_a_row, self._bad_in_a_row)

    def _count(self, sourced: SourcedBatch, record: dict[str, torch.Tensor], norm: torch.Tensor, rate: float) -> None:
        self.tokens_seen += sourced.batch.tokens
        # Kept on the device until `metrics` asks, so that a step does not wait for the accelerator.
        self._window_losses.append((sourced, record.pop("window_loss")))
        for name, value in record.items():
            self._records[name].append(value)
        self._records["gradient_norm"].append(norm.detach())
        self._rate = rate
        if len(self._window_losses) >= 64:
            self._settle()

    def _settle(self) -> None:
        """Count windows with loss by source, and lags; this reads back from the device."""
        now = time.time()
        for sourced, losses in self._window_losses:
            for place, loss in zip(sourced.origins, losses.tolist()):
                self.windows_learned[f"{place.source}/{place.task}"] += loss > 0
                if place.version is not None:
                    self.online_windows_learned += loss > 0
                    self._lag_versions[place.task].append(self.version - place.version)
                    if place.published_at:
                        self._lag_seconds.append(now - place.published_at)
            self._windows += len(sourced.origins)
            self._prompted += sourced.prompted
            for key in sourced.asked:
                self._asked[key] += sourced.asked[key]
                self._actual[key] += sourced.actual[key]
        self._steps += len(self._window_losses)
        self._window_losses.clear()

    def _forget(self) -> None:
        self._records: dict[str, list[torch.Tensor]] = defaultdict(list)
        self._window_losses: list[tuple[SourcedBatch, torch.Tensor]] = []
        self._times = dict.fromkeys(("data_wait", "transfer", "compute"), 0.0)
        self._asked: dict[tuple[str, str], int] = defaultdict(int)
        self._actual: dict[tuple[str, str], int] = defaultdict(int)
        self._lag_versions: dict[str, list[float]] = defaultdict(list)
        self._lag_seconds: list[float] = []
        self._steps = 0
        self._windows = self._prompted = 0
        self._newest = None
        self._tokens_before = getattr(self, "tokens_seen", 0)
        self._rate = 0.0

    def metrics(self) -> dict[str, float]:
        """Means since the last call, named as in docs/metrics.md; empty where no step was made.

        What is not finite of updates that were skipped is in no mean; they are counted.

        Raises Diverged where so many of them followed each other as ``learner.skipped_in_a_row`` allows.
        """
        self._settle()
        if not self._steps:
            return {}
        result = {"skipped_steps": float(self._skipped)}
        for name, values in self._records.items():
            each = torch.stack(values).float()
            finite = each[each.isfinite()]
            if len(finite):
                result[name] = float(finite.mean())
        if self._most_in_a_row >= self.config.skipped_in_a_row:
            names = [name for name, values in self._records.items() if not torch.stack(values).isfinite().all()]
            raise Diverged(
                f"learner: {self.config.skipped_in_a_row} updates in a row by step {self.step_count} had no finite "
                f"loss or gradient ({', '.join(sorted(names)) or 'gradient_norm'}) and were skipped; lower "
                "learner.learning_rate or learner.gradient_clip, and resume from the last checkpoint"
            )
        norms = torch.stack(self._records["gradient_norm"]).float()
        result["clipped_fraction"] = float((norms > self.config.gradient_clip).float().mean())
        busy = sum(self._times.values())
        for name, seconds in self._times.items():
            result[f"{name}_ms"] = 1000 * seconds / self._steps
        result["step_ms"] = 1000 * busy / self._steps
        result["data_wait_fraction"] = self._times["data_wait"] / busy
        result["tokens_per_s"] = (self.tokens_seen - self._tokens_before) / busy
        result["learning_rate"] = self._rate
        asked, actual = sum(self._asked.values()), sum(self._actual.values())
        for (task, source), count in self._asked.items():
            result[f"share_asked/{source}/{task}"] = count / asked
            result[f"share_actual/{source}/{task}"] = self._actual[task, source] / actual
        demonstrations = sum(count for (_, source), count in self._actual.items() if source == DEMONSTRATIONS)
        result["demonstration_share"] = demonstrations / actual
        result["prompt_share"] = self._prompted / self._windows
        for task, lags in self._lag_versions.items():
            result[f"lag_versions_mean/{task}"] = float(np.mean(lags))
        of_all = [lag for lags in self._lag_versions.values() for lag in lags]
        for name, lags in (("versions", of_all), ("seconds", self._lag_seconds)):
            if lags:
                result[f"lag_{name}_mean"] = float(np.mean(lags))
                result[f"lag_{name}_p95"] = float(np.percentile(lags, 95))
                result[f"lag_{name}_max"] = float(np.max(lags))
        if self._newest is not None:
            for layer, share in enumerate(self._attention_entropy(self._newest)):
                if math.isfinite(share):
                    result[f"attention_entropy/layer{layer}"] = share
        self._forget()
        return result

    def _attention_entropy(self, batch: Batch) -> list[float]:
        """Of each layer, in some rows of a batch."""
        with torch.no_grad():
            x = packed_embeddings(self.agent, batch)[:ENTROPY_ROWS]
            layout = batch.layout.map(lambda rows: rows[:ENTROPY_ROWS])
            return [float(share) for share in self.agent.transformer.attention_entropy(x, layout)]

    @property
    def acting(self) -> Agent:
        """Whose weights are published, evaluated and kept; see `Objective.acting`."""
        return self.objective.acting(self.agent)

    def next_version(self) -> tuple[int, dict[str, np.ndarray]]:
        """Count a version up and copy the weights that act to the CPU, for publication."""
        self.version += 1
        return self.version, flat_weights(self.acting)

    def counters(self) -> dict[str, Any]:
        """Absolute counts, JSON-able; they go into the checkpoint."""
        self._settle()
        return {
            "step_count": self.step_count,
            "version": self.version,
            "seconds": self.seconds,
            "tokens_seen": self.tokens_seen,
            "online_windows_learned": self.online_windows_learned,
            "windows_learned": dict(self.windows_learned),
            "mixture_carry": [[*key, carry] for key, carry in self._carry.items()],
        }

    def restore_counters(self, counters: dict[str, Any]) -> None:
        """Inverse of `counters`; before the first step. What is not of their form raises ValueError."""
        numbers = ("step_count", "version", "seconds", "tokens_seen", "online_windows_learned")
        try:
            sound = all(
                math.isfinite(value) and value >= 0
                for value in (*(counters[name] for name in numbers), *counters["windows_learned"].values())
            ) and all(
                math.isfinite(carry) and isinstance(task, str) and isinstance(source, str)
                for task, source, carry in counters["mixture_carry"]
            )
        except (AttributeError, KeyError, TypeError, ValueError, OverflowError):
            sound = False
        if not sound:
            raise ValueError(f"these are no counters of a learner: {str(counters)[:200]}; use an earlier checkpoint")
        for name in numbers:
            setattr(self, name, counters[name])
        self.windows_learned = defaultdict(int, counters["windows_learned"])
        self._batches = None
        for task, source, carry in counters["mixture_carry"]:
            if (task, source) in self.batches.mixture.carry:
                self.batches.mixture.carry[task, source] = self._carry[task, source] = carry
        self._forget()

    def close(self) -> None:
        """Stop the thread that prepares batches."""
        if self._batches is not None:
            self._batches.close()
