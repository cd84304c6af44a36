"""`Result`: what one set of weights reached on each task; the form of ``result.json`` and of ``evaluate --json``."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from actors.evaluator import Foretold, ci95
from actors.text_scores import TextScores
from agent.task import TaskSpec
from distributed.errors import ClowderError
from distributed.run_folder import write_whole

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

SCHEMA = 1
_SCORES = ("mean_return", "normalised", "demonstrator_normalised")


@dataclasses.dataclass(frozen=True)
class TaskResult:
    """One task.

    Attributes:
        episodes: finished episodes n.
        mean_return: of raw, undiscounted returns.
        ci95_mean_return: 95% bootstrap interval of it over episodes (low, high).
        normalised: by the fixed random and reference returns of the task; NaN where they are unknown.
        demonstrator_normalised: 0 is random play and 1 the mean demonstration of this run; NaN where unknown.
        text: further scores of a text task; None for others.
        returns: of each episode, in the order of their seeds.
        foretold: what was said at their first steps, and what came of it.
    """

    episodes: int
    mean_return: float
    ci95_mean_return: tuple[float, float]
    normalised: float
    demonstrator_normalised: float
    text: TextScores | None = None
    returns: list[float] = dataclasses.field(default_factory=list)
    foretold: Foretold = dataclasses.field(default_factory=Foretold)


def task_result(
    returns: Sequence[float],
    task: TaskSpec,
    random_return: float | None,
    demonstrator_return: float | None,
    text: TextScores | None = None,
    foretold: Foretold | None = None,
) -> TaskResult:
    """Score raw returns [n], beside what was said of them, if anything.

    ``random_return`` and ``demonstrator_return`` are None or NaN where unknown.

    Where the run measured no random return, the fixed one of the task stands in for it.
    """
    mean = sum(returns) / len(returns) if len(returns) else math.nan
    low = task.random_return if random_return is None or math.isnan(random_return) else random_return
    span = (math.nan if demonstrator_return is None else demonstrator_return) - low
    return TaskResult(
        episodes=len(returns),
        mean_return=mean,
        ci95_mean_return=ci95(returns),
        normalised=task.normalised(mean),
        demonstrator_normalised=(mean - low) / span if span else math.nan,
        text=text,
        returns=list(returns),
        foretold=foretold or Foretold(),
    )


@dataclasses.dataclass(frozen=True)
class Result:
    """An evaluation of one set of weights on all tasks.

    Attributes:
        seed: of the training run.
        policy_version: version of the weights.
        decoding: how actions were chosen, in words.
        tasks: by task name.
        learner_steps, environment_steps, wall_seconds, online_windows_learned: what training had taken by then.
        failed: why, for each task whose evaluation failed; such a task is not in ``tasks``.
    """

    seed: int
    policy_version: int
    decoding: str
    tasks: dict[str, TaskResult]
    learner_steps: int
    environment_steps: int
    wall_seconds: float
    online_windows_learned: int
    failed: dict[str, str] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Plain-data form; NaN becomes ``None``. Only text tasks have a ``text``, and only what was said is there."""
        data = {"schema": SCHEMA} | dataclasses.asdict(self)
        for name, task in data["tasks"].items():
            if task["text"] is None:
                del task["text"]
            foretold = task.pop("foretold")
            for pair in Foretold.PAIRS:
                if self.tasks[name].foretold.pairs(*pair):
                    task |= {key: foretold[key] for key in pair}
        return _without_nan(data)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Result:
        """Inverse of `to_json`; another schema raises ValueError."""
        data = dict(data)
        if data.pop("schema", None) != SCHEMA:
            raise ValueError(f"the result is not of schema {SCHEMA}")
        tasks = {
            name: TaskResult(
                **{key: _number(value) for key, value in task.items() if key in ("episodes", *_SCORES)},
                ci95_mean_return=(_number(task["ci95_mean_return"][0]), _number(task["ci95_mean_return"][1])),
                text=TextScores(**{k: _number(v) for k, v in task["text"].items()}) if task.get("text") else None,
                returns=[_number(value) for value in task.get("returns", [])],
                foretold=Foretold(**{k: [_number(v) for v in task.get(k, ())] for k in sum(Foretold.PAIRS, ())}),
            )
            for name, task in data.pop("tasks").items()
        }
        return cls(**data, tasks=tasks)

    def write(self, path: Path) -> None:
        """Write the JSON; a reader never sees a part of it."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: Path) -> Result:
        """Inverse of `write`; ClowderError where there is no such result."""
        try:
            return cls.from_json(json.loads(path.read_text()))
        except FileNotFoundError:
            raise ClowderError(f"there is no {path}: the run has not finished; see clowder status") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ClowderError(f"{path} is not a result of Clowder: {error}") from error


def result_table(result: Result) -> Table:
    """One row a task, for the console."""
    from rich.table import Table

    table = Table(
        title=f"One set of weights (version {result.policy_version}, {result.learner_steps:,} learner steps)",
        caption=f"decoding: {result.decoding}\n"
        "demonstrator normalised: 0 is random play, 1 the mean demonstration; normalised: by the task's fixed returns",
    )
    table.add_column("task")
    asked = {name: task.foretold.means("asked", "achieved") for name, task in result.tasks.items()}
    columns = ["episodes", "mean return", "95% interval", "demonstrator\nnormalised", "normalised"]
    for column in columns + ["asked for", "achieved"] * any(asked.values()):
        table.add_column(column, justify="right")
    for name, task in sorted(result.tasks.items()):
        low, high = task.ci95_mean_return
        interval = f"{_shown(low, '.4g')} to {_shown(high, '.4g')}"
        scores = (_shown(task.demonstrator_normalised, ".2f"), _shown(task.normalised, ".2f"))
        row = [name, str(task.episodes), _shown(task.mean_return, ".4g"), interval, *scores]
        if any(asked.values()):
            row += [_shown(mean, ".4g") for mean in asked[name] or (math.nan, math.nan)]
        table.add_row(*row)
    return table


def text_table(result: Result) -> Table | None:
    """Further scores of the text tasks, one row each; None where there are none."""
    from rich.table import Table

    table = Table(
        title="Text",
        caption="accuracy: exactly right answers; without picture: the same questions, the picture grey; "
        "most frequent: what one constant answer can reach",
    )
    table.add_column("task")
    for column in ("texts", "accuracy", "without\npicture", "most\nfrequent", "perplexity", "bits a byte"):
        table.add_column(column, justify="right")
    for name, task in sorted(result.tasks.items()):
        if task.text is not None:
            scores = task.text
            accuracies = (scores.accuracy, scores.without_picture, scores.most_frequent_answer)
            row = [str(scores.texts), *(_shown(each, ".2f") for each in accuracies), _shown(scores.perplexity, ".4g")]
            table.add_row(name, *row, _shown(scores.bits_per_byte, ".3f"))
    return table if table.row_count else None


def print_result(result: Result, console: Console) -> None:
    """All tables of a result."""
    console.print(result_table(result))
    if (text := text_table(result)) is not None:
        console.print(text)


def _shown(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _number(value: float | None) -> Any:
    return math.nan if value is None else value


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
