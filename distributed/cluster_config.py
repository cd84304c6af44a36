"""`ClusterConfig`: where the processes of a run live, what they may use, and every deadline between them."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass
class ClusterConfig:
    """How the fleet of one run is started, watched and stopped. Plain types only: OmegaConf holds it.

    Attributes:
        mode: ``ray`` (a process for each component) or ``serial`` (all components in one process, for breakpoints and
            tests; only the replay server stays a process of its own).
        address: ``local`` starts a private Ray here, ``auto`` joins the cluster that runs here, else a Ray address.
        num_cpus: cores that a local Ray is told of, or what the shares of the run need where that is more; 0: all.
        serial_steps: vector steps of each environment actor between two updates, with mode ``serial``.
        learner_threads, actor_threads: torch threads of the learner and of each actor, replayer and evaluator.
        learner_cpus, actor_cpus, replayer_cpus, evaluator_cpus: shares that Ray schedules by; not limits.
        learner_gpus: accelerators of the learner; no other process ever sees one.
        nice: added to the niceness of environment actors and monitoring evaluators (replayers: half of it), so that
            they take what the learner leaves instead of starving it. 0: all are equals.
        object_store_megabytes: shared memory of a local Ray; it only carries weights, and six copies of them are
            plenty. Each process that reads them counts the pages it has touched in its resident memory.
        publish_seconds: between publications of weights; never two in flight.
        pull_seconds: between an environment actor's questions for newer weights (``ray``; with ``serial`` it has
            them as soon as they are published).
        report_seconds: between the reports that the coordinator asks of every process.
        start_deadline_seconds: for all processes to be ready, and for the cluster to have room for them at first. What
            is started again later waits for room as long as it takes where the run goes on without it, else
            ``restart_minutes``.
        answer_deadline_seconds: without an answer, after which a process that had answered before counts as hung (it
            was stopped, or its machine is gone) and is replaced; so do the replay server and the parameter store.
        stall_deadline_seconds: without progress, after which a process that answers is replaced.
        stop_deadline_seconds: for all processes to end, Ctrl-C included; what is left then is killed.
        restarts, restart_minutes: one process is started again so often in so many minutes of its work; deaths of one
            that does not come to work are not forgotten. Then the run goes on without it where it can (an environment
            actor of several of a task, the monitoring evaluator), and gives up where it cannot. Processes of machines
            that were taken away (Ray calls it preemption) do not count, nor does waiting for room in the cluster.
    """

    mode: str = "ray"
    address: str = "local"
    num_cpus: int = 0
    serial_steps: int = 8
    learner_threads: int = 1
    actor_threads: int = 1
    learner_cpus: float = 1.0
    actor_cpus: float = 0.25
    replayer_cpus: float = 0.05
    evaluator_cpus: float = 0.1
    learner_gpus: float = 0.0
    nice: int = 10
    object_store_megabytes: int = 80
    publish_seconds: float = 5.0
    pull_seconds: float = 2.0
    report_seconds: float = 1.0
    start_deadline_seconds: float = 120.0
    answer_deadline_seconds: float = 10.0
    stall_deadline_seconds: float = 180.0
    stop_deadline_seconds: float = 12.0
    restarts: int = 3
    restart_minutes: float = 10.0


def check_cluster_config(config: ClusterConfig) -> None:
    """Raise ValueError naming ``cluster.<key>`` and what is allowed, where a value cannot work."""

    def refuse(key: str, rule: str) -> None:
        raise ValueError(f"cluster.{key} {rule}, not {getattr(config, key)!r}")

    if config.mode not in ("ray", "serial"):
        refuse("mode", "is ray or serial")
    if config.mode == "serial" and config.address != "local":
        refuse("address", "belongs to cluster.mode=ray; serial mode runs here, with address local")
    if config.object_store_megabytes < 80:
        refuse("object_store_megabytes", "must be at least 80 (Ray's own minimum)")
    if not 0 <= config.nice <= 19:
        refuse("nice", "must be between 0 and 19")
    shares = ("num_cpus", "learner_cpus", "actor_cpus", "replayer_cpus", "evaluator_cpus", "learner_gpus")
    for key in (*shares, "publish_seconds", "restarts"):
        if getattr(config, key) < 0:
            refuse(key, "must be at least 0")
    for key in ("learner_threads", "actor_threads", "serial_steps"):
        if getattr(config, key) < 1:
            refuse(key, "must be at least 1")
    for field in dataclasses.fields(config):
        positive = field.name.endswith(("_deadline_seconds", "_minutes")) or field.name in (
            "pull_seconds",
            "report_seconds",
        )
        if positive and not getattr(config, field.name) > 0:
            refuse(field.name, "must be above 0")
