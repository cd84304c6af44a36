"""What a run will take: processes, CPUs, memory, disk and time; printed by ``clowder train --dry-run``."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from distributed.errors import ConfigError
from distributed.plan import Demonstrations, RunPlan
from distributed.preflight import model_of
from replay.tables import TableEstimate, estimate_memory, expected_windows

if TYPE_CHECKING:
    from rich.console import Console

# Resident megabytes of a process before it holds any data, measured on Linux with the versions of constraints.txt.
BASE_MEGABYTES = {
    "coordinator": 520,
    "replay server": 450,
    "learner": 430,
    "parameter store": 120,
    "environment actor": 430,
    "replayer": 350,
    "evaluator": 350,
    "Ray": 600,
}
BYTES_PER_PARAMETER_LEARNING = 4 * 4
"""Weights, gradients and two moments in float32."""
BYTES_PER_PARAMETER_SAVED = 4 * 3
"""Weights and two moments."""
SCALARS_BYTES_PER_ROW = 12_000
VIDEO_BYTES = 3_000_000


@dataclasses.dataclass(frozen=True)
class Role:
    """Processes of one kind: how many, the CPU share Ray counts for all, megabytes for all."""

    name: str
    count: int
    cpus: float
    megabytes: float


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a run is expected to take.

    Attributes:
        parameters: of the model.
        roles: its processes; one row in serial mode, beside the replay server.
        tables: of the replay server, when full.
        disk_bytes: of the run folder at its end.
    """

    parameters: int
    roles: list[Role]
    tables: list[TableEstimate]
    disk_bytes: int

    @property
    def megabytes(self) -> float:
        """All processes together, with full tables."""
        return sum(role.megabytes for role in self.roles)

    @property
    def cpus(self) -> float:
        """Shares that Ray counts."""
        return sum(role.cpus for role in self.roles)


def estimate(plan: RunPlan) -> Estimate:
    """Estimate a run. Raises ConfigError where tables exceed ``replay.max_gigabytes``, or weights the object store."""
    config, cluster = plan.config, plan.config.cluster
    windows = {
        plan.tasks[name].name: expected_windows(found.steps, found.episodes, config.replay.span(plan.tasks[name]))
        for name, found in plan.demonstrations.items()
    }
    tables = estimate_memory(plan.specs, config.replay, windows)
    table_bytes = sum(table.bytes for table in tables)
    if table_bytes > config.replay.max_gigabytes * 1e9:
        largest = max(tables, key=lambda table: table.bytes)
        raise ConfigError(
            f"replay would need about {table_bytes / 1e9:.1f} GB when full (most of it {largest.name}, "
            f"{largest.bytes / 1e9:.1f} GB), above replay.max_gigabytes={config.replay.max_gigabytes:g}; lower "
            "replay.online_capacity and replay.good_capacity, or raise replay.max_gigabytes"
        )
    parameters = model_of(plan).parameter_count()
    store = 4 * parameters * 4 / 2**20
    if cluster.mode == "ray" and cluster.address == "local" and store > cluster.object_store_megabytes:
        raise ConfigError(
            f"the weights are {parameters * 4 / 2**20:,.0f} MB, and Ray's store must hold four copies of them on their "
            f"way: set cluster.object_store_megabytes={store * 1.5:.0f} or more"
        )
    actors = sum(actor.num_actors for actor in config.actors.values())
    replayers, evaluators = len(plan.replayers), config.evaluation.num_evaluators
    learner = parameters * BYTES_PER_PARAMETER_LEARNING / 1e6 + 200
    counts = [
        ("coordinator", 1, 0.0, 0.0),
        ("replay server", 1, 0.0, table_bytes / 1e6),
        ("learner", 1, cluster.learner_cpus, learner),
        ("parameter store", 1, 0.0, 0.0),
        ("environment actor", actors, actors * cluster.actor_cpus, actors * parameters * 4 / 1e6),
        ("replayer", replayers, replayers * cluster.replayer_cpus, 0.0),
        ("evaluator", evaluators, evaluators * cluster.evaluator_cpus, evaluators * parameters * 4 / 1e6),
        ("Ray", 1 if cluster.mode == "ray" else 0, 0.0, float(cluster.object_store_megabytes)),
    ]
    if cluster.mode == "serial":
        counts = [("coordinator", 1, 0.0, BASE_MEGABYTES["learner"] + learner), counts[1]]
    roles = [
        Role(name, count, cpus, count * BASE_MEGABYTES[name] + more) for name, count, cpus, more in counts if count
    ]
    seconds = 60 * (config.stop.wall_minutes or config.learner.minutes or 60)
    saved = config.checkpoint
    milestones = config.last_step // saved.milestone_steps if saved.milestone_steps else 0
    disk = parameters * BYTES_PER_PARAMETER_SAVED * (saved.keep + saved.best + milestones)
    disk += int(seconds / config.logging.every_seconds * SCALARS_BYTES_PER_ROW)
    disk += VIDEO_BYTES * len(plan.tasks) if config.evaluation.videos else 0
    disk += table_bytes * (saved.keep + 1) if saved.replay else 0
    return Estimate(parameters, roles, tables, disk)


def stop_conditions(plan: RunPlan) -> str:
    """When training ends, in words."""
    stop, config = plan.config.stop, plan.config
    parts = [f"after {config.last_step:,} learner steps"]
    if config.learner.minutes:
        parts.append(f"after {config.learner.minutes:g} minutes of learning")
    if stop.wall_minutes:
        parts.append(f"after {stop.wall_minutes:g} minutes")
    if stop.environment_steps:
        parts.append(f"after {stop.environment_steps:,} environment steps")
    final = f"then a final evaluation of at most {config.evaluation.final_minutes:g} minutes"
    return (" or ".join(parts) + ", whichever comes first; " if len(parts) > 1 else parts[0] + "; ") + final


def kept_of(found: Demonstrations) -> str:
    """How many episodes are replayed, and of how many where that is fewer."""
    return f"{found.episodes}" if found.episodes == found.in_set else f"{found.episodes} of {found.in_set}"


def show(plan: RunPlan, found: Estimate, out: Console) -> None:
    """Print the tables of a dry run."""
    from rich.table import Table

    config = plan.config
    tasks = Table(title="Tasks", title_justify="left")
    for column in ("name", "task", "actors x envs", "context", "share", "online", "demonstrations"):
        tasks.add_column(column, overflow="fold")
    total = sum(actor.weight for actor in config.actors.values())
    for name, actor in config.actors.items():
        has = plan.demonstrations.get(name)
        said = f"{kept_of(has)} episodes, {has.steps:,} steps, mean {has.demonstrator_return:.1f}" if has else "none"
        fleet, share = f"{actor.num_actors} x {actor.envs_per_actor}", f"{actor.weight / total:.0%}"
        tasks.add_row(name, actor.task, fleet, str(actor.context_steps), share, f"{actor.online_share:.0%}", said)
    out.print(tasks)
    fleet_table = Table(title="Fleet", title_justify="left")
    for column in ("process", "count", "CPU share", "memory (MB)"):
        fleet_table.add_column(column, justify="left" if column == "process" else "right")
    for role in found.roles:
        fleet_table.add_row(role.name, str(role.count), f"{role.cpus:g}", f"{role.megabytes:,.0f}")
    fleet_table.add_section()
    count = sum(role.count for role in found.roles)
    fleet_table.add_row("together", str(count), f"{found.cpus:g}", f"{found.megabytes:,.0f}")
    out.print(fleet_table)
    tables = Table(title="Replay tables when full", title_justify="left")
    for column in ("table", "windows", "memory (MB)"):
        tables.add_column(column, justify="left" if column == "table" else "right")
    for table in found.tables:
        tables.add_row(table.name, f"{table.windows:,}", f"{table.bytes / 1e6:,.0f}")
    out.print(tables)
    import psutil

    memory = psutil.virtual_memory().available / 1e6
    folder = Path(config.logging.folder).absolute()
    free = shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free
    print(f"model: {found.parameters:,} parameters")
    print(
        f"CPUs: {config.cluster.num_cpus or os.cpu_count()} for {found.cpus:g} shares; address {config.cluster.address}"
    )
    print(f"memory: about {found.megabytes:,.0f} MB of {memory:,.0f} MB available here")
    print(f"disk: about {found.disk_bytes / 1e6:,.0f} MB of {free / 1e6:,.0f} MB free at {folder}")
    print(f"time: training ends {stop_conditions(plan)}")
