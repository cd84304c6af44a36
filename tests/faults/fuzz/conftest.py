"""What is read from disk or typed by a user is refused with a reason or is what it was, whatever was done to it.

Each property has a few examples in `make test` and many in `make fuzz` (CLOWDER_FUZZ_CASES for each of four targets:
configurations, demonstration sets, checkpoints, tokenizer). A case fails where anything else than the documented errors
is raised, where something that changed is taken for what was written, where it takes long, and where anything is
executed, connected to, or written elsewhere. What was found stays as plain tests, beside the property that found it.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.fuzz.damage import MANY

CASE_SECONDS = 20.0
"""Longest case; usual ones take milliseconds, on a machine that does other things too."""

FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "subprocess.Popen", "pickle.find_class",
    "socket.connect", "socket.bind", "ctypes.dlopen",
)  # fmt: skip


class _Watch:
    """Python's audit hook, which sees what a case does; it cannot be taken out again, so it is switched."""

    def __init__(self) -> None:
        self.on = False
        self.folder = ""
        self.seen: list[str] = []
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in FORBIDDEN:
            self.seen.append(f"{event}{arguments}")
        elif event == "open" and len(arguments) > 2 and isinstance(arguments[2], int):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and not str(arguments[0]).startswith(self.folder):
                self.seen.append(f"{event}{arguments}")


@pytest.fixture(scope="module")
def watch() -> Iterator[_Watch]:
    made = _Watch()
    yield made
    made.on = False


@dataclasses.dataclass
class Tried:
    """What came of a case: a value, or the error that refused it."""

    value: Any = None
    error: BaseException | None = None


class Target:
    """Runs the cases of one property, and counts them."""

    def __init__(self, name: str, watch: _Watch, folder: Path) -> None:
        self.name, self.watch, self.folder = name, watch, folder
        self.outcomes: Counter[str] = Counter()
        self.began = time.monotonic()

    def tries(self, call: Callable[[], Any], *refusals: type[Exception], one_line: bool = False) -> Tried:
        """Call; only ``refusals`` may be raised, with a message, and nothing may be done beside."""
        self.watch.seen.clear()
        self.watch.folder, self.watch.on = str(self.folder), True
        begin = time.monotonic()
        try:
            tried = Tried(call())
        except refusals as error:
            tried = Tried(error=error)
        finally:
            self.watch.on = False
        assert time.monotonic() - begin < CASE_SECONDS
        assert not self.watch.seen, self.watch.seen
        if tried.error is not None:
            message = str(tried.error)
            assert len(message) >= 10, repr(tried.error)
            assert not one_line or "\n" not in message, message
        self.outcomes["accepted" if tried.error is None else "refused"] += 1
        return tried


@pytest.fixture
def target(request: pytest.FixtureRequest, watch: _Watch) -> Iterator[Target]:
    """A folder in memory where there is one, and the count of cases at the end."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        made = Target(request.node.name, watch, Path(folder))
        yield made
    seconds, number = time.monotonic() - made.began, made.outcomes.total()
    if MANY and number:
        print(f"\n{made.name}: {number:,} calls in {seconds:.0f} s; {dict(made.outcomes)}")
