"""Niceness of a process, on Linux a thread's own."""

import subprocess
import sys

import pytest

NICE = """
import os, threading
from distributed.process_environment import be_nice
started, done = threading.Event(), threading.Event()
def work():
    started.set()
    done.wait(10)
threading.Thread(target=work, daemon=True).start()
started.wait(10)
before = os.getpriority(os.PRIO_PROCESS, 0)
be_nice(3)
threads = sorted(int(each) for each in os.listdir("/proc/self/task"))
assert len(threads) == 2
print(*(os.getpriority(os.PRIO_PROCESS, each) - before for each in threads))
be_nice(0)
be_nice(40)
print(os.getpriority(os.PRIO_PROCESS, threads[0]))
done.set()
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere niceness is a process's")
def test_all_threads_of_a_process_are_nice() -> None:
    words = subprocess.run([sys.executable, "-c", NICE], capture_output=True, text=True, check=True, timeout=60)
    assert words.stdout.split() == ["3", "3", "19"]
