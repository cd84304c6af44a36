"""A wall clock that jumps: deadlines, rates and counts are by the monotonic one."""

import itertools
import subprocess
import sys
import time

import pytest

from distributed.metrics import read_rows
from distributed.run_folder import RunFolder
from distributed.stop_request import INTERRUPTED
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


@pytest.mark.long
@pytest.mark.timeout(200)
def test_a_clock_that_jumps_a_day_forward_and_two_back_disturbs_no_run(cartpole_set, tmp_path):
    words = [
        *SMALL, "cluster=serial", "learner.steps=1000000", "checkpoint.every_seconds=2",
        f"actors.cartpole_v1.demonstrations={cartpole_set}", "name=jumps", f"logging.folder={tmp_path}",
    ]  # fmt: skip
    with (tmp_path / "output.txt").open("w") as file:
        process = subprocess.Popen([sys.executable, "-c", JUMPING, "train", *words], stdout=file, stderr=file)
    try:
        time.sleep(30)
        process.terminate()
        assert process.wait(60) == INTERRUPTED, (tmp_path / "output.txt").read_text()
    finally:
        process.kill()
    run = RunFolder.open(tmp_path / "jumps")
    assert run.read_status()["phase"] == "interrupted"
    rows = read_rows(run.path / "metrics.jsonl")
    assert len(rows) > 10
    for name in ("wall_seconds", "learner_steps", "environment_steps"):
        values = [row[name] for row in rows]
        assert values == sorted(values)
    assert 10 < rows[-1]["wall_seconds"] < 90
    gaps = [later["wall_seconds"] - row["wall_seconds"] for row, later in itertools.pairwise(rows)]
    assert max(gaps) < 20, "metrics and checkpoints go on"
    written = sorted(run.checkpoints.glob("0*"))
    assert len(written) >= 3
    rates = [row["values"]["learner/steps_per_s"] for row in rows if "learner/steps_per_s" in row["values"]]
    assert min(rates) >= 0 and max(rates) < 10_000
