"""`Progress`: turns the reports of all processes into counters, the run's clock, and scalars (`docs/metrics.md`)."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from actors.evaluator import Foretold
from distributed.counters import COUNTED, Counters
from distributed.evaluation import Round
from distributed.plan import RunPlan

log = logging.getLogger(__name__)
_FORETOLD = {
    "asked": "asked_return", "achieved": "achieved_return", "valued": "value", "earned": "discounted_return",
}  # fmt: skip
"""Scalars of `Foretold`."""
_LEARNER_GROUPS = {"share_asked/": "share_asked/", "share_actual/": "share/", "lag_": "lag/"}
"""Names of the learner's metrics that are groups of their own; the others are in ``learner/``."""
PARTS = ("environment", "policy", "writer", "blocked")


class Progress:
    """State of one run, as the coordinator knows it; what must survive goes into checkpoints by `state`.

    Attributes:
        version: highest one of weights that anybody has reported; -1 before the first.
    """

    def __init__(self, plan: RunPlan, saved: Mapping[str, Any] | None = None) -> None:
        saved = saved or {}
        self.plan = plan
        self.counters = Counters.restore(saved["counters"]) if "counters" in saved else Counters()
        self.replayers: dict[str, Any] = dict(saved.get("replayers", {}))
        self._seconds_before = float(saved.get("wall_seconds", 0.0))
        self._started = time.monotonic()
        self._ended: float | None = None
        self.learner: dict[str, Any] = {}
        self.version = -1
        self._learner_sums: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
        self._shares: dict[str, float] = defaultdict(float)
        self._updates_reported = 0
        self._names = {task.name: name for name, task in plan.tasks.items()}
        self._actors: dict[str, dict[str, Any]] = {}
        self._seconds: dict[str, dict[str, float]] = {}
        self._episodes: dict[str, list[Any]] = defaultdict(list)
        self._at = time.monotonic()
        self._before: dict[str, dict[str, int]] = {}
        self._steps_before: int | None = None
        self._evaluations: dict[str, float] = {}
        self._scores_of_tasks: dict[str, float] = dict(saved.get("scores", {}))

    @property
    def wall_seconds(self) -> float:
        """Of training, over all resumes, start-up included."""
        return self._seconds_before + (self._ended or time.monotonic()) - self._started

    def end_clock(self) -> None:
        """Training has ended: what follows is not counted in `wall_seconds`."""
        self._ended = time.monotonic()

    @property
    def learner_steps(self) -> int:
        """Of the newest report; 0 before the first."""
        return int(self.learner.get("learner_steps", 0))

    @property
    def environment_steps(self) -> int:
        """Of all actors, over all resumes."""
        return self.counters.totals()["environment_steps"]

    def limit_reached(self) -> str:
        """Which limit of ``stop.*`` on time or environment steps holds, in words; empty while none does."""
        stop = self.plan.config.stop
        if stop.wall_minutes and self.wall_seconds >= 60 * stop.wall_minutes:
            return f"{stop.wall_minutes:g} minutes are over"
        if stop.environment_steps and self.environment_steps >= stop.environment_steps:
            return f"{self.environment_steps:,} environment steps are done"
        return ""

    def state(self) -> dict[str, Any]:
        """JSON-able; the checkpoint's part that is not the learner's."""
        return {
            "counters": self.counters.state(),
            "replayers": dict(self.replayers),
            "wall_seconds": self.wall_seconds,
            "environment_steps": self.environment_steps,
            "scores": dict(self._scores_of_tasks),
            "score": self.score,
        }

    @property
    def score(self) -> float | None:
        """Mean over tasks of the newest normalised returns of monitoring evaluation; None until all have one."""
        scores = self._scores_of_tasks
        return sum(scores.values()) / len(scores) if scores.keys() >= self._names.keys() else None

    def of_learner(self, report: Mapping[str, Any]) -> None:
        """Take a report of the learner."""
        if "learner_steps" not in report:
            return
        for updates, metrics in report["points"]:
            for name, value in metrics.items():
                total = self._learner_sums[scalar_name(name)]
                total[0] += value * updates
                total[1] += updates
                if scalar_name(name).startswith(("share/", "share_asked/")):
                    self._shares[scalar_name(name)] += value * updates
            self._updates_reported += updates
        for what, happened in (("checkpoint", "written"), ("publication", "taken")):
            why = report.get(f"{what}_failure", "")
            if why and why != self.learner.get(f"{what}_failure", ""):
                log.error("a %s was not %s, and training goes on: %s", what, happened, why)
        self.learner = dict(report)
        self.version = max(self.version, int(report.get("version", -1)))

    def share_gaps(self) -> list[str]:
        """Sources that got another share of all windows than was asked, in words; only empty tables are a reason."""
        gaps = []
        for name, asked in self._shares.items():
            source = name.removeprefix("share_asked/")
            missing = (asked - self._shares.get(f"share/{source}", 0.0)) / max(self._updates_reported, 1)
            if source != name and missing > 1e-6:
                gaps.append(
                    f"{source} gave {100 * missing:.2f}% fewer of all windows than was asked "
                    f"({100 * asked / self._updates_reported:.2f}%): while its table was empty, the task's other "
                    "source took its place"
                )
        return gaps

    def of_actor(self, task: str, report: Mapping[str, Any]) -> None:
        """Take a report of an environment actor of ``task``."""
        if "environment_steps" not in report:
            return
        actor, incarnation = report["actor_id"], report["incarnation"]
        self.counters.update(actor, incarnation, {name: report[name] for name in COUNTED})
        self._actors[actor] = {"task": task, **report}
        self.version = max(self.version, int(report["policy_version"]))
        for episode in report["finished"]:
            self._episodes[task].append(episode)

    def keep_actors(self, present: Iterable[str]) -> None:
        """Forget the last reports of actors that play no more; their counts stay."""
        present = set(present)
        self._actors = {actor: report for actor, report in self._actors.items() if actor in present}

    def of_replayer(self, replayer: str, report: Mapping[str, Any]) -> None:
        """Take a report of a demonstration replayer; its cursor is kept for a restart and a resume."""
        if report.get("cursor") is not None:
            self.replayers[replayer] = report["cursor"]

    def of_evaluator(self, rounds: list[Round]) -> None:
        """Take rounds of monitoring evaluation."""
        for each in rounds:
            if each.returns:
                mean = sum(each.returns) / len(each.returns)
                normalised, demonstrator = self._scores(each.task, mean)
                if math.isfinite(normalised):
                    self._scores_of_tasks[each.task] = normalised
                self._evaluations[f"evaluation/return/{each.task}"] = mean
                self._evaluations[f"evaluation/normalised/{each.task}"] = normalised
                self._evaluations[f"evaluation/demonstrator_normalised/{each.task}"] = demonstrator
                self._evaluations[f"evaluation/version/{each.task}"] = float(each.version)
                for pair in Foretold.PAIRS:
                    for key, mean in zip(pair, each.foretold.means(*pair) or ()):
                        self._evaluations[f"evaluation/{_FORETOLD[key]}/{each.task}"] = mean
                if each.text is not None:
                    scores = {f"evaluation/{name}/{each.task}": value for name, value in vars(each.text).items()}
                    self._evaluations |= {name: value for name, value in scores.items() if not math.isnan(value)}

    def scalars(self) -> dict[str, float]:
        """One point of every scalar: rates and means since the point before."""
        now = time.monotonic()
        elapsed, self._at = max(1e-6, now - self._at), now
        values = self._learner_scalars(elapsed)
        totals = self.counters.by_task()
        values |= {f"counts/{name}": float(value) for name, value in self.counters.totals().items()}
        for task, counts in totals.items():
            before = self._before.get(task, counts)
            for name in ("environment_steps", "frames", "episodes", "windows"):
                values[f"actor/{name}_per_s/{task}"] = (counts[name] - before[name]) / elapsed
            values |= self._actor_scalars(task) | self._return_scalars(task)
        for name, found in self.plan.demonstrations.items():
            values[f"demonstrations/return/{self.plan.tasks[name].name}"] = found.demonstrator_return
        self._before = totals
        return values | self.evaluation_scalars()

    def evaluation_scalars(self) -> dict[str, float]:
        """Of the rounds of evaluation since the last call."""
        values, self._evaluations = self._evaluations, {}
        return values

    def _learner_scalars(self, elapsed: float) -> dict[str, float]:
        values = {}
        for name, (total, count) in self._learner_sums.items():
            values[name] = total / count
        self._learner_sums.clear()
        if self.learner:
            before = self.learner_steps if self._steps_before is None else self._steps_before
            # A learner that was replaced goes back to its newest checkpoint.
            values["learner/steps_per_s"] = max(0.0, (self.learner_steps - before) / elapsed)
            values["learner/version"] = float(self.learner["version"])
            values["learner/publication_failures"] = float(self.learner["publication_failures"])
            values |= {f"learner/checkpoint_{name}": float(n) for name, n in self.learner["checkpoints"].items()}
            counters = self.learner["counters"]
            values |= {f"counts/{name}": float(counters[name]) for name in ("online_windows_learned", "tokens_seen")}
            values["counts/learner_minutes"] = counters["seconds"] / 60
            values |= {f"counts/windows_learned/{key}": float(n) for key, n in counters["windows_learned"].items()}
            self._steps_before = self.learner_steps
        return values

    def _actor_scalars(self, task: str) -> dict[str, float]:
        """Shares of their loop and age of weights, means over the actors of a task."""
        reports = [report for report in self._actors.values() if report["task"] == task]
        sums = dict.fromkeys(PARTS, 0.0)
        for report in reports:
            key = f"{report['actor_id']}.{report['incarnation']}"
            before = self._seconds.get(key, {})
            for part in PARTS:
                sums[part] += report["seconds"][part] - before.get(part, 0.0)
            self._seconds[key] = report["seconds"]
        whole = sums["environment"] + sums["policy"] + sums["writer"]
        values = {f"actor/{part}_share/{task}": sums[part] / whole for part in PARTS} if whole > 0 else {}
        ages = [report["policy_age"] for report in reports if math.isfinite(report["policy_age"])]
        if ages:
            values[f"actor/weights_age_s/{task}"] = sum(ages) / len(ages)
            behind = [self.learner["version"] - report["policy_version"] for report in reports if self.learner]
            values[f"actor/versions_behind/{task}"] = sum(behind) / len(behind) if behind else math.nan
        return values

    def _return_scalars(self, task: str) -> dict[str, float]:
        """Of the episodes that finished since the point before, if any did."""
        episodes, self._episodes[task] = self._episodes[task], []
        if not episodes:
            return {}
        mean = sum(each.episode_return for each in episodes) / len(episodes)
        normalised, demonstrator = self._scores(task, mean)
        values = {
            f"return/{task}": mean,
            f"normalised/{task}": normalised,
            f"demonstrator_normalised/{task}": demonstrator,
            f"episode_length/{task}": sum(each.length for each in episodes) / len(episodes),
            f"good_episodes/{task}": sum(each.good for each in episodes) / len(episodes),
        }
        told = [each.success for each in episodes if each.success is not None]
        return values | ({f"success/{task}": sum(told) / len(told)} if told else {})

    def _scores(self, task: str, mean: float) -> tuple[float, float]:
        name = self._names[task]
        spec, found = self.plan.tasks[name], self.plan.demonstrations.get(name)
        if found is None:
            return spec.normalised(mean), math.nan
        low = spec.random_return if math.isnan(found.random_return) else found.random_return
        span = found.demonstrator_return - low
        return spec.normalised(mean), (mean - low) / span if span else math.nan


def scalar_name(metric: str) -> str:
    """Name of a scalar from the learner's name of its metric."""
    for prefix, group in _LEARNER_GROUPS.items():
        if metric.startswith(prefix):
            return group + metric.removeprefix(prefix)
    return f"learner/{metric}"
