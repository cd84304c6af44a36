"""A wall clock that jumps: deadlines, rates and counts are by the monotonic one."""

import itertools
import os
import subprocess
import sys

import pytest

from distributed.metrics import read_rows
from distributed.run_folder import RunFolder
from tests.clowder_process import SMALL

JUMPING = """
import sys, time
real, began = time.time, time.monotonic()
def jumping():
    passed = time.monotonic() - began
    return real() + (0.0 if passed < 10 else 86400.0 if passed < 16 else -86400.0)
time.time = jumping
from distributed.cli import main
sys.exit(main())
"""
"""A day forward after ten seconds, two days back after sixteen."""


@pytest.mark.timeout(200)
def test_a_clock_that_jumps_a_day_forward_and_two_back_disturbs_no_run(cartpole_set, tmp_path):
    words = [
        *SMALL, "cluster=serial", "learner.minutes=0.3", "learner.steps=1000000", "checkpoint.every_seconds=2",
        f"actors.cartpole_v1.demonstrations={cartpole_set}", "name=jumps", f"logging.folder={tmp_path}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", JUMPING, "train", *words], env=os.environ, capture_output=True, text=True, timeout=150
    )
    assert done.returncode == 0, done.stdout + done.stderr
    run = RunFolder.open(tmp_path / "jumps")
    assert run.read_status()["phase"] == "finished"
    rows = read_rows(run.path / "metrics.jsonl")
    assert len(rows) > 10
    for name in ("wall_seconds", "learner_steps", "environment_steps"):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    assert 15 < rows[-1]["wall_seconds"] < 100
    gaps = [later["wall_seconds"] - row["wall_seconds"] for row, later in itertools.pairwise(rows)]
    assert max(gaps) < 20, "metrics and checkpoints go on"
    written = sorted(run.checkpoints.glob("0*"))
    assert len(written) >= 3
    rates = [row["values"]["learner/steps_per_s"] for row in rows if "learner/steps_per_s" in row["values"]]
    assert min(rates) >= 0 and max(rates) < 10_000
