"""Explorers with an archive each: frames in sum until the first of two reaches a score, against one explorer's.

    python -m benchmarks.two_explorers [--score 400] [--pairs 5] [--processes 2] [--out docs/results/two_explorers.json]

Explorer ``i`` of ``3 * pairs`` explores with seed ``i`` until it has the score. Of each three, the first is the one
explorer and the others are the two, whose frames in sum are twice those of the faster, for both stop when it is there.
Frames do not depend on the machine's load.
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from actors.explorer.explorer import Explorer, ExplorerSettings
from distributed.commands.explore import frames
from distributed.report import write_report


def frames_to(task: str, seed: int, score: int, limit: int) -> int | None:
    """Frames until an explorer of that seed has the score; None where it has not by ``limit``."""
    explorer = Explorer(ExplorerSettings(task, seed))
    while explorer.progress.best < score:
        if explorer.progress.frames >= limit:
            return None
        explorer.run()
    return explorer.progress.frames


def main() -> None:
    """Measure, print JSON and a table."""
    parser = argparse.ArgumentParser(description="two explorers with an archive each against one")
    parser.add_argument("--task", default="atari/montezuma_revenge")
    parser.add_argument("--score", type=int, default=400)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--limit", type=frames, default=4_000_000, help="frames of one explorer (default: 4M)")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    seeds = range(3 * options.pairs)
    with ProcessPoolExecutor(options.processes, get_context("spawn")) as pool:
        futures = [pool.submit(frames_to, options.task, seed, options.score, options.limit) for seed in seeds]
        needed: list[int] = []
        for seed, future in zip(seeds, futures):
            found = future.result()
            if found is None:
                raise SystemExit(f"seed {seed} has not {options.score} points after {options.limit:,} frames")
            needed.append(found)
            print(f"seed {seed}: {found:,} frames", flush=True)
    triples = [needed[first : first + 3] for first in range(0, len(needed), 3)]
    ratios = [2 * min(a, b) / one for one, a, b in triples]
    report = {
        "task": options.task,
        "score": options.score,
        "frames": needed,
        "ratios": ratios,
        "median_ratio": statistics.median(ratios),
    }
    write_report("benchmarks.two_explorers", report, options.out)
    print("\n| one explorer | two, in sum | ratio |\n|---|---|---|")
    for (one, a, b), ratio in zip(triples, ratios):
        print(f"| {one:,} | {2 * min(a, b):,} | {ratio:.2f} |")
    print(f"\nmedian ratio: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
