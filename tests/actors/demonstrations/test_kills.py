"""A writer that is killed at any moment, again and again: no episode is ever torn, none is lost that was whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from actors.demonstrations.minari_set import MinariSet

REPOSITORY = Path(__file__).parents[3]
SCRIPT = """
import itertools, os, random, signal, sys, time
from pathlib import Path
import minari.serialization  # once, not in every child
from actors.demonstrations.minari_set import MinariSet
from actors.demonstrations.minari_writer import MinariWriter
from actors.demonstrations.open_set import wanted_settings
from actors.demonstrations.simulation import simulate
from actors.environments.make import make_environment
from tests.actors.demonstrations.sets import BABYAI, played

parent, kills = Path(sys.argv[1]), int(sys.argv[2])
settings = wanted_settings(BABYAI, "nobody")
environment = make_environment(BABYAI, 1)
record = played(BABYAI, 0)
episode = next(item[1] for item in simulate(environment, lambda _: record, [0]) if item is not None)
generator, before = random.Random(0), 0
for kill in range(kills):
    if kill % 100 == 0:  # a new set: the longer one is, the longer it takes to open
        folder, before = parent / str(kill // 100), 0
    child = os.fork()
    if not child:
        writer = MinariWriter(folder, settings)
        for _ in itertools.count():
            writer.append(record, episode)
    end = time.monotonic() + 20
    while not (folder / "data" / str(before)).exists() and time.monotonic() < end:
        time.sleep(0.001)
    time.sleep(generator.uniform(0.0, 0.05))  # somewhere in one of the episodes after its first
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found = MinariSet(folder)
    for index in range(before, found.num_episodes):
        assert found.episode(index).length == episode.length
    assert found.num_episodes > before
    before = found.num_episodes
"""


@pytest.mark.parametrize("kills", [25, pytest.param(1_000, marks=[pytest.mark.long, pytest.mark.timeout(900)])])
def test_no_kill_leaves_a_torn_episode(kills: int, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path), str(kills)],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=110 if kills < 100 else 850,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    sets = [MinariSet(folder) for folder in sorted(tmp_path.iterdir())]
    assert sum(each.num_episodes for each in sets) >= kills and len(sets) == -(-kills // 100)
