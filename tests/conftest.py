"""One thread for every process of the tests, and no GPU: what they compare is computed alike on all machines.

What a GPU does is for `tests/learner/test_cuda.py`.
"""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two cores are shared by several processes
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("clowder", deadline=None)  # the machine's load is no property of the code
settings.load_profile("clowder")

FLEETS = (
    "test_coordinator.py",
    "test_explore.py",
    "test_failure_matrix.py",
    "test_final_evaluation.py",
    "test_fleet.py",
    "test_recording.py",
    "test_ray_cluster.py",
    "test_ray_itself.py",
    "test_quickstart.py",
    "test_lost_machine.py",
    "test_supervision.py",
    "test_watchdog.py",
)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`, those that start Ray stay together, other commands do, and so does any other file."""
    tests = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(tests)
        group = "fleets" if path.name in FLEETS else "commands" if path.parts[0] == "distributed" else str(path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.hookimpl(optionalhook=True)  # one of pytest-xdist
def pytest_xdist_node_collection_finished(node: Any, ids: list[str]) -> None:
    """It keeps groups by a suffix of each test's id; beside pytest 9.2 its version 3.8 set that without effect."""
    if node.config.getoption("dist") == "loadgroup" and not all("@" in each for each in ids):
        pytest.exit("pytest-xdist does not see the groups of tests; install what constraints.txt has", 4)


@pytest.fixture(scope="session")
def cartpole_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four demonstrations of CartPole-v1 by a linear controller, which keeps the pole up for all 500 steps."""
    import numpy as np

    from actors.config import ActorConfig
    from actors.demonstrations.action_set import conform, write_action_set
    from actors.demonstrations.episode import ActionRecord
    from actors.demonstrations.open_set import wanted_settings
    from actors.environments.make import make_environment

    config = ActorConfig(task="gymnasium/CartPole-v1")
    environment = make_environment(config, 1)
    records = []
    for seed in range(4):
        (observed,), actions, done, total = environment.reset([0], [seed]).values(), [], False, 0.0
        while not done:
            x, speed, angle, turn = observed[0]
            actions.append(int(angle + 0.5 * turn + 0.05 * x + 0.1 * speed > 0))
            step = environment.step(np.array(actions[-1:], np.int32))
            (observed,), done, total = step.observation.values(), bool(step.done[0]), total + float(step.reward[0])
        action = np.array(actions, np.int32)
        records.append(ActionRecord(seed, action, action, np.ones(len(action), bool), total))
    folder = tmp_path_factory.mktemp("sets") / "balance"
    write_action_set(folder, wanted_settings(config, "balance"), [conform(each, environment.task) for each in records])
    environment.close()
    return folder


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB, which is soon full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a file system of 16 MB cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)
