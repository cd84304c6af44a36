"""One thread for every process of the tests: two cores are shared by several of them."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
settings.register_profile("clowder", deadline=None)  # the machine's load is no property of the code
settings.load_profile("clowder")

FLEETS = ("distributed", "end_to_end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With `--dist loadgroup`, a file's tests stay together, for its fixtures; and those that start Ray all do."""
    tests = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(tests).parts[0]
        item.add_marker(pytest.mark.xdist_group("fleets" if folder in FLEETS else str(item.path)))
