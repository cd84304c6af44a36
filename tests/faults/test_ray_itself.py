"""Ray's own processes die: the run ends with the reason, leaves nothing behind, and can be resumed."""

import os
import signal
import time

import pytest

from distributed.run_folder import RunFolder
from tests.clowder_process import SMALL, TASK, clowder, descendants, find, lives, output, train, wait_for


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("which", "said"),
    [
        ("raylet/raylet", "Ray has no machine any more"),
        ("gcs/gcs_server", "Failed to connect to GCS within 60 seconds"),
    ],
)
def test_a_run_whose_ray_dies_ends_and_can_be_resumed(cartpole_set, tmp_path, which, said):
    words = [
        *SMALL, "checkpoint.every_seconds=2", f"actors.cartpole_v1.demonstrations={cartpole_set}",
        "learner.steps=1000000",
    ]  # fmt: skip
    with clowder("train", *words, "--name", "shot", cwd=tmp_path) as process:
        wait_for((tmp_path / "runs/shot/status.json").exists, process, tmp_path)
        run = RunFolder.open(tmp_path / "runs" / "shot")
        wait_for(lambda: run.read_status()["metrics"].get("environment_steps"), process, tmp_path)
        wait_for(lambda: list(run.checkpoints.glob("0*")), process, tmp_path)
        started = descendants(process.pid)
        os.kill(find(process, which), signal.SIGKILL)
        assert process.wait(150) == 1
        end = time.monotonic() + 30
        while left := [each for each in started if lives(each)]:
            assert time.monotonic() < end, left
            time.sleep(0.2)
    assert said in output(tmp_path)
    steps = run.read_status()["metrics"]["learner_steps"] + 20
    train("--resume", run.path, f"stop.learner_steps={steps:.0f}", cwd=tmp_path)
    assert TASK in output(tmp_path)
