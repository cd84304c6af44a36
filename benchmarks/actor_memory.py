"""Child process of `benchmarks.environment_actor`: plays for a while and prints its resident memory as JSON.

It imports what an environment actor's process of a run imports, Ray included, but is started by the benchmark, since
memory can only be compared between fresh processes.
"""

from __future__ import annotations

import json
import sys

import psutil
import torch

import distributed.processes  # noqa: F401  what a Ray worker has loaded already when it builds the actor
from actors.config import ActorConfig
from agent.config import AgentConfig
from benchmarks.actor_parts import make_actor
from distributed.process_environment import give_back_large_arrays
from replay.config import ReplayConfig

MEGABYTE = 2**20


def main() -> None:
    """Read the order as JSON from standard input; answer with one line of JSON."""
    order = json.load(sys.stdin)
    torch.set_num_threads(1)
    give_back_large_arrays()
    actor = make_actor(
        ActorConfig(**order["actor"]), AgentConfig(**order["agent"]), ReplayConfig(**order["replay"]), order["address"]
    )
    actor.run(order["steps"])
    process = psutil.Process()
    figures = {
        "rss_megabytes": round(process.memory_info().rss / MEGABYTE, 1),
        "private_megabytes": round(process.memory_full_info().uss / MEGABYTE, 1),
        "threads": process.num_threads(),
        "tensorflow_python_loaded": "tensorflow" in sys.modules,
    }
    actor.close(10.0)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
