"""Demonstration replayer: windows a second from a set on disk into Reverb, beside what the learner takes.

    python -m benchmarks.replayer [--task cartpole_swingup babyai_goto_local boxing] [--seconds 20] [--out FILE]

One replayer, as a run starts it, writes the set of each task into a replay server of its own process until the set is
in or the time is over. What the learner of the quickstart takes is its batch times its steps a second
(``--steps-per-s``; 5 was its fastest), and of that each task its share.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from typing import Any

from actors.demonstration_replayer import DemonstrationReplayer
from actors.demonstrations.open_set import open_set
from distributed.compose import compose
from distributed.config import TrainConfig
from distributed.report import write_report
from replay.server import start_replay_server
from replay.writer import EpisodeWriter

TASKS = ("cartpole_swingup", "babyai_goto_local", "boxing")


def measure(config: TrainConfig, name: str, seconds: float, given: str | None = None) -> dict[str, Any]:
    """Replay the set of a task, or the set ``given`` for it, for at most ``seconds``."""
    actor = config.actors[name]
    opened = open_set(given or actor.demonstrations or "", actor, num_envs=1)
    task = opened.settings.task
    with start_replay_server([task], config.replay) as server:
        writer = EpisodeWriter(server.address, task, "demonstrations", config.replay, stop=threading.Event())
        replayer = DemonstrationReplayer(opened, writer)
        started, cpu = time.monotonic(), time.process_time()
        while not replayer.done and time.monotonic() - started < seconds:
            replayer.run(episodes=64, seconds=0.25)
        elapsed, busy = time.monotonic() - started, time.process_time() - cpu
        report = replayer.report()
        replayer.close(deadline=20.0)
    return {
        "set": opened.folder.name,
        "form": type(opened).__name__,
        "windows": report.windows,
        "windows_per_s": report.windows / elapsed,
        "windows_per_cpu_s": report.windows / busy,
        "steps_per_s": report.steps / elapsed,
        "seconds": elapsed,
        "share": {part: value / elapsed for part, value in report.seconds.items()},
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description="Demonstration replayer: windows a second into Reverb")
    parser.add_argument("--task", nargs="+", default=list(TASKS), help="short names, of the quickstart")
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="TASK=SET", help="another set of one"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="at most, for each (default: %(default)s)")
    parser.add_argument("--steps-per-s", type=float, default=5.0, help="of the learner (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args()
    config = compose(["experiment=quickstart"])
    unknown = sorted({*options.task, *(word.partition("=")[0] for word in options.sets)} - config.actors.keys())
    if unknown:
        parser.error(f"{unknown[0]} is no task of the quickstart; there are {', '.join(config.actors)}")
    taken = config.learner.windows_per_batch * options.steps_per_s
    weights = sum(actor.weight for actor in config.actors.values())
    figures = {}
    for name, given in [
        *((name, None) for name in options.task),
        *(tuple(each.split("=", 1)) for each in options.sets),
    ]:
        figure = measure(config, name, options.seconds, given)
        share = taken * config.actors[name].weight / weights
        figures[f"{name} {figure['set']}"] = figure | {
            "learner_takes_per_s": share,
            "over_what_the_learner_takes_of_the_task": figure["windows_per_s"] / share,
            "over_what_the_learner_takes_in_all": figure["windows_per_s"] / taken,
            "of_the_task_by_cpu_seconds": figure["windows_per_cpu_s"] / share,
            "in_all_by_cpu_seconds": figure["windows_per_cpu_s"] / taken,
        }
    write_report("benchmarks.replayer", {"learner_windows_per_s": taken, "tasks": figures}, options.out)


if __name__ == "__main__":
    main()
