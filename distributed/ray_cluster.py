"""Joins the Ray cluster of a run, or starts one of its own, quiet, small, and closed to everybody else.

What reaches a Ray's ports can run code in its processes. A private Ray therefore listens on 127.0.0.1 alone, asks for a
random token that only the environment of its own processes holds, and keeps its sockets in a folder of this user.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import socket
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private import ray_constants, services
from ray.job_config import JobConfig

from distributed.cluster_config import ClusterConfig
from distributed.errors import ClowderError
from distributed.guardian import Guardian
from distributed.plan import RunPlan
from distributed.process_environment import PROCESS_ENVIRONMENT, WORKER_SETUP_HOOK

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
START_SECONDS, SHUTDOWN_SECONDS = 240.0, 15.0
"""After which the processes of a private Ray are killed that does not start or end."""
ROOM_CPUS = 16
"""That a private Ray declares beyond what a run asks for at first, so that `clowder fleet` can add actors."""
AUTHENTICATION = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""Environment variables from which Ray, from 2.52 on, takes whether a token is asked for, and which."""
_raylet: Any = ray._raylet
_TOKENS = hasattr(_raylet, "AuthenticationTokenLoader")
_users: list[dict[str, str]] = []
"""The user's own `AUTHENTICATION`, while a private Ray has another."""


def cpus_declared(plan: RunPlan) -> float:
    """Sum of the CPU shares that a run's processes declare to Ray."""
    cluster = plan.config.cluster
    actors = sum(actor.num_actors for actor in plan.config.actors.values())
    evaluators = plan.config.evaluation.num_evaluators
    return (
        cluster.learner_cpus
        + cluster.actor_cpus * actors
        + cluster.replayer_cpus * len(plan.replayers)
        + cluster.evaluator_cpus * (evaluators + 1)
    )


def join(plan: RunPlan) -> None:
    """`connect` for the processes of a run."""
    connect(plan.config.cluster, cpus_declared(plan))


def connect(cluster: ClusterConfig, cpus: float) -> None:
    """Start a private Ray on this machine, or join the cluster of ``cluster.address``.

    A private one declares at least ``cpus`` CPUs, as many as the processes ask for: shares are only for scheduling, and
    what runs on two cores shall not wait for a third. To join, Ray's own settings of the user are taken:
    ``RAY_AUTH_MODE=token`` with ``RAY_AUTH_TOKEN``, ``RAY_AUTH_TOKEN_PATH`` or ``~/.ray/auth_token``.

    Raises:
        ClowderError: there is no cluster at the address, or it asks for another token.
    """
    if cluster.address == "local":
        num_cpus = max(cluster.num_cpus or os.cpu_count() or 1, int(cpus) + 1 + ROOM_CPUS)
        start_private(num_cpus, cluster.object_store_megabytes)
        return
    _check_reachable(cluster.address)
    # A Ray client sends it to a server that may not have our packages, and leaves the current folder out by itself.
    job = JobConfig() if cluster.address.startswith("ray://") else OwnPath()
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": PROCESS_ENVIRONMENT, "worker_process_setup_hook": WORKER_SETUP_HOOK},
            job_config=job,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClowderError(
            f"cluster.address={cluster.address}: no Ray cluster answers there ({str(error).splitlines()[0]}); start "
            "one with `ray start --head`, or use cluster.address=local"
        ) from error
    if not (_TOKENS and _raylet.get_authentication_mode() == _raylet.AuthenticationMode.TOKEN):
        log.warning(
            "the Ray cluster at cluster.address=%s asks for no token: who reaches its ports can run code in it; start "
            "it with RAY_AUTH_MODE=token, see docs/security.md",
            cluster.address,
        )


def start_private(num_cpus: int, object_store_megabytes: int) -> None:
    """A Ray on this machine alone, that ends with `leave`, or should this process be killed with a `Guardian`;
    ClowderError where it does not start."""
    global _guardian
    folder = _own_folder()
    _set_token()
    try:
        with _on_loopback(), _killed_after(START_SECONDS):
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=object_store_megabytes * 2**20,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(folder),
                runtime_env={"worker_process_setup_hook": WORKER_SETUP_HOOK},
                job_config=OwnPath(),
            )
        _guardian = _guardian or Guardian()
    except Exception as error:  # Ray raises a plain one where a process of its own does not answer in time
        leave()
        why = str(error).partition("\n")[0]
        raise ClowderError(
            f"Ray did not start on this machine: {why}; see `clowder doctor`, and whether /tmp and /dev/shm have room"
        ) from error


class OwnPath(JobConfig):
    """Has the workers import from where this process does.

    By itself Ray puts the current folder first on their path, and that may be the run folder of somebody else with a
    ``torch.py`` in it. The folder stays where this process imports from it too, as with ``PYTHONPATH=.``.
    """

    def _get_proto_job_config(self) -> Any:
        ours = {os.path.abspath(each) for each in sys.path}
        self._py_driver_sys_path = [each for each in self._py_driver_sys_path if each in ours]
        return super()._get_proto_job_config()


@contextlib.contextmanager
def _killed_after(seconds: float) -> Iterator[None]:
    """Kill the processes of a private Ray where the block takes longer: what waits for them then comes back."""
    timer = threading.Timer(seconds, lambda: _kill(_own_processes()))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Have a Ray that starts within the block listen on 127.0.0.1.

    On Linux it exchanges that for the address that other machines reach, and then listens on every interface, unless it
    is told, as on systems without clusters, that this machine is all there is.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _set_token() -> None:
    """Make a token for a private Ray; its processes inherit it, and no file or command line ever holds it.

    Left to itself Ray would write one that lasts to ``~/.ray/auth_token``, readable for everybody.
    """
    _users.append({name: os.environ.pop(name) for name in AUTHENTICATION if name in os.environ})
    os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
    _read_authentication()


def _forget_token() -> None:
    """Put the user's own settings back, if a private Ray had taken their place."""
    while _users:
        for name in AUTHENTICATION:
            os.environ.pop(name, None)
        os.environ.update(_users.pop())
        _read_authentication()


def _read_authentication() -> None:
    """Have Ray read `AUTHENTICATION` again: it does so once in a process. Settings first, or a token is looked for."""
    if _TOKENS:
        _raylet.Config.initialize("")
        _raylet.AuthenticationTokenLoader.instance().reset_cache()


def _own_folder() -> Path:
    """Where a private Ray keeps its sockets and logs: Ray opens its folders to everybody, so this one is in another
    that is the user's alone; ClowderError where somebody else made that."""
    outer = Path(tempfile.gettempdir()) / f"clowder-{os.getuid()}"
    outer.mkdir(mode=0o700, exist_ok=True)
    found = outer.lstat()
    if outer.is_symlink() or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ClowderError(
            f"{outer}, where Ray keeps its sockets, is not a folder of yours alone; remove it, or set TMPDIR to a "
            "folder of your own"
        )
    return outer / "ray"


def _check_reachable(address: str) -> None:
    """Raise ClowderError where nothing listens at ``host:port`` or it refuses our token: Ray would try for minutes."""
    named = f"cluster.address={address}"
    if address == "auto":
        address = services.canonicalize_bootstrap_address("auto") or ""
        _take_token_for_auto()
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # `ray.init` says what is wrong
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ClowderError(
            f"{named}: no Ray cluster answers there ({error.strerror or error}); start one with "
            "`ray start --head`, or use cluster.address=local"
        ) from error
    if not _TOKENS or address.startswith("ray://"):
        return
    try:
        _raylet.GcsClient(address=address).internal_kv_get(b"clowder", None, timeout=CONNECT_SECONDS)
    except ray.exceptions.AuthenticationError as error:
        raise ClowderError(
            f"{named}: the cluster refuses the token of this process; set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH "
            "to the file with the cluster's token"
        ) from error
    except ray.exceptions.RpcError as error:
        raise ClowderError(
            f"{named}: what listens there answers no call of Ray ({str(error).splitlines()[0]}); give the address that "
            "`ray start --head` printed"
        ) from error


def _take_token_for_auto() -> None:
    """Take the user's token, if there is one, for the cluster of this machine, as `ray.init` does."""
    loader = _raylet.AuthenticationTokenLoader.instance() if _TOKENS else None
    if loader is not None and "RAY_AUTH_MODE" not in os.environ and loader.has_token(ignore_auth_mode=True):
        os.environ["RAY_AUTH_MODE"] = "token"
        _read_authentication()


_guardian: Guardian | None = None


def leave() -> None:
    """Disconnect; a private Ray ends with all its processes before this returns: within a few seconds, or, where it
    stands still, soon after `SHUTDOWN_SECONDS`."""
    global _guardian
    started = _own_processes()
    if ray.is_initialized():
        with _killed_after(SHUTDOWN_SECONDS):
            ray.shutdown()
    # Ray sends its processes a signal and does not wait: one in the middle of an import may outlive us.
    _, late = psutil.wait_procs(started, timeout=2.0)
    _kill(late)
    psutil.wait_procs(late, timeout=2.0)
    if _guardian is not None:
        _guardian.dismiss()
        _guardian = None
    _forget_token()


def _own_processes() -> list[psutil.Process]:
    """Those of Ray that this process started, directly or not."""
    return [process for process in psutil.Process().children(recursive=True) if _is_rays(process)]


def _is_rays(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    folder = os.path.join(os.path.dirname(ray.__file__), "")
    return any(word.startswith(("ray::", folder)) for word in words)


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()
