"""A process that writes checkpoints and is killed at any moment: none is ever torn, the last good one is never lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

SCRIPT = """
import os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from learner.checkpoint import latest_checkpoint, restore_checkpoint
from learner.checkpoint_writer import CheckpointWriter
from learner.config import CheckpointConfig
from tests.agent.tasks import CONTROL
from tests.learner.test_learner import make_learner

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
config = CheckpointConfig(keep=2, best=1, milestone_steps=50)
learner = make_learner(tasks=(CONTROL,), width=16)
learner.step()
learner.batches  # made in the parent, once

def contents(into, deadline, give_up):
    (into / "digest").mkdir(parents=True)
    (into / "digest" / "chunks").write_bytes(os.urandom(100_000))
    return {"online/a": {"size": 1, "inserts": 1, "samples": 0}}

def write(said):
    # Twice the same step, as at the end of a run; what is acknowledged is on disk.
    writer = CheckpointWriter(folder, config, contents)
    while True:
        learner.step_count += 1
        for count in range(2):
            writer.save(learner, {"count": count, "score": random.random()}, 20.0)
            os.write(said, b"%d %d\\n" % (learner.step_count, count))

generator, acknowledged, whole = random.Random(0), (learner.step_count, -1), None
for kill in range(kills):
    heard, said = os.pipe()
    child = os.fork()
    if not child:
        random.seed(kill)
        write(said)
    os.close(said)
    if kill % 2:
        lines = os.read(heard, 1000)  # the first is there
    else:
        lines = b""
    time.sleep(generator.uniform(0.0, 0.04))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    while piece := os.read(heard, 65536):
        lines += piece
    os.close(heard)
    for line in lines.splitlines():
        acknowledged = tuple(map(int, line.split()))
    found = latest_checkpoint(folder)
    if found is None:
        assert acknowledged[1] == -1, acknowledged
        continue
    now = (found.step, found.extra["count"])
    assert now >= acknowledged, (now, acknowledged, kill)  # what was said to be saved is there
    assert found.replay() is not None
    if kill % 50 == 49:
        restore_checkpoint(found, make_learner(tasks=(CONTROL,), width=16))
    learner.step_count, acknowledged = found.step, now
CheckpointWriter(folder, config)
left = [each.name for each in folder.iterdir()]
assert not [name for name in left if name.startswith("tmp-")], left
print(learner.step_count)
"""


@pytest.mark.parametrize("kills", [25, pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_no_kill_leaves_a_torn_checkpoint_or_loses_the_last_good_one(kills: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(kills)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=90 if kills < 100 else 850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > kills / 4
