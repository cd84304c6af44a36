"""A command that another process waits for ends with it, and in order."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distributed.command import run_clowder

WORDS = ["train", "experiment=cartpole", "name=ended", "evaluation.every_steps=0", "evaluation.final_episodes=1"]


def test_a_command_that_fails_is_an_error() -> None:
    with pytest.raises(subprocess.CalledProcessError, match="returned non-zero exit status 2"):
        run_clowder(["trian"], 60)


@pytest.mark.long
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_writes_its_checkpoint_when_who_waits_for_it_is_ended(tmp_path: Path, number: signal.Signals) -> None:
    words = [*WORDS, f"logging.folder={tmp_path}"]
    waiting = subprocess.Popen([sys.executable, "-c", f"from distributed.command import *; run_clowder({words}, 300)"])
    metrics, deadline = tmp_path / "ended" / "metrics.jsonl", time.monotonic() + 120
    while not (metrics.exists() and metrics.read_text()):
        assert waiting.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.2)
    (command,) = psutil.Process(waiting.pid).children()
    waiting.send_signal(number)
    assert waiting.wait(60) != 0
    assert not command.is_running()
    assert [path.name for path in (tmp_path / "ended" / "checkpoints").iterdir()] != []
