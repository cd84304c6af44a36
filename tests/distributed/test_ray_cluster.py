"""A Ray of one's own, which nobody else gets into."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc
import psutil
import pytest
import ray

from distributed import ray_cluster
from distributed.errors import ClowderError
from distributed.ray_cluster import AUTHENTICATION, leave, start_private

ROOT = Path(__file__).parents[2]
SERVICES = (
    "NodeInfoGcsService/GetAllNodeInfo", "InternalKVGcsService/InternalKVGet", "NodeManagerService/GetNodeStats",
    "CoreWorkerService/PushTask", "ObjectManagerService/Pull",
)  # fmt: skip
"""A call of each kind of server that a Ray has; each server knows some of them."""


@pytest.fixture(autouse=True)
def a_home_of_its_own(tmp_path, monkeypatch):
    """Ray writes tokens to the home folder, and reads them there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in AUTHENTICATION:
        monkeypatch.delenv(name, raising=False)


def test_a_ray_that_does_not_start_is_a_clear_error():
    with pytest.raises(ClowderError, match=r"Ray did not start on this machine: .*minimum allowed.*clowder doctor"):
        start_private(num_cpus=1, object_store_megabytes=1)
    assert not ray.is_initialized()
    assert not ray_cluster._own_processes()
    assert not set(AUTHENTICATION) & os.environ.keys()


def family() -> tuple[dict[int, str], list[str]]:
    """Address by port of all sockets that this process and those it started listen at, and their command lines."""
    ports, words = {}, []
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # Ray ends idle workers
            words += process.cmdline()
            for each in process.net_connections("inet"):
                if each.status == psutil.CONN_LISTEN:
                    ports[each.laddr.port] = each.laddr.ip
    return ports, words


class Worker:
    def work(self):
        return True


def refusal(port: int) -> set[str]:
    """What a server says to calls without a token, those aside that it does not know."""
    answers = set()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        for method in SERVICES:
            try:
                channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=5.0)
                answers.add("let in")
            except grpc.RpcError as error:
                answers.add(error.code().name)
    return answers - {"UNIMPLEMENTED"}


def client(address: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Another process that calls the cluster."""
    code = f"import ray; print(ray._raylet.GcsClient(address={address!r}).internal_kv_put(b'a', b'b', True, None, 5.0))"
    plain = {name: value for name, value in os.environ.items() if name not in AUTHENTICATION}
    return subprocess.run(
        [sys.executable, "-c", code], env=plain | environment, capture_output=True, text=True, timeout=60
    )


def test_a_private_ray_listens_on_loopback_and_lets_nobody_in_without_its_token(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", "/the/users/own")  # for another cluster; not for this one
    try:
        start_private(num_cpus=1, object_store_megabytes=80)
        worker = ray.remote(Worker).remote()
        ray.get(worker.work.remote(), timeout=60)
        token = os.environ["RAY_AUTH_TOKEN"]
        assert len(token) == 64 and os.environ["RAY_AUTH_MODE"] == "token"

        ports, words = family()
        assert any("ray::Worker" in word for word in words)
        assert len(ports) >= 6  # GCS, two of the raylet, agent, driver, worker
        assert {address.removeprefix("::ffff:") for address in ports.values()} == {"127.0.0.1"}
        answers = [refusal(port) for port in ports]
        # The agent for environments of workers speaks HTTP.
        assert answers.count({"UNAUTHENTICATED"}) == len(ports) - 1 and answers.count({"UNAVAILABLE"}) == 1

        address = ray.get_runtime_context().gcs_address
        refused = client(address)
        assert refused.returncode and "InvalidAuthToken" in refused.stderr
        refused = client(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert refused.returncode and "InvalidAuthToken" in refused.stderr
        assert client(address, RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token).stdout.strip() == "1"

        assert not any(token in word for word in words)
        folder = Path(ray._private.worker._global_node.get_session_dir_path())
        written = [path for path in folder.rglob("*") if path.is_file()]
        assert written and not any(token.encode() in path.read_bytes() for path in written)
        assert not (tmp_path / ".ray").exists()
        outer = folder.parents[1]
        assert outer.stat().st_mode & 0o777 == 0o700 and outer.stat().st_uid == os.getuid()
    finally:
        leave()
    assert {name: os.environ[name] for name in AUTHENTICATION if name in os.environ} == {
        "RAY_AUTH_TOKEN_PATH": "/the/users/own"
    }


def test_a_folder_that_others_may_enter_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_cluster.tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / f"clowder-{os.getuid()}").mkdir(mode=0o755)
    with pytest.raises(ClowderError, match="not a folder of yours alone"):
        start_private(num_cpus=1, object_store_megabytes=80)


DRIVER = """
import ray
from distributed.ray_cluster import leave, start_private

class Worker:
    def work(self):
        import importlib, sys
        return [importlib.import_module(name).__file__ for name in ("json", "numpy", "safetensors")], sys.path

start_private(num_cpus=1, object_store_megabytes=80)
try:
    files, path = ray.get(ray.remote(Worker).remote().work.remote(), timeout=60)
    print(*files, *path, sep="\\n")
finally:
    leave()
"""


@pytest.mark.parametrize("chosen", [False, pytest.param(True, marks=pytest.mark.long)])
def test_workers_import_from_the_current_folder_only_where_this_process_does(tmp_path, chosen):
    """As the `clowder` program is started: Python then puts the program's folder on its path, not the current one."""
    foreign = tmp_path / "foreign"
    for name in ("json", "numpy", "torch", "safetensors", "psutil", "ray", "distributed"):
        (foreign / name).mkdir(parents=True)
        if not chosen:
            (foreign / name / "__init__.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "driver.py").write_text(DRIVER)
    own = {"PYTHONPATH": os.pathsep.join(["."] * chosen + [str(ROOT)])}
    done = subprocess.run(
        [sys.executable, tmp_path / "bin" / "driver.py"],
        cwd=foreign, env=os.environ | own, capture_output=True, text=True, timeout=110,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()
    assert (str(foreign) in done.stdout.splitlines()) == chosen


@pytest.mark.long
def test_a_ray_that_stands_still_is_left_all_the_same(monkeypatch):
    monkeypatch.setattr(ray_cluster, "SHUTDOWN_SECONDS", 2.0)
    try:
        start_private(num_cpus=1, object_store_megabytes=80)
        started = ray_cluster._own_processes()
        stopped = [each for each in started if each.name() in ("gcs_server", "raylet")]
        assert len(stopped) == 2
        for process in stopped:
            process.suspend()
    finally:
        begin = time.monotonic()
        leave()
    assert time.monotonic() - begin < 60.0  # `ray.shutdown` alone waits for as long as they stand still
    assert not ray.is_initialized() and not any(each.is_running() for each in started)
