"""A run's replay server: started with the contents that belong to a checkpoint, or empty, and saying which."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

from distributed.plan import RunPlan
from distributed.run_folder import RunFolder
from learner.checkpoint import Checkpoint
from replay.server import ServerHandle, start_replay_server
from replay.table_info import ReplayInfo, poll

log = logging.getLogger(__name__)


def scratch_of(checkpoints: Path) -> Path:
    """Where Reverb writes contents, beside the checkpoints that they are moved into."""
    return checkpoints / "replay-scratch"


def table_counts(tables: ReplayInfo) -> dict[str, dict[str, int]]:
    """Plain data for a checkpoint's manifest."""
    return {
        name: {"size": each.size, "inserts": each.inserts, "samples": each.samples} for name, each in tables.items()
    }


def replay_scalars(tables: ReplayInfo, samples_per_insert: float | None) -> dict[str, float]:
    """Scalars of all tables, and the samples per insert that were asked beside ``reuse``, which was reached."""
    values: dict[str, float] = {}
    for table in tables.values():
        values |= {
            f"replay/size/{table.name}": float(table.size),
            f"replay/inserts/{table.name}": float(table.inserts),
            f"replay/samples/{table.name}": float(table.samples),
            f"replay/reuse/{table.name}": table.samples / table.inserts if table.inserts else 0.0,
            f"replay/inserts_wait/{table.name}": float(table.inserts_wait),
        }
        if samples_per_insert is not None and table.name.startswith("online/"):
            values[f"replay/samples_per_insert_asked/{table.name}"] = samples_per_insert
    return values


def start_run_replay(
    plan: RunPlan, run: RunFolder, checkpoint: Checkpoint | None, *, port: int = 0, generation: int = 0
) -> tuple[ServerHandle, dict[str, Any]]:
    """Start the server with the contents of ``checkpoint``, where it has any; and the replayers' cursors that belong to
    what is in the tables: those of the checkpoint, or none, so that all demonstrations go in from their beginning.

    Raises what `start_replay_server` raises.
    """
    config = plan.config
    cursors = {} if checkpoint is None else dict(checkpoint.extra["replayers"])
    contents = None if checkpoint is None else _contents(checkpoint, config.checkpoint.replay)
    server = start_replay_server(
        plan.specs,
        dataclasses.replace(config.replay, port=port) if port else config.replay,
        scratch=scratch_of(run.checkpoints) if config.checkpoint.replay else None,
        restore=contents,
        generation=generation,
        log=run.path / "replay.log",
    )
    if checkpoint is None or checkpoint.tables is None or not server.restored:
        if contents is not None:
            log.warning("%s is of other tables (replay.*, tasks): they begin empty", contents)
        return server, {}
    try:
        found = table_counts(poll(server.address, config.replay.start_deadline, config.replay.loader))
    except BaseException:
        server.stop(2.0)
        raise
    for name, counts in checkpoint.tables.items():
        # More are no surprise: where a server died in the middle of a run, its clients go on at once.
        if any(found[name][kind] < count for kind, count in counts.items()):
            log.error("%s holds %s, and the checkpoint says %s", name, found[name], counts)
    windows = sum(counts["size"] for counts in found.values())
    log.info("replay begins with the contents of %s: %d windows in %d tables", checkpoint.folder, windows, len(found))
    return server, cursors


def _contents(checkpoint: Checkpoint, asked: bool) -> Path | None:
    """Contents that belong to a checkpoint and are whole; None, said in the log, where there are none."""
    contents, why = None, "checkpoint.replay=false"
    if asked:
        try:
            contents = checkpoint.replay()
            why = f"{checkpoint.folder} has no contents of replay"
        except ValueError as error:
            why = f"the contents of replay of {checkpoint.folder} are damaged ({error})"
    if contents is None:
        log.warning("%s: the tables begin empty, and demonstrations go in from their beginning", why)
    return contents
