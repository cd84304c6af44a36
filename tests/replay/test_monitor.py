"""`ReplayMonitor` looks on, whatever comes back."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable

import grpc
import pytest

from replay.table_info import ReplayMonitor


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_an_answer_that_cannot_be_read_counts_as_a_failure_and_the_next_look_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers = [b"\x12\x00"]  # one table without a name
    service = grpc.method_handlers_generic_handler(
        "deepmind.reverb.ReverbService",
        {"ServerInfo": grpc.unary_unary_rpc_method_handler(lambda request, context: answers[-1])},
    )
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    server.add_generic_rpc_handlers((service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        monitor = ReplayMonitor(f"127.0.0.1:{port}", 0.05)
        wait_until(lambda: monitor.failures > 2)
        assert monitor.why == "KeyError: 8" and not monitor.info()
        assert [each.getMessage() for each in caplog.records] == [
            f"the look at the replay server 127.0.0.1:{port} failed: KeyError: 8"
        ]
        answers.append(b"\x12\x03\x42\x01t")
        wait_until(lambda: bool(monitor.info()))
        assert monitor.failures == 0 and list(monitor.info()) == ["t"] and monitor.age < 20
        monitor.close()
    finally:
        server.stop(None)
