"""Recording: episodes a second with two processes over one, of an expert that is single-threaded.

    python -m benchmarks.recording [--task babyai_goto_local] [--expert babyai-bot] [--episodes 2000] [--out FILE]

Both record the same set, in turns, so that a noisy machine disturbs both alike; figures are medians over the turns. One
process is `record`, without Ray; two are Ray's. Time counts from the first seed that is dealt out with all recorders
ready, so it leaves out the start of Ray and the measurement of random play, which a longer recording does not repeat.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from actors.config import ActorConfig
from actors.demonstrations.record import record_order
from actors.demonstrations.recording import RecordOrder, RecordReport
from distributed.compose import actor_configs
from distributed.recording import record_in_processes
from distributed.report import write_report


class Clock:
    """Told of each report; measures from the episode ``warm`` to the last: by then every recorder plays."""

    def __init__(self, warm: int) -> None:
        self._warm = warm
        self.first: tuple[float, int] | None = None
        self.last = (0.0, 0)

    def show(self, report: RecordReport) -> None:
        """Take the time."""
        self.last = (time.monotonic(), report.episodes)
        if self.first is None and report.episodes >= self._warm:
            self.first = self.last

    @property
    def rate(self) -> float:
        """Episodes a second."""
        assert self.first is not None
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def measure(config: ActorConfig, expert: str, episodes: int, rounds: int, warm: int) -> dict[str, Any]:
    """Medians over ``rounds`` turns of each."""
    rates: dict[int, list[float]] = {1: [], 2: []}
    loads = []
    for _ in range(rounds):
        for processes in rates:
            folder = Path(tempfile.mkdtemp()) / "set"
            order = RecordOrder(config, episodes, folder, random_seconds=0.0)
            clock = Clock(warm)
            loads.append(round(os.getloadavg()[0], 2))
            if processes == 1:
                record_order(order, expert, progress=clock.show)
            else:
                record_in_processes(order, expert, processes, progress=clock.show)
            rates[processes].append(clock.rate)
            shutil.rmtree(folder.parent)
    one, two = (statistics.median(rates[processes]) for processes in (1, 2))
    return {"episodes_per_s": {"1": rates[1], "2": rates[2]}, "loads": loads, "ratio": two / one}


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Recording: two processes over one")
    parser.add_argument("--task", default="babyai_goto_local", help="short name (default: %(default)s)")
    parser.add_argument("--expert", default="babyai-bot", help="(default: %(default)s)")
    parser.add_argument("--episodes", type=int, default=2000, help="of each turn (default: %(default)s)")
    parser.add_argument("--warm", type=int, default=20, help="episodes before the clock (default: %(default)s)")
    parser.add_argument("--max-episode-steps", type=int, help="argument of an Atari task: shorter episodes")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    if options.episodes < 2 * options.warm:
        parser.error(f"--episodes must be at least {2 * options.warm}, twice --warm")
    known = actor_configs()
    if options.task not in known:
        parser.error(f"no actor config {options.task}; there are {', '.join(known)}")
    config = known[options.task]
    if options.max_episode_steps:
        arguments = config.arguments | {"max_episode_steps": options.max_episode_steps}
        config = dataclasses.replace(config, arguments=arguments)
    figures = measure(config, options.expert, options.episodes, options.rounds, options.warm)
    settings = {"task": options.task, "expert": options.expert, "episodes": options.episodes}
    write_report("benchmarks.recording", settings | figures, options.out)


if __name__ == "__main__":
    main()
