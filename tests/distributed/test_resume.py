"""A run that is stopped at any moment and resumed: the same counters, the same tables, the same draws to come."""

from __future__ import annotations

import json
import logging
import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from distributed.compose import compose
from distributed.config import to_dict
from distributed.console import Console
from distributed.plan import RunPlan, make_plan
from distributed.run_folder import RunFolder
from distributed.run_replay import table_counts
from distributed.serial import SerialRun
from distributed.stop_request import StopRequest
from learner.checkpoint import REPLAY, latest_checkpoint, open_checkpoint
from learner.checkpoint_writer import CheckpointFailed
from replay.table_info import poll

TASK = "gymnasium/CartPole-v1"
DRAWS = 1_000


@pytest.fixture(scope="module")
def plan(cartpole_set: Path, tmp_path_factory: pytest.TempPathFactory) -> RunPlan:
    words = [
        "actors=[cartpole_v1]", f"actors.cartpole_v1.demonstrations={cartpole_set}", "cluster=serial",
        "name=serial", f"logging.folder={tmp_path_factory.mktemp('runs')}", "logging.every_seconds=1000",
        "logging.console=off", "actors.cartpole_v1.envs_per_actor=4", "actors.cartpole_v1.num_replayers=2",
        "actors.cartpole_v1.online_share=0.37", "actors.cartpole_v1.online_share_end=0.61",
        "agent.width=32", "agent.layers=1", "agent.heads=2", "learner.windows_per_batch=7", "learner.good_threshold=-1",
        "learner.min_replay_size=20", "evaluation.every_seconds=0", "checkpoint.replay=true",
        "checkpoint.every_seconds=1000", "replay.online_capacity=300",
    ]  # fmt: skip
    return make_plan(compose(words))


@contextmanager
def running(plan: RunPlan, folder: RunFolder) -> Iterator[SerialRun]:
    with StopRequest() as stop, Console(plan.config) as console:
        run = SerialRun(plan, folder, console, stop)
        try:
            yield run
        finally:
            run.close()


def create(plan: RunPlan, path: Path) -> RunFolder:
    return RunFolder.create(path, to_dict(plan.config), ["test"])


def train_to(run: SerialRun, step: int) -> None:
    while run.learner.learner.step_count < step:
        run.turn()


def tables(run: SerialRun) -> dict[str, dict[str, int]]:
    return table_counts(poll(run.server.address))


def draws(run: SerialRun) -> list[tuple[str, str]]:
    """The next windows that the learner will learn from: (task, source) of each, in their order."""
    batches = iter(run.learner.learner.batches.get, None)
    return list(islice(((each.task, each.source) for batch in batches for each in batch.origins), DRAWS))


def counters(run: SerialRun) -> dict[str, Any]:
    """All that is counted; the clocks go on."""
    state = run._state()
    return {
        "learner": run.learner.learner.counters() | {"seconds": None},
        "actors": [{**each, "incarnation": None} for each in state["counters"]["actors"]],
        "cursors": state["replayers"],
    }


def settled(run: SerialRun) -> None:
    """Nothing is on its way into replay."""
    for _, actor, _ in run.actors:
        assert all(writer.settle(10) for writer in actor.writers)


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.long)])
def test_a_run_goes_on_as_one_that_was_never_stopped(seed: int, plan: RunPlan, tmp_path: Path) -> None:
    folder = create(plan, tmp_path / "run")
    with running(plan, folder) as run:
        train_to(run, random.Random(seed).randint(1, 60))
        settled(run)
        saved = run.learner.save(60.0)
        assert run.learner.checkpoints.failures == 0
        expected = counters(run), {name: each | {"samples": None} for name, each in tables(run).items()}
        drawn_before = {name: each["samples"] for name, each in tables(run).items()}
        # What comes after the checkpoint is lost, as at a kill; the draws are those of the run that goes on.
        expected_draws = draws(run)
    checkpoint = open_checkpoint(saved)
    assert checkpoint.tables is not None
    counted = expected[0]["actors"][0]["counts"]
    assert counted["environment_steps"] > 0 and counted["windows"] == checkpoint.tables[f"online/{TASK}"]["inserts"]
    assert counted["good_windows"] == checkpoint.tables[f"good/{TASK}"]["inserts"] > 0
    with running(plan, RunFolder.open(folder.path)) as run:
        now = tables(run)
        assert (counters(run), {name: each | {"samples": None} for name, each in now.items()}) == expected
        assert all(now[name]["samples"] >= checkpoint.tables[name]["samples"] for name in now)
        assert checkpoint.tables[f"demonstrations/{TASK}"]["samples"] <= drawn_before[f"demonstrations/{TASK}"]
        while not run.learner.ready():
            pass
        assert draws(run) == expected_draws
        assert {source for _, source in expected_draws} == {"demonstrations", "good"}


def test_a_run_killed_between_checkpoints_loses_no_demonstration(plan: RunPlan, tmp_path: Path) -> None:
    """The checkpoint is written while replayers and actors go on; afterwards every demonstration is there."""
    folder = create(plan, tmp_path / "run")
    with running(plan, folder) as run:
        for _ in range(3):
            for replayer in run.replayers.values():
                replayer.run(episodes=1)
            if run.learner.ready():
                run.learner.step()
            assert run.learner.checkpoints.begin(run.learner.learner, run._state())
            for replayer in run.replayers.values():
                replayer.run(episodes=1)
            run.learner.save(60.0)
        whole = run.plan.demonstrations["cartpole_v1"].episodes
    with running(plan, RunFolder.open(folder.path)) as run:
        while not all(replayer.done for replayer in run.replayers.values()):
            run.turn()
        assert all(replayer.close(10) for replayer in run.replayers.values())
        ends = tables(run)[f"ends/{TASK}"]["inserts"] - run.actors[0][1].report().episodes
        assert ends >= whole


@pytest.mark.parametrize("damage", ["newest", "contents"])
def test_a_damaged_checkpoint_and_damaged_contents(
    damage: str, plan: RunPlan, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = create(plan, tmp_path / "run")
    with running(plan, folder) as run:
        for step in (5, 10):
            train_to(run, step)
            settled(run)
            saved = run.learner.save(60.0)
    first = open_checkpoint(saved.with_name("000000005"))
    target = saved / "optimiser.safetensors"
    if damage == "contents":
        target = next((saved / REPLAY).glob("*/chunks.tfrecord"))
    with target.open("r+b") as file:
        file.truncate(target.stat().st_size // 2)
    caplog.set_level(logging.INFO)
    with running(plan, RunFolder.open(folder.path)) as run:
        found = tables(run)
        if damage == "newest":
            assert run.learner.learner.step_count == 5 and "passed over" in caplog.text
            assert first.tables is not None
            assert {name: each["size"] for name, each in found.items()} == {
                name: each["size"] for name, each in first.tables.items()
            }
            assert f"replay begins with the contents of {first.folder}" in caplog.text
        else:
            assert run.learner.learner.step_count == 10
            assert "are damaged" in caplog.text and "the tables begin empty" in caplog.text
            assert all(each["size"] == 0 for each in found.values()) and run.progress.replayers == {}
        train_to(run, 12)


def test_the_disk_is_full(plan: RunPlan, small_disk: Path) -> None:
    """Training goes on without checkpoints and rows of scalars, and both go on when there is room again."""
    folder = create(plan, small_disk / "run")
    with running(plan, folder) as run:
        train_to(run, 3)
        run.learner.save(60.0)
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            file.write(bytes(shutil.disk_usage(small_disk).free))
        train_to(run, 6)
        run.reporter.point()
        with pytest.raises(CheckpointFailed, match="No space left on device"):
            run.learner.save(60.0)
        assert run.reporter.metrics.failures > 0
        train_to(run, 8)
        found = latest_checkpoint(folder.checkpoints)
        assert found is not None and found.step == 3 and found.replay() is not None
        filler.unlink()
        run.learner.point()
        run._collect()
        run.reporter.point()
        run.learner.save(60.0)
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert rows[-1]["learner_steps"] == 8 and rows[-1]["values"]["learner/checkpoint_failures"] > 0
    found = latest_checkpoint(folder.checkpoints)
    assert found is not None and found.step == 8 and found.replay() is not None
