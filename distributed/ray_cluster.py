"""Joins the Ray cluster of a run, or starts one of its own, quiet and small."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import psutil
import ray

from distributed.cluster_config import ClusterConfig
from distributed.errors import ClowderError
from distributed.guardian import Guardian
from distributed.plan import RunPlan
from distributed.process_environment import PROCESS_ENVIRONMENT, WORKER_SETUP_HOOK

CONNECT_SECONDS = 5.0
ROOM_CPUS = 16
"""That a private Ray declares beyond what a run asks for at first, so that `clowder fleet` can add actors."""


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
    what runs on two cores shall not wait for a third.

    Raises:
        ClowderError: there is no cluster at the address.
    """
    if cluster.address == "local":
        num_cpus = max(cluster.num_cpus or os.cpu_count() or 1, int(cpus) + 1 + ROOM_CPUS)
        start_private(num_cpus, cluster.object_store_megabytes)
        return
    _check_reachable(cluster.address)
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": PROCESS_ENVIRONMENT, "worker_process_setup_hook": WORKER_SETUP_HOOK},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClowderError(
            f"cluster.address={cluster.address}: no Ray cluster answers there ({str(error).splitlines()[0]}); start "
            "one with `ray start --head`, or use cluster.address=local"
        ) from error


def start_private(num_cpus: int, object_store_megabytes: int) -> None:
    """A Ray on this machine alone, that ends with `leave`, or should this process be killed with a `Guardian`;
    ClowderError where it does not start."""
    global _guardian
    try:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=object_store_megabytes * 2**20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
            runtime_env={"worker_process_setup_hook": WORKER_SETUP_HOOK},
        )
        _guardian = _guardian or Guardian()
    except (OSError, ValueError, RuntimeError) as error:  # ConnectionError and TimeoutError are OSErrors
        leave()
        why = str(error).partition("\n")[0]
        raise ClowderError(
            f"Ray did not start on this machine: {why}; see `clowder doctor`, and whether /tmp and /dev/shm have room"
        ) from error


def _check_reachable(address: str) -> None:
    """Raise ClowderError where nothing listens at ``host:port``: Ray itself would try for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return  # auto, which looks into a file
    try:
        socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise ClowderError(
            f"cluster.address={address}: no Ray cluster answers there ({error.strerror or error}); start one with "
            "`ray start --head`, or use cluster.address=local"
        ) from error


_guardian: Guardian | None = None


def leave() -> None:
    """Disconnect; a private Ray ends with all its processes before this returns, within a few seconds."""
    global _guardian
    if not ray.is_initialized():
        return
    # Ray sends its processes a signal and does not wait: one in the middle of an import may outlive us.
    started = [process for process in psutil.Process().children(recursive=True) if _is_rays(process)]
    ray.shutdown()
    _, late = psutil.wait_procs(started, timeout=2.0)
    for process in late:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(late, timeout=2.0)
    if _guardian is not None:
        _guardian.dismiss()
        _guardian = None


def _is_rays(process: psutil.Process) -> bool:
    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any(word.startswith("ray::") or os.sep + "ray" + os.sep in word for word in words)
