"""`Explorer` and its checkpoints, on the real emulator."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from actors.explorer import checkpoint
from actors.explorer.checkpoint import ExplorerCheckpointError
from actors.explorer.emulator import Emulator
from actors.explorer.explorer import Explorer, ExplorerSettings

MONTEZUMA = ExplorerSettings("atari/montezuma_revenge")


def digest(explorer: Explorer) -> str:
    found = hashlib.sha256()
    for arrays in (explorer.archive.to_arrays(), explorer.tree.to_arrays()):
        for name, array in sorted(arrays.items()):
            found.update(name.encode() + array.tobytes())
    found.update(repr(sorted(explorer.finds.items())).encode())
    return found.hexdigest()


def explored(settings: ExplorerSettings, runs: int) -> Explorer:
    explorer = Explorer(settings)
    for _ in range(runs):
        explorer.run()
    return explorer


@pytest.fixture(scope="module")
def explorer() -> Explorer:
    return explored(MONTEZUMA, 16)


def test_a_seed_decides_the_archive(explorer: Explorer) -> None:
    again, other = explored(MONTEZUMA, 16), explored(ExplorerSettings("atari/montezuma_revenge", seed=1), 16)
    assert digest(explorer) == digest(again) != digest(other)


def test_every_way_leads_to_its_cell(explorer: Explorer) -> None:
    for cell in explorer.archive.cells[:: len(explorer.archive) // 8]:
        game = Emulator(MONTEZUMA.task)
        actions = explorer.tree.path(cell.node).tolist()
        score = sum(game.act(action) for action in actions)
        assert (len(actions), score) == (cell.length, cell.score)
        assert explorer._key(game.see(), game.see_grey) == cell.key
        ram = game.game.getRAM().tolist()
        game.restore(cell.state)
        assert game.game.getRAM().tolist() == ram


def test_counts(explorer: Explorer) -> None:
    progress = explorer.progress
    assert progress.runs == 16 and 16 * 4 <= progress.frames <= 16 * 400
    assert progress.rooms == [1] and progress.cpu_seconds > 0
    lengths = [cell.length for cell in explorer.archive.cells]
    assert lengths[0] == 0 and min(lengths[1:]) > 0


def test_ways_lose_no_life_where_told_so() -> None:
    def least_lives(settings: ExplorerSettings) -> int:
        explorer = explored(settings, 16)
        lives = []
        for cell in explorer.archive.cells:
            explorer.game.restore(cell.state)
            lives.append(explorer.game.lives)
        return min(lives)

    careful = ExplorerSettings("atari/montezuma_revenge", end_on_life_loss=True)
    full = Emulator(MONTEZUMA.task).lives
    assert least_lives(careful) == full > least_lives(MONTEZUMA)


def test_the_archive_has_a_capacity() -> None:
    assert len(explored(ExplorerSettings("atari/montezuma_revenge", capacity=12), 8).archive) == 12


def test_no_way_is_longer_than_an_episode() -> None:
    explorer = explored(ExplorerSettings("atari/freeway", max_episode_steps=60), 6)
    assert max(cell.length for cell in explorer.archive.cells) == 60


def test_finds_are_the_shortest_ways_to_a_score() -> None:
    explorer = explored(ExplorerSettings("atari/boxing"), 12)
    assert explorer.progress.best == max(explorer.finds) > 0
    assert [each["score"] for each in explorer.progress.firsts][-1] == explorer.progress.best
    assert 0 not in explorer.finds
    for score, find in explorer.finds.items():
        game = Emulator("atari/boxing")
        rewards = [game.act(action) for action in explorer.tree.path(find.node).tolist()]
        assert (len(rewards), sum(rewards)) == (find.length, score)
        assert rewards[-1] != 0


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"task": "atari/montezumas_revenge"}, "nearest: atari/montezuma_revenge"),
        ({"steps": 0}, "steps of an explorer must be at least 1"),
        ({"mean_hold": 0.5}, "mean_hold"),
        ({"capacity": 0}, "capacity"),
        ({"seed": -1}, "seed"),
    ],
)
def test_wrong_settings_are_refused(wrong: dict, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        Explorer(ExplorerSettings(**{"task": "atari/pong"} | wrong))


def test_an_interrupted_exploration_goes_on_as_if_nothing_had_been(tmp_path: Path, explorer: Explorer) -> None:
    resumed = explored(MONTEZUMA, 6)
    for stop in (11, 16):
        checkpoint.save(resumed, tmp_path / "archive.npz")
        resumed = checkpoint.load(tmp_path / "archive.npz", MONTEZUMA)
        while resumed.progress.runs < stop:
            resumed.run()
    assert digest(resumed) == digest(explorer)
    assert resumed.progress.frames == explorer.progress.frames
    assert [path.name for path in tmp_path.iterdir()] == ["archive.npz"]


KILLED = """
import sys, pathlib
from actors.explorer import checkpoint
from actors.explorer.explorer import Explorer, ExplorerSettings
explorer = Explorer(ExplorerSettings("atari/montezuma_revenge"))
while True:
    explorer.run()
    checkpoint.save(explorer, pathlib.Path(sys.argv[1]))
    print(explorer.progress.runs, flush=True)
"""


def test_a_kill_leaves_a_whole_checkpoint(tmp_path: Path, explorer: Explorer) -> None:
    path = tmp_path / "archive.npz"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) == 4:
            break
    time.sleep(np.random.default_rng().uniform(0, 0.1))
    process.kill()
    process.wait(30)
    process.stdout.close()
    resumed = checkpoint.load(path, MONTEZUMA)
    assert resumed.progress.runs >= 4
    while resumed.progress.runs < 16:
        resumed.run()
    assert digest(resumed) == digest(explorer)


def test_a_checkpoint_that_cannot_be_used_is_refused(tmp_path: Path, explorer: Explorer) -> None:
    path = tmp_path / "archive.npz"
    checkpoint.save(explorer, path)
    whole = path.read_bytes()
    with np.load(path) as file:
        arrays = dict(file)
    about = json.loads(arrays["about"].tobytes())

    def write(**changed: object) -> None:
        new = np.frombuffer(json.dumps(about | changed).encode(), np.uint8)
        np.savez(path, **arrays | {"about": new})

    def refused(match: str, settings: ExplorerSettings = MONTEZUMA) -> None:
        with pytest.raises(ExplorerCheckpointError, match=match):
            checkpoint.load(path, settings)

    for part in (whole[: len(whole) // 2], whole[:-100], b"", whole.replace(whole[5000:5050], bytes(50))):
        path.write_bytes(part)
        refused("truncated or damaged")
    path.write_bytes(whole)
    refused("explored with task=atari/montezuma_revenge, not atari/venture", ExplorerSettings("atari/venture"))
    refused("explored with seed=0, not 1", ExplorerSettings("atari/montezuma_revenge", seed=1))
    write(schema=99)
    refused("schema 99")
    write(**{"ale-py": "0.1"})
    refused("states of ale-py 0.1, installed is")
    write(ROM="another")
    refused("states of ROM another")
    np.savez(path, **arrays | {"nodes": arrays["nodes"] + 10**6})
    refused("damaged: its cells have no trajectories")
    np.savez(path, **arrays | {"keys": arrays["keys"][:-1]})
    refused("damaged: its cells do not fit together")
    path.unlink()
    refused("cannot be read")
