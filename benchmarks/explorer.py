"""Explorer: share of its CPU time that the emulator takes, and what the parts around it take.

    python -m benchmarks.explorer [--task atari/montezuma_revenge] [--warm-up 100k] [--frames 200k] [--out FILE]

After a warm-up, so that the archive is not empty, the explorer runs with a clock of the thread's CPU time around each
of its parts, so that other processes do not count. The clock itself counts for the explorer, so the emulator's share is
a little more than is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.explorer.explorer import Explorer, ExplorerSettings
from distributed.commands.explore import frames
from distributed.report import write_report


class Clock:
    """Adds up the CPU time of calls, by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.calls: dict[str, int] = {}

    def around(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """``call``, timed."""
        self.seconds[name] = 0.0
        self.calls[name] = 0

        def timed(*arguments: Any) -> Any:
            began = time.thread_time_ns()
            result = call(*arguments)
            self.seconds[name] += (time.thread_time_ns() - began) / 1e9
            self.calls[name] += 1
            return result

        return timed


def measure(settings: ExplorerSettings, warm_up: int, count: int) -> dict[str, Any]:
    """Explore ``count`` frames after ``warm_up``."""
    explorer = Explorer(settings)
    while explorer.progress.frames < warm_up:
        explorer.run()
    clock = Clock()
    game: Any = explorer.game
    for name in ("act", "state", "restore"):
        setattr(game, name, clock.around(name, getattr(game, name)))
    parts: Any = explorer
    parts._key = clock.around("key", explorer._key)
    archive: Any = explorer.archive
    archive.select = clock.around("select", archive.select)
    cells, began_frames, began_runs = len(archive), explorer.progress.frames, explorer.progress.runs
    began = time.thread_time_ns()
    while explorer.progress.frames < began_frames + count:
        explorer.run()
    total = (time.thread_time_ns() - began) / 1e9
    done, runs = explorer.progress.frames - began_frames, explorer.progress.runs - began_runs
    return {
        "task": settings.task,
        "frames": done,
        "runs": runs,
        "cells_before": cells,
        "cells_after": len(archive),
        "frames_per_cpu_second": done / total,
        "emulator_alone_frames_per_cpu_second": done / clock.seconds["act"],
        "share_in_act": clock.seconds["act"] / total,
        "share_in_emulator": sum(clock.seconds[name] for name in ("act", "state", "restore")) / total,
        "shares": {name: seconds / total for name, seconds in clock.seconds.items()},
        "microseconds_a_call": {name: 1e6 * clock.seconds[name] / max(1, clock.calls[name]) for name in clock.seconds},
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Explorer: where its CPU time goes")
    parser.add_argument("--task", default="atari/montezuma_revenge")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--warm-up", type=frames, default=100_000, help="frames before (default: %(default)s)")
    parser.add_argument("--frames", type=frames, default=200_000, help="frames measured (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    figures = measure(ExplorerSettings(options.task, options.seed), options.warm_up, options.frames)
    write_report("benchmarks.explorer", figures, options.out)


if __name__ == "__main__":
    main()
