"""Real `clowder` processes for tests: started, looked into, and ended with all that they started."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time

import psutil

TASK = "gymnasium/CartPole-v1"
SMALL = [
    "actors=[cartpole_v1]", "actors.cartpole_v1.envs_per_actor=4", "agent.width=32", "agent.layers=1", "agent.heads=2",
    "learner.windows_per_batch=8", "cluster.publish_seconds=0.2", "cluster.pull_seconds=0.2",
    "cluster.report_seconds=0.2", "logging.every_seconds=0.3", "logging.console=lines", "evaluation.every_seconds=0",
    "evaluation.final_episodes=2", "evaluation.video_steps=10", "learner.good_threshold=-1",
]  # fmt: skip


@contextlib.contextmanager
def clowder(*words, cwd, environment=None, log="output.txt"):
    """A `clowder` process in a group of its own, as a terminal makes it; killed with all it started at the end."""
    with (cwd / log).open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "distributed.cli", *map(str, words)],
            cwd=cwd, stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
            env=os.environ | (environment or {}),
        )  # fmt: skip
    try:
        yield process
    finally:
        for each in [*descendants(process.pid), psutil.Process(process.pid)] if process.poll() is None else []:
            with contextlib.suppress(psutil.Error):
                each.kill()
        process.wait(10)


def descendants(pid):
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def output(cwd, log="output.txt"):
    return (cwd / log).read_text()


def train(*words, cwd, seconds=180, code=0):
    with clowder("train", *words, cwd=cwd) as process:
        assert process.wait(seconds) == code, output(cwd)


def wait_for(what, process, cwd, seconds=120):
    """Poll until ``what()`` is true, while the run lives."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert process.poll() is None, output(cwd)
        assert time.monotonic() < end, output(cwd)
        time.sleep(0.1)
    return found


def find(process, title):
    """Pid of the run's process whose title or command line has ``title``."""
    for each in descendants(process.pid):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(each.cmdline()):
                return each.pid
    return None


def lives(process):
    """Whether a process is still there, and no zombie."""
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False
