"""Montezuma's Revenge: do the agent's own good episodes raise what imitation of the explorer's demonstrations earns?

    python -m studies.montezuma_online [--seeds 0 1 2] [--episodes 80] [--known REPORT] [--out FILE]

For each training seed the run of `studies.montezuma` (imitation; made first where it is not there), and from its
weights two runs of `experiment=montezuma_online`, of as many updates each, in ``runs/montezuma-<arm>-<seed>``:

- ``online``: half of the windows from the run's own episodes under sticky actions that reach ``learner.good_threshold``
  of the demonstrations' mean return, half from the demonstrations;
- ``imitation``: all from the demonstrations.

What is there is kept, and what an earlier report has is not made again. All three play the same reporting episodes
under sticky actions of 0.25, from the reset, greedily. Differences are paired by training seed, as in
`studies.improvement`.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from distributed.compose import compose
from distributed.metrics import read_rows
from distributed.report import write_report
from studies.improvement import difference
from studies.montezuma import ACTOR
from studies.montezuma import EXPERIMENT as BEFORE
from studies.runs import cpu_seconds, evaluated, final_result, known_runs, returns_of, trained

EXPERIMENT = "experiment=montezuma_online"
OWN = ("windows", "good_windows")
DEADLINE = 7200
"""Seconds of one evaluation."""
ARMS: dict[str, tuple[str, ...]] = {
    "online": (),
    "imitation": (f"actors.{ACTOR}.num_actors=0", f"actors.{ACTOR}.online_share=0"),
}


def own_windows(folder: Path) -> dict[str, float]:
    """Of a run: windows of its own episodes, and of those that were good enough to be learned from."""
    found: dict[str, float] = {}
    for row in read_rows(folder / "metrics.jsonl"):
        found |= {key: row["values"][f"counts/{key}"] for key in OWN if f"counts/{key}" in row["values"]}
    return found


def main() -> None:
    """Make what is missing, print JSON and a table."""
    parser = argparse.ArgumentParser(description="own good episodes after imitation, in Montezuma's Revenge")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of training")
    parser.add_argument("--episodes", type=int, default=80, help="under sticky actions")
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the runs")
    parser.add_argument("--known", type=Path, help="a report whose runs are not made again")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("overrides", nargs="*", help="key=value of the runs after imitation")
    options = parser.parse_args()
    settings = {"episodes": options.episodes, "overrides": options.overrides}
    try:
        known = known_runs(options.known, settings)
    except ValueError as error:
        parser.error(str(error))
    final = [f"evaluation.final_episodes={options.episodes}", f"evaluation.final_minutes={DEADLINE // 60}"]
    sticky = ["--episodes", str(options.episodes), "--deadline", str(DEADLINE)]
    returns: dict[str, list[np.ndarray]] = {name: [] for name in ("before", *options.arms)}
    runs: dict[str, Any] = {}
    for seed in options.seeds:
        before = options.runs / f"montezuma-seed{seed}"
        folders = {arm: options.runs / f"montezuma-{arm}-{seed}" for arm in options.arms}
        if any(folder.name not in known for folder in (before, *folders.values())):
            trained(before, [BEFORE, f"seed={seed}", "evaluation.final_episodes=1"])
        if before.name not in known:
            found = evaluated(before, f"sticky-{options.episodes}", sticky)
            known[before.name] = {"cpu_seconds": cpu_seconds(before), "returns": returns_of(found).tolist()}
        for arm, folder in folders.items():
            if folder.name not in known:
                words = [EXPERIMENT, f"start_from={before}", f"seed={seed}", *ARMS[arm], *final, *options.overrides]
                found = final_result(trained(folder, words))
                figures = {"cpu_seconds": cpu_seconds(folder), **own_windows(folder)}
                known[folder.name] = {**figures, "returns": returns_of(found).tolist()}
        for name, folder in {"before": before, **folders}.items():
            runs[folder.name] = known[folder.name]
            returns[name].append(np.asarray(known[folder.name]["returns"]))
    report: dict[str, Any] = {
        "seeds": options.seeds,
        **settings,
        "updates": compose([EXPERIMENT, *options.overrides]).learner.steps,
        "means": {name: [float(each.mean()) for each in seeds] for name, seeds in returns.items()},
        "differences": {},
        "runs": runs,
    }
    for other in ("imitation", "before"):
        if "online" in returns and other in returns:
            mean, interval, holds = difference(returns["online"], returns[other])
            report["differences"][other] = {"mean": mean, "ci95": interval, "holds": holds}
    write_report("studies.montezuma_online", report, options.out)
    print("\n| arm | mean by seed |\n|---|---|")
    for name, means in report["means"].items():
        print(f"| {name} | {', '.join(f'{mean:.0f}' for mean in means)} |")
    print("\n| online minus | difference (95% interval) | holds |\n|---|---|---|")
    for other, entry in report["differences"].items():
        low, high = entry["ci95"]
        print(f"| {other} | {entry['mean']:.0f} ({low:.0f} to {high:.0f}) | {entry['holds']} |")


if __name__ == "__main__":
    main()
