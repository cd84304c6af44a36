"""Experts on their tasks: mean return beside a published good one, and CPU time of an episode.

    python -m benchmarks.experts [--only PATTERN ...] [--episodes N] [--out FILE] [--markdown]

Every episode is played by the expert and once more through the task's adapter, whose return (and success) counts. Each
is written to ``--out`` as soon as it is there, and what is there is not played again: so a killed measurement goes on
with the same command. A task whose expert fails is reported with its error.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from actors.config import ActorConfig
from actors.demonstrations.episode import ActionRecord, Episode
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment
from actors.environments.vector_environment import VectorEnvironment
from actors.experts.expert import ExpertFailed
from actors.experts.make import expert_sees, make_expert
from actors.experts.settings import settings_file
from distributed.report import write_report


class Case(NamedTuple):
    """One expert on one task."""

    task: str
    expert: str
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        """Of the results."""
        return f"{self.task} {self.expert}"


ATARI_STEPS = {
    "breakout": 3_000,
    "boxing": 2_000,
    "freeway": 2_100,
    "krull": 600,
    "assault": 1_000,
    "atlantis": 1_000,
}
"""Games measured, and the steps after which an episode is cut: a score is that within them."""
BABYAI_LEVELS = [
    "GoToRedBallGrey",
    "GoToRedBall",
    "GoToObj",
    "GoToLocal",
    "GoTo",
    "GoToSeq",
    "GoToImpUnlock",
    "OpenDoor",
    "Open",
    "OpenTwoDoors",
    "Pickup",
    "PickupLoc",
    "PickupAbove",
    "UnblockPickup",
    "Unlock",
    "UnlockPickup",
    "KeyCorridorS3R3",
    "PutNextLocal",
    "SynthLoc",
    "BossLevel",
]
"""Twenty of them, of every kind of instruction, to the hardest."""


def cases() -> list[Case]:
    """All that is measured, the cheap ones first."""
    controlled = [Case(task, "dm-control-mpc", {}) for task in settings_file("dm_control_mpc")]
    return [
        *(Case(f"babyai/{level}", "babyai-bot", {}) for level in BABYAI_LEVELS),
        *(Case(f"atari/{rom}", "atari-planner", {"max_episode_steps": steps}) for rom, steps in ATARI_STEPS.items()),
        *controlled,
        *(Case(task, "metaworld-scripted", {"terminate_on_success": True}) for task in _metaworld_tasks()),
        Case("dm_control/cartpole-swingup", "cartpole-mpc", {}),
    ]


def _metaworld_tasks() -> list[str]:
    """None where the library is not installed."""
    if importlib.util.find_spec("metaworld") is None:
        return []
    return importlib.import_module("actors.environments.metaworld").task_names()


def play(case: Case, seeds: Iterator[int]) -> Iterator[dict[str, Any]]:
    """One result a seed."""
    config = ActorConfig(task=case.task, arguments=case.arguments)
    expert = make_expert(case.expert, config)
    environment = make_environment(config, 1)
    try:
        for seed in seeds:
            cpu, wall = time.process_time(), time.monotonic()
            try:
                record = expert.play(seed)
            except ExpertFailed as error:
                yield {"seed": seed, "failed": str(error)}
                continue
            cpu, wall = time.process_time() - cpu, time.monotonic() - wall
            episode = _again(environment, record)
            yield {
                "seed": seed,
                "return": round(episode.episode_return, 3),
                "success": episode.success,
                "steps": episode.length,
                "cpu_s": round(cpu, 2),
                "wall_s": round(wall, 2),
            }
    finally:
        environment.close()


def _again(environment: VectorEnvironment, record: ActionRecord) -> Episode:
    return next(item[1] for item in simulate(environment, lambda _: record, [0]) if item is not None)


def summary(case: Case, episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """One row of the table; a failed episode counts as none."""
    played = [each for each in episodes if "return" in each]
    reference = settings_file("references").get(case.task)
    row: dict[str, Any] = {
        "task": case.task,
        "expert": case.expert,
        "sees": expert_sees(case.expert),
        "arguments": case.arguments,
        "episodes": len(played),
        "failed": len(episodes) - len(played),
    }
    if played:
        mean = statistics.fmean(each["return"] for each in played)
        row |= {"mean_return": round(mean, 2), "cpu_s": round(statistics.fmean(each["cpu_s"] for each in played), 1)}
        if all(each["success"] is not None for each in played):
            row["success"] = round(statistics.fmean(each["success"] for each in played), 3)
        if reference is not None:
            row |= {"reference": reference["value"], "source": reference["source"]}
            row["share"] = round(mean / reference["value"], 3)
    return row


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown."""
    lines = [
        "| task | expert | episodes | mean return | success | reference | share | CPU s an episode |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        reference = f"{row['reference']:g} ({row['source']})" if "reference" in row else "-"
        cells = [row["task"], row["expert"], row["episodes"], row.get("mean_return", "-"), row.get("success", "-")]
        cells += [reference, row.get("share", "-"), row.get("cpu_s", "-")]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Play what is missing; print the table, and the JSON."""
    parser = argparse.ArgumentParser(description="Experts on their tasks")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="of 'task expert', as dm_control/*")
    parser.add_argument("--episodes", type=int, default=1, help="of each task, seeds 0, 1, ... (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("docs/results/experts.json"))
    options = parser.parse_args()
    kept = json.loads(options.out.read_text()) if options.out.is_file() else {}
    episodes: dict[str, list[dict[str, Any]]] = kept.get("episodes", {})

    def rows() -> list[dict[str, Any]]:
        return [summary(case, episodes[case.name]) for case in cases() if episodes.get(case.name)]

    for case in cases():
        if not any(fnmatch.fnmatch(case.name, f"{pattern}*") for pattern in options.only):
            continue
        there = episodes.setdefault(case.name, [])
        missing = sorted(set(range(options.episodes)) - {each["seed"] for each in there})
        for result in play(case, iter(missing)) if missing else ():
            there.append(result)
            print(case.name, result, flush=True)
            _write(options.out, {"rows": rows(), "episodes": episodes})
    write_report("benchmarks.experts", {"rows": rows(), "episodes": episodes}, options.out)
    print("\n" + table(rows()))


def _write(out: Path, contents: dict[str, Any]) -> None:
    """In one piece: a kill leaves the file of before or of after."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.with_suffix(".part")
    part.write_text(json.dumps(contents, indent=1) + "\n")
    part.replace(out)


if __name__ == "__main__":
    main()
