"""What the defaults of online learning are worth: one change at a time, two tasks, three seeds.

    python -m studies.ablations [--tasks swingup balance] [--seeds 0 1 2] [--updates 2000] [--out ...json]

All runs are `experiment=improvement` (a small model, its own episodes or none, one process) on a task of one planner,
whose demonstrations are recorded first: *weak* (it errs in every episode), *mixed* (in half of them) and *expert*. Each
is one `clowder train` a seed, in ``runs/ablations/<task>-<set>-<variant>-<seed>``; what is there is kept, so the study
may be killed and started again, and several may run side by side with other ``--tasks`` or ``--seeds``.

- **Objectives**, on the same demonstrations and without own data: imitation, imitation of the best quarter of the
  demonstrations, return-conditioned, advantage-filtered.
- **What is asked for**, of the same return-conditioned weights: nothing, a fixed return (the highest of the range), or
  what the model itself holds possible, tilted.
- **Online**, from weak demonstrations: the default, and with a floor of entropy, with the table of the best episodes,
  and with Gato's embedding, a token for each number.

The final checkpoint plays reporting episodes, sampled as it acts. A variant minus the default is paired by seed, with
its bootstrap interval over seeds and episodes, as in `studies.improvement`.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from actors.demonstrations.open_set import open_set
from distributed.command import run_clowder
from distributed.compose import compose
from distributed.report import write_report
from studies.improvement import EXPERIMENT, difference
from studies.runs import LIMIT_SECONDS, cpu_seconds, evaluated, final_result, returns_of, trained

EPISODES = 40
"""Of a set; a quarter of them are the best that are imitated."""
EVALUATED = 40
HORIZON = 50
"""Held actions whose return is told or asked for: these tasks end by a time limit, which is no end."""


@dataclasses.dataclass(frozen=True)
class AblationTask:
    """An actor config, and the disturbances under which its planner is weak."""

    actor: str
    level: float


TASKS = {
    "swingup": AblationTask("cartpole_swingup_grid", 2.0),
    "balance": AblationTask("cartpole_balance_grid", 4.0),
}
SETS = {"weak": "weak:{level}:", "mixed": "weak:{level}@0.5:", "expert": ""}
"""Prefix of the planner's name."""

OFFLINE = ("{actor}.online_share=0", "{actor}.num_actors=0")
ONLINE = ("{actor}.online_share=0.5",)
IMITATION = ("learner.objective=imitation", "agent.value_bins=0")
RETURNS = (
    "learner.objective=return_conditioned",
    "agent.value_bins=0",
    "agent.returns=masked",
    "learner.tokens_per_row=64",
    f"{{actor}}.return_horizon={HORIZON}",
    f"{{actor}}.return_range=[0,{4 * HORIZON}]",
)
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "imitation": (*OFFLINE, *IMITATION),
    "filtered": (*OFFLINE, *IMITATION, f"{{actor}}.demonstrations_top={EPISODES // 4}"),
    "return_conditioned": (*OFFLINE, *RETURNS, "evaluation.decoding.returns=tilted"),
    "advantage_filtered": OFFLINE,
}
ASKED = {
    "none": ("evaluation.decoding.returns=none",),
    "target": ("evaluation.decoding.returns=target", f"evaluation.decoding.return_target={4 * HORIZON}"),
}
CHANGES: dict[str, tuple[str, ...]] = {
    "default": ONLINE,
    "entropy_floor": (*ONLINE, "learner.entropy_floor=0.3"),
    "best_table": (*ONLINE, "replay.best_capacity=1000", "learner.best_share=0.25"),
    "per_element": (*ONLINE, "agent.observation_embedding=per_element", "learner.tokens_per_row=112"),
}

Returns = dict[tuple[str, str], list[np.ndarray]]
"""Returns of each seed's final evaluation, by (set, variant)."""


def record(name: str, kind: str, sets: Path) -> Path:
    """The demonstrations of a task, recorded or continued now where they are not there."""
    task, folder = TASKS[name], sets / f"ablation-{name}-{kind}"
    words = ["record", task.actor]
    words += ["--expert", SETS[kind].format(level=task.level) + "dm-control-mpc"]
    words += ["--episodes", str(EPISODES), "--form", "minari", "--out", str(folder)]
    run_clowder(words, LIMIT_SECONDS)
    return folder.resolve()


def overrides(name: str, demonstrations: Path, variant: Sequence[str], options: argparse.Namespace) -> list[str]:
    """What `clowder train` is told."""
    actor = f"actors.{TASKS[name].actor}"
    words = [EXPERIMENT, f"actors=[{TASKS[name].actor}]", f"learner.steps={options.updates}"]
    words += [f"{actor}.demonstrations={demonstrations}", f"{actor}.evaluation_episodes={EVALUATED}"]
    words += [f"{actor}.action_temperature=0.5", *(word.format(actor=actor) for word in variant)]
    return [*words, *options.overrides]


def study(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Make what is missing for a task; all its figures."""
    sets = {kind: record(name, kind, options.sets) for kind in SETS}
    variants = {(kind, variant): words for kind in SETS for variant, words in OBJECTIVES.items()}
    variants |= {("online", variant): words for variant, words in CHANGES.items()}
    returns: Returns = {}
    cpu: dict[str, float | None] = {}
    for seed in options.seeds:
        for (kind, variant), words in variants.items():
            demonstrations = sets["weak" if kind == "online" else kind]
            folder = options.runs / f"{name}-{kind}-{variant}-{seed}"
            trained(folder, [*overrides(name, demonstrations, words, options), f"seed={seed}"])
            returns.setdefault((kind, variant), []).append(returns_of(final_result(folder)))
            cpu[folder.name] = cpu_seconds(folder)
            if variant == "return_conditioned":
                for what, decoding in ASKED.items():
                    found = evaluated(folder, f"asked-{what}", decoding)
                    returns.setdefault((kind, f"asked {what}"), []).append(returns_of(found))
    actor = compose([EXPERIMENT, f"actors=[{TASKS[name].actor}]"]).actors[TASKS[name].actor]
    shown = {}
    for kind, folder in sets.items():
        with closing(open_set(str(folder), actor)) as opened:
            shown[kind] = float(np.mean(opened.returns))
    return {"task": actor.task, "demonstrations": shown, "rows": rows(returns), "cpu_seconds": cpu}


def rows(returns: Returns) -> list[dict[str, Any]]:
    """Means by seed, and the difference from the default that each is compared with."""
    report = []
    for (kind, variant), seeds in returns.items():
        if variant.startswith("asked"):
            default = "return_conditioned"
        else:
            default = "default" if kind == "online" else "advantage_filtered"
        row: dict[str, Any] = {"set": kind, "variant": variant, "means": [float(each.mean()) for each in seeds]}
        if variant != default:
            mean, interval, above = difference(seeds, returns[kind, default])
            below = difference(returns[kind, default], seeds)[2]
            row |= {"against": default, "difference": mean, "ci95": interval, "holds": above or below}
        report.append(row)
    return report


def table(report: dict[str, Any]) -> str:
    """Markdown of one task."""
    shown = ", ".join(f"{kind} {mean:.0f}" for kind, mean in report["demonstrations"].items())
    lines = [f"\n{report['task']}; demonstrations: {shown}\n"]
    lines += [
        "| set | variant | mean by seed | minus | difference (95% interval) | holds |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        means = ", ".join(f"{mean:.0f}" for mean in row["means"])
        against = "| | | |"
        if "against" in row:
            low, high = row["ci95"]
            holds = "yes" if row["holds"] else "no"
            against = f"| {row['against']} | {row['difference']:.0f} ({low:.0f} to {high:.0f}) | {holds} |"
        lines.append(f"| {row['set']} | {row['variant']} | {means} {against}")
    return "\n".join(lines)


def main() -> None:
    """Make what is missing, print JSON and tables."""
    parser = argparse.ArgumentParser(description="the defaults of online learning, one change at a time")
    parser.add_argument("--tasks", nargs="+", choices=tuple(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=2000, help="of each run")
    parser.add_argument("--sets", type=Path, default=Path("runs/sets"), help="folder of the recorded sets")
    parser.add_argument("--runs", type=Path, default=Path("runs/ablations"), help="folder of the runs")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of all runs")
    options = parser.parse_args()
    report = [study(name, options) for name in options.tasks]
    settings = {"seeds": options.seeds, "updates": options.updates, "overrides": options.overrides}
    write_report("studies.ablations", {**settings, "tasks": report}, options.out)
    for entry in report:
        print(table(entry))


if __name__ == "__main__":
    main()
