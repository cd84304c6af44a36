"""``clowder explore``: find demonstrations of an Atari game with Go-Explore."""

from __future__ import annotations

import argparse
import os
import re
import shlex
from pathlib import Path


def frames(text: str) -> int:
    """A number of frames: ``4000000``, ``400k``, ``4M``, ``1.5G``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kKmMgG]?)", text.replace(",", "").replace("_", ""))
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of frames; write 4000000, 400k or 4M")
    return int(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}[found[2].lower()])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of the command."""
    parser.add_argument("task", metavar="TASK", help="an Atari game, such as atari/montezuma_revenge")
    parser.add_argument("--frames", type=frames, required=True, help="of each seed: 4000000, 400k or 4M")
    parser.add_argument("--out", type=Path, required=True, metavar="SET", help="folder of the set")
    parser.add_argument("--seeds", type=int, default=1, metavar="N", help="explorers, an archive each (default: 1)")
    parser.add_argument("--first-seed", type=int, default=0, metavar="SEED", help="of them (default: %(default)s)")
    parser.add_argument(
        "--processes", type=int, metavar="N", help="explorers at a time (default: as many as seeds, at most the cores)"
    )
    parser.add_argument("--resume", action="store_true", help="go on with the exploration in SET")
    parser.add_argument(
        "--replays", type=int, default=100, metavar="N", help="tries under sticky actions (default: %(default)s)"
    )
    parser.add_argument(
        "--partial-share",
        type=float,
        default=0.4,
        metavar="SHARE",
        help="of the tries, those kept that earned only a part, at most (default: %(default)s)",
    )
    parser.add_argument(
        "--end-on-life-loss", action="store_true", help="of runs, so that demonstrations lose no life (default: go on)"
    )
    parser.add_argument(
        "--config-dir", metavar="DIR", action="append", default=[], help="a folder of your own with actors/"
    )


def run(arguments: argparse.Namespace) -> int:
    """Explore, then make the sets."""
    from distributed.compose import find_actor
    from distributed.errors import refusing
    from distributed.exploration import explore
    from distributed.exploration_plan import ExplorationPlan, check_plan
    from distributed.exploration_sets import make_sets
    from distributed.process_environment import set_process_environment
    from distributed.stop_request import INTERRUPTED, StopRequest
    from distributed.versions import check_packages

    check_packages()
    set_process_environment()
    config = find_actor(arguments.task, arguments.config_dir)[1]
    with refusing(""):
        if arguments.seeds < 1:
            raise ValueError(f"--seeds must be at least 1, not {arguments.seeds}")
        plan = ExplorationPlan(
            config,
            arguments.frames,
            tuple(range(arguments.first_seed, arguments.first_seed + arguments.seeds)),
            arguments.out,
            min(arguments.seeds, os.cpu_count() or 1) if arguments.processes is None else arguments.processes,
            arguments.replays,
            arguments.partial_share,
            {"end_on_life_loss": arguments.end_on_life_loss},
            command_line(arguments),
        )
        check_plan(plan, arguments.resume)

    def say(line: str) -> None:
        print(line, flush=True)

    with StopRequest() as stop:
        if explore(plan, stop, say):
            make_sets(plan, stop, say)
        if stop.requested:
            print(f"interrupted; the archives are in {arguments.out}, --resume goes on from them")
            return INTERRUPTED
    return 0


def command_line(arguments: argparse.Namespace) -> str:
    """The command that explores the same anew, without what does not change it."""
    words = ["clowder", "explore", arguments.task, "--frames", str(arguments.frames), "--out", str(arguments.out)]
    words += ["--seeds", str(arguments.seeds), "--first-seed", str(arguments.first_seed)]
    words += ["--replays", str(arguments.replays), "--partial-share", f"{arguments.partial_share:g}"]
    words += ["--end-on-life-loss"] if arguments.end_on_life_loss else []
    words += [word for folder in arguments.config_dir for word in ("--config-dir", folder)]
    return shlex.join(words)
