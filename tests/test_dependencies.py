"""pyproject.toml, constraints.txt and locks/ say the same of what is installed."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ENTRY = re.compile(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+) \\\n    --hash=sha256:([0-9a-f]{64})\n")


def lock(name):
    """Version by name; every line belongs to an entry with a hash."""
    comment, _, text = (ROOT / "locks" / name).read_text().partition("\n")
    entries = ENTRY.findall(text)
    assert comment.startswith("# Written by `make lock`")
    assert ENTRY.sub("", text) == ""
    found = {canonicalize_name(name): version for name, version, _ in entries}
    assert len(found) == len(entries) == len({digest for *_, digest in entries})
    return found


def locked_for_setup():
    return lock("build.txt") | lock("setup.txt") | lock("beside.txt")


def pinned():
    """Version by name of constraints.txt, where every line is one."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.]+)", line).groups() for line in lines]
    assert len(pairs) == len({canonicalize_name(name) for name, _ in pairs})
    return {canonicalize_name(name): version for name, version in pairs}


def needed(requirements):
    """Names of all that the requirements bring, by the metadata of what is installed."""
    names, waiting = set(), [Requirement(text) for text in requirements]
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        names.add(name)
        for extra in ("", *requirement.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in importlib.metadata.requires(name) or ():
                further = Requirement(text)
                if further.marker is None or further.marker.evaluate({"extra": extra}):
                    waiting.append(further)
    return names


def test_locks_have_the_versions_of_constraints():
    locked = locked_for_setup() | lock("bench.txt")
    assert len(locked) == sum(len(lock(name)) for name in ("build.txt", "setup.txt", "beside.txt", "bench.txt"))
    constraints = pinned()
    assert locked == {name: constraints.get(name) for name in locked}
    assert "torch" in constraints and "torch" not in locked


def test_what_setup_installs_is_all_that_is_needed():
    wanted = needed([*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]])
    # What torch's build for CUDA brings is pinned by torch itself.
    ours = {name for name in wanted if not re.match(r"nvidia-|cuda-|triton", name)}
    assert ours == locked_for_setup().keys() | {"torch"}


@pytest.mark.parametrize("extra", ["", *PROJECT["optional-dependencies"]])
def test_ranges_admit_what_is_pinned(extra):
    constraints = pinned()
    locked = locked_for_setup() | lock("bench.txt") | {"torch": constraints["torch"]}
    for text in PROJECT["optional-dependencies"][extra] if extra else PROJECT["dependencies"]:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        assert name in locked and requirement.specifier.contains(locked[name]), text
