"""A sample of every domain in the normal suite; every task of the catalogue by `make test-tasks`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from actors.catalogue import SUITES, suite_tasks
from actors.environments.failures import LibraryMissing
from actors.environments.make import ADAPTERS, task_names
from actors.reference import references
from replay.server import ServerHandle, start_replay_server
from tests.tasks.walk import REPLAY, walk

SAMPLE = (
    "atari/alien",
    "babyai/BossLevel",
    "dm_control/cartpole-swingup",
    "dm_control/lqr-lqr_2_1",
    "dm_control_pixels/point_mass-easy",
    "gymnasium/HalfCheetah-v5",
    "gymnasium/MountainCar-v0",
    "metaworld/assembly-v3",
)
AT_ONCE = 16
"""Tasks of one replay server."""


class Servers:
    """One server at a time, for the group of tasks that is being tested."""

    def __init__(self) -> None:
        self.group: tuple[str, ...] = ()
        self.handle: ServerHandle | None = None

    def address(self, group: tuple[str, ...]) -> str:
        """Of a server with the tables of ``group``; stops the one before."""
        if self.handle is None or group != self.group:
            self.stop()
            self.handle = start_replay_server([references()[name].task for name in group], REPLAY)
            self.group = group
        return self.handle.address

    def stop(self) -> None:
        if self.handle is not None:
            self.handle.stop()
            self.handle = None


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    running = Servers()
    yield running
    running.stop()


def needs_a_renderer(task_name: str) -> bool:
    return task_name.startswith("dm_control_pixels/")


@pytest.mark.parametrize("task_name", SAMPLE)
def test_a_sample(task_name: str, servers: Servers) -> None:
    try:
        walk(task_name, servers.address(SAMPLE))
    except LibraryMissing as error:
        if not needs_a_renderer(task_name):
            raise
        pytest.skip(str(error))  # a machine without OpenGL is told what to install


@pytest.mark.tasks
@pytest.mark.parametrize("task_name", list(references()))
def test_every_task(task_name: str, servers: Servers) -> None:
    everything = list(references())
    begin = everything.index(task_name) // AT_ONCE * AT_ONCE
    walk(task_name, servers.address(tuple(everything[begin : begin + AT_ONCE])))


@pytest.mark.tasks
@pytest.mark.parametrize("domain", sorted(ADAPTERS.keys() - {"text"}))
def test_the_table_has_what_the_libraries_have(domain: str) -> None:
    assert sorted(task_names(domain)) == sorted(name for name in references() if name.startswith(f"{domain}/"))


def test_suites() -> None:
    sizes = {suite: len(suite_tasks(suite)) for suite in SUITES}
    assert sizes == {
        "atari": 104,
        "atari51": 51,
        "atari57": 57,
        "atari_hard_exploration": 7,
        "babyai": 96,
        "dm_control": 51,
        "dm_control_pixels": 51,
        "gymnasium_classic": 5,
        "gymnasium_mujoco": 11,
        "metaworld": 50,
    }
    for suite in SUITES:
        assert set(suite_tasks(suite)) <= set(references()), suite
    assert "atari/boxing" not in suite_tasks("atari51")


def test_listing_needs_no_environment_library() -> None:
    code = (
        "import sys; from distributed.cli import main; main(['tasks', '--suite', 'all']); "
        "print([name for name in ('gymnasium', 'ale_py', 'dm_control', 'mujoco', 'minigrid', 'metaworld', 'ray')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=dict(os.environ), check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert f"{len(references())} tasks." in done.stdout
