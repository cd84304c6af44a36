"""Joins the Ray cluster of a run, or starts one of its own, quiet and small."""

from __future__ import annotations

import logging
import os

import ray

from distributed.errors import ClowderError
from distributed.plan import RunPlan

WORKER_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "PYGAME_HIDE_SUPPORT_PROMPT": "1",
    "PYTHONFAULTHANDLER": "1",
}
"""Environment variables of every process of a run."""

_RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # we hide accelerators ourselves; silences a warning about it
    "RAY_DISABLE_IMPORT_WARNING": "1",
}


def cpus_declared(plan: RunPlan) -> float:
    """Sum of the CPU shares that a run's processes declare to Ray."""
    cluster = plan.config.cluster
    actors = sum(actor.num_actors for actor in plan.config.actors.values())
    evaluators = plan.config.evaluation.num_evaluators
    return (
        cluster.learner_cpus
        + cluster.actor_cpus * actors
        + cluster.replayer_cpus * len(plan.demonstrations)
        + cluster.evaluator_cpus * (evaluators + 1)
    )


def join(plan: RunPlan) -> None:
    """Start a private Ray on this machine, or join the cluster of ``cluster.address``.

    A private one declares at least as many CPUs as the run's processes ask for: shares are only for scheduling, and
    what runs on two cores shall not wait for a third.

    Raises:
        ClowderError: there is no cluster at the address.
    """
    cluster = plan.config.cluster
    if cluster.address == "local":
        for name, value in (_RAY_ENVIRONMENT | WORKER_ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        ray.init(
            address="local",
            num_cpus=max(cluster.num_cpus or os.cpu_count() or 1, int(cpus_declared(plan)) + 1),
            include_dashboard=False,
            object_store_memory=cluster.object_store_megabytes * 2**20,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
        return
    try:
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"env_vars": WORKER_ENVIRONMENT},
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ClowderError(
            f"cluster.address={cluster.address}: no Ray cluster answers there ({str(error).splitlines()[0]}); start "
            "one with `ray start --head`, or use cluster.address=local"
        ) from error
