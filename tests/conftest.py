"""One thread for every process of the tests: two cores are shared by several of them."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("clowder", deadline=None)  # the machine's load is no property of the code
settings.load_profile("clowder")

FLEETS = (
    "test_coordinator.py",
    "test_explore.py",
    "test_recording.py",
    "test_ray_cluster.py",
    "test_quickstart.py",
    "test_watchdog.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`, those that start Ray stay together, other commands do, and so does any other file."""
    tests = Path(__file__).parent
    for item in items:
        path = item.path.relative_to(tests)
        group = "fleets" if path.name in FLEETS else "commands" if path.parts[0] == "distributed" else str(path)
        item.add_marker(pytest.mark.xdist_group(group))
