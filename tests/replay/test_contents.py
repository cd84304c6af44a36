"""Contents of the tables: saved while others write, moved out of Reverb's hands, restored to the same counts."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.contents import ContentsNotSaved, ContentsSaver
from replay.sampler import WindowSampler
from replay.server import start_replay_server
from replay.table_info import ReplayInfo, poll
from replay.writer import EpisodeWriter


def counts(tables: ReplayInfo) -> dict[str, tuple[int, int, int]]:
    return {name: (each.size, each.inserts, each.samples) for name, each in tables.items()}


def test_each_save_stays_and_is_restored_to_its_counts(
    tmp_path: Path, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec, scratch = task("contents"), tmp_path / "scratch"
    config = ReplayConfig(online_capacity=50)
    saved: dict[str, ReplayInfo] = {}
    with start_replay_server([spec], config, scratch=scratch) as server:
        writer = EpisodeWriter(server.address, spec, "online", config, is_good=lambda total: total > 0)
        sampler = WindowSampler(server.address, spec, "online", config)
        saver = ContentsSaver(server.address, scratch)
        for name in ("a", "b"):
            for seed in range(20):  # more windows than the table holds: it deletes too
                writer.write_episode(**episode(spec, 30, seed))
            assert sampler.get(10) is not None
            assert writer.settle(10)
            saved[name] = saver.save(tmp_path / name, 30)
        assert not list(scratch.glob("*/*"))
        assert saved["b"]["online/test/contents"].size == 50 < saved["b"]["online/test/contents"].inserts
        assert saved["b"]["online/test/contents"].samples > 0
        sampler.close()
        writer.close(5)
    for name, expected in saved.items():
        # What Reverb itself would restore, were it not removed: the newest that is in its own folder.
        shutil.copytree(tmp_path / "b", scratch, dirs_exist_ok=True)
        with start_replay_server([spec], config, scratch=scratch, restore=tmp_path / name) as server:
            assert server.restored and counts(poll(server.address)) == counts(expected)
    with start_replay_server([spec], config, scratch=scratch, restore=tmp_path / "nothing") as server:
        assert not server.restored and sum(table.size for table in poll(server.address).values()) == 0


def test_a_full_disk_a_server_that_stands_still_and_one_that_is_gone(
    small_disk: Path, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec, scratch = task("full"), small_disk / "scratch"
    server = start_replay_server([spec], ReplayConfig(), scratch=scratch)
    try:
        writer = EpisodeWriter(server.address, spec, "online", ReplayConfig())
        for seed in range(20):
            writer.write_episode(**episode(spec, 30, seed))
        assert writer.close(10)
        saver = ContentsSaver(server.address, scratch)
        first = saver.save(small_disk / "first", 30)
        filler = small_disk / "filler"
        filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 100_000))
        for _ in range(2):
            with pytest.raises(ContentsNotSaved, match="No space left on device"):
                saver.save(small_disk / "second", 30)
            assert not (small_disk / "second").exists() and not list(scratch.glob("*/*"))
        filler.unlink()
        assert counts(saver.save(small_disk / "second", 30)) == counts(first)

        os.kill(server.pid, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(ContentsNotSaved, match="1 s were not enough"):
            saver.save(small_disk / "third", 1.0)
        with pytest.raises(ContentsNotSaved, match="still busy"):
            saver.save(small_disk / "third", 1.0)
        give_up = threading.Event()
        give_up.set()
        with pytest.raises(ContentsNotSaved, match="given up"):
            ContentsSaver(server.address, scratch).save(small_disk / "third", 30, give_up)
        assert time.monotonic() - begin < 5.0
    finally:
        server.stop(0.1)
    with pytest.raises(ContentsNotSaved):
        ContentsSaver(server.address, scratch).save(small_disk / "third", 5.0)
    assert sorted(each.name for each in small_disk.iterdir()) == ["first", "scratch", "second"]
