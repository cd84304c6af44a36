from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from typing import Any

import numpy as np
import psutil
import pytest

from agent.task import TaskSpec
from replay.config import ReplayConfig
from replay.item_stream import UnknownTable
from replay.listen_address import listening_addresses
from replay.sampler import SamplerError, WindowSampler
from replay.server import ReplayServerError, ServerHandle, start_replay_server
from replay.table_info import ReplayUnavailable, poll
from replay.tables import estimate_memory, expected_windows, sources_of, table_configs, table_for
from replay.writer import EpisodeWriter
from tests.replay.conftest import NAMES

CONFIG = ReplayConfig(poll_seconds=0.1, write_deadline=2.0)


def test_the_server_listens_on_loopback_alone(server: ServerHandle) -> None:
    assert server.address == f"127.0.0.1:{server.port}"
    assert listening_addresses(server.port) == {"127.0.0.1"}
    info = poll(server.address)
    assert table_for("test/steps", "good") in info and len(info) == len(NAMES) * len(sources_of(ReplayConfig()))


def test_a_port_in_use_is_refused_before_anything_starts(server: ServerHandle, task: Callable[..., TaskSpec]) -> None:
    for taken in (server.port, None):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            port = taken or listener.getsockname()[1]
            with pytest.raises(ReplayServerError, match=rf"replay\.port={port} .*in use.*replay\.port=0"):
                start_replay_server([task("x")], ReplayConfig(port=port))


def test_an_address_of_another_machine_is_refused(task: Callable[..., TaskSpec]) -> None:
    for port in (0, 5005):
        with pytest.raises(ValueError, match=r"replay\.host=192\.0\.2\.77 is not an address of this machine"):
            start_replay_server([task("x")], ReplayConfig(host="192.0.2.77", allow_public=True, port=port))


def test_a_server_listens_on_the_address_that_it_was_given_alone(task: Callable[..., TaskSpec]) -> None:
    own = {each.address for each in psutil.net_if_addrs().get("lo", []) if each.family == socket.AF_INET}
    others = {
        each.address for name in psutil.net_if_addrs() for each in psutil.net_if_addrs()[name]
        if each.family == socket.AF_INET
    } - own  # fmt: skip
    for host in ["127.0.0.1", *sorted(others)[:1]]:
        with start_replay_server([task("x")], ReplayConfig(host=host, allow_public=host in others)) as server:
            assert server.address == f"{host}:{server.port}"
            sockets = [each for each in psutil.Process(server.pid).net_connections("inet") if each.status == "LISTEN"]
            assert {each.laddr.ip.removeprefix("::ffff:") for each in sockets} == {host}


def test_unknown_tables_are_named(server: ServerHandle, task: Callable[..., TaskSpec]) -> None:
    with pytest.raises(UnknownTable, match="no table online/test/nobody"):
        EpisodeWriter(server.address, task("nobody"), "online", CONFIG)
    sampler = WindowSampler(server.address, task("nobody"), "good", CONFIG)
    with pytest.raises(SamplerError, match="good/test/nobody"):
        for _ in range(100):
            assert sampler.get(0.1) is None
    assert not sampler.available()


def test_an_empty_table_gives_none_in_time(server: ServerHandle, task: Callable[..., TaskSpec]) -> None:
    sampler = WindowSampler(server.address, task("errors"), "good", CONFIG)
    assert sampler.get(0.3) is None and sampler.get(0.0) is None
    assert not sampler.available() and sampler.info().size == 0
    sampler.close()


def test_no_server(task: Callable[..., TaskSpec]) -> None:
    with pytest.raises(ReplayUnavailable, match="did not answer within"):
        poll("127.0.0.1:1", 1.0)
    with pytest.raises(ReplayUnavailable):
        EpisodeWriter("127.0.0.1:1", task("errors"), "online", CONFIG)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("position", np.zeros(3, np.float32), r"observation/position at step 0 is float32 \(3,\)"),
        ("position", np.zeros(2), r"observation/position at step 0 is float64 \(2,\)"),
        ("grid", None, "observation/grid at step 0 is missing"),
        ("action", np.zeros(2), r"column action at step 0 is float64"),
        ("label", np.zeros(1, np.float32), r"column label at step 0 is float32 \(1,\)"),
    ],
)
def test_what_does_not_fit_the_task_is_refused(
    server: ServerHandle,
    task: Callable[..., TaskSpec],
    episode: Callable[..., dict[str, Any]],
    column: str,
    value: np.ndarray | None,
    message: str,
) -> None:
    spec = task("errors")
    one = episode(spec, 1, 0)
    writer = EpisodeWriter(server.address, spec, "online", CONFIG)
    writer.begin({key: array[0] for key, array in one["observation"].items()}, {}, {"episode_id": "x"})
    after = {key: array[1] for key, array in one["observation"].items()}
    actions: dict[str, Any] = {"action": one["action"][0], "label": one["label"][0]}
    (actions if column in actions else after)[column] = value
    with pytest.raises(ValueError, match=message):
        writer.step(actions["action"], 0.0, True, False, after, label=actions["label"])
    one["observation"]["position"] = one["observation"]["position"][:-1]
    with pytest.raises(ValueError, match="observation/position is float32"):
        writer.write_episode(**one)
    assert writer.close(5)


def test_an_overlong_text_is_named(
    server: ServerHandle, task: Callable[..., TaskSpec], episode: Callable[..., dict[str, Any]]
) -> None:
    spec = task("errors")
    writer = EpisodeWriter(server.address, spec, "demonstrations", CONFIG)
    with pytest.raises(ValueError, match="a text is longer than its spec's max_bytes"):
        writer.write_episode(**{**episode(spec, 3, 0), "texts": {"mission": "x" * 5000}})
    writer.write_episode(**{**episode(spec, 3, 0), "texts": {"mission": "\u0007" * 40}})
    assert writer.close(5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window_length": 20}, "multiple of 16"),
        ({"window_stride": 5}, "divide window_length"),
        ({"loader": "heavy"}, "light, plain or auto"),
        ({"good_capacity": 0}, "replay.good_capacity"),
        ({"write_deadline": 0.0}, "replay.write_deadline"),
        ({"samples_per_insert": -1.0}, "replay.samples_per_insert"),
        ({"port": 70000}, "replay.port"),
        ({"host": "localhost"}, "replay.host must be an IPv4 address"),
        ({"host": "0.0.0.0"}, r"replay\.allow_public=true .*iptables -A INPUT -p tcp --dport PORT"),
        ({"host": "10.1.2.3", "port": 5005}, r"replay\.host=10\.1\.2\.3 lets other machines in.*docs/security\.md"),
    ],
)
def test_a_bad_config_names_its_key(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ReplayConfig(**changes)


def test_too_many_tables_and_twice_the_same_task(task: Callable[..., TaskSpec]) -> None:
    with pytest.raises(ValueError, match=r"401 tasks need 1604 tables .*at most 1600.*at most 400 tasks"):
        table_configs([task(str(i)) for i in range(401)], ReplayConfig())
    with pytest.raises(ValueError, match="test/a is given twice"):
        table_configs([task("a"), task("a")], ReplayConfig())
    with pytest.raises(ValueError, match="at least one task"):
        table_configs([], ReplayConfig())
    with pytest.raises(ValueError, match="online, demonstrations, good, ends, best"):
        table_for("test/a", "worst")
    assert len(table_configs([task(str(i)) for i in range(16)], ReplayConfig())) == 64
    assert "ends" not in sources_of(ReplayConfig(ends=False))


def test_memory_estimates(task: Callable[..., TaskSpec]) -> None:
    config = ReplayConfig(online_capacity=100)
    spec = dataclasses.replace(task("a"), observation={"image": task("a").observation["image"]})
    estimates = {one.name: one for one in estimate_memory([spec], config, {spec.name: 50})}
    assert estimates["online/test/a"].windows == 100 and estimates["demonstrations/test/a"].windows == 50
    assert estimates["online/test/a"].raw_bytes > 100 * 17 * 6 * 8 * 3
    assert estimates["online/test/a"].bytes == pytest.approx(2 * estimates["demonstrations/test/a"].bytes, rel=0.01)
    assert expected_windows(1000, 10, (16, 8)) == 144  # (1000 + 10 * 15) / 8
