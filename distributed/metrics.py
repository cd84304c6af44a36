"""`MetricsWriter`: the only writer of TensorBoard events, and of ``metrics.jsonl`` beside them.

Every scalar is written against the learner's step; returns are also written against environment steps, under
``return_by_environment_steps/``. ``docs/metrics.md`` documents each name.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import sys
import threading
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from actors.redaction import redact
from distributed.run_folder import write_whole

log = logging.getLogger(__name__)

BY_ENVIRONMENT_STEPS = "_by_environment_steps"
"""Suffix of the first part of a name whose scalar is against environment steps."""
TASK_CHARTS = {
    "return of demonstrations, own episodes and evaluation": ["demonstrations/return", "return", "evaluation/return"],
    "asked and achieved return": ["evaluation/asked_return", "evaluation/achieved_return"],
    "value of the first action and discounted return": ["evaluation/value", "evaluation/discounted_return"],
    "entropy of the policy": ["learner/entropy", "learner/own_entropy", "learner/entropy_multiplier"],
    "value and scale of advantages": ["learner/value", "learner/advantage_scale"],
    "share of each source": ["share/demonstrations", "share/online", "share/good", "share/best"],
    "versions behind, of weights that act and of what is learned from": ["actor/versions_behind", "lag/versions_mean"],
    "age of weights that act, seconds": ["actor/weights_age_s"],
}
"""Charts of a task's page: title, and what goes before the task's name in the names of its scalars."""
VIDEO_FRAMES, VIDEO_HEIGHT = 120, 160
"""A video in TensorBoard is an animation of at most so many pictures of this height; the MP4 beside it is whole."""
VIDEO_DEADLINE_SECONDS = 60.0
"""To read an MP4 of a run."""


class MetricsWriter:
    """Appends; one instance a run. What a full disk does not take is lost, said in the log, and training goes on.

    Attributes:
        failures: writes that were lost.
    """

    def __init__(self, events: Path, rows: Path, resumed_from: int | None = None) -> None:
        """Open a folder of TensorBoard events and the file of rows, one JSON object a line.

        ``resumed_from`` is the learner step that a resumed run starts at: what an interrupted run wrote beyond it is
        hidden in TensorBoard and dropped from the rows, since those steps come again.
        """
        # torch's SummaryWriter imports TensorFlow where it is installed, unless this module exists: 10 s and 400 MB.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        self.failures = 0
        events.mkdir(parents=True, exist_ok=True)
        if resumed_from is not None and rows.exists():
            kept = [row for row in read_rows(rows) if row["learner_steps"] <= resumed_from]
            write_whole(rows, "".join(json.dumps(row) + "\n" for row in kept))
        self._folder = events
        self._events: Any = self._open(None if resumed_from is None else resumed_from + 1)
        self._rows = rows.open("ab", buffering=0)
        self._torn = False

    def _open(self, purge: int | None = None) -> Any:
        from torch.utils.tensorboard import SummaryWriter

        return SummaryWriter(str(self._folder), purge_step=purge, flush_secs=10)

    def _to_events(self, write: Callable[[Any], object]) -> None:
        """Call with the writer of events, a new one where the one before failed: its thread ends at its first error."""
        try:
            if self._events is None:
                self._events = self._open()
            write(self._events)
        except OSError as error:
            self._events = None
            self._failed(error)

    def _failed(self, error: OSError) -> None:
        self.failures += 1
        log.error("metrics were not written, and training goes on: %s", error)

    def scalars(
        self, values: Mapping[str, float], *, learner_steps: int, environment_steps: int, wall_seconds: float
    ) -> None:
        """Write one point of every value; what is not finite is left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        points = [(name, value, learner_steps) for name, value in finite.items()]
        for name, value in finite.items():
            group, _, rest = name.partition("/")
            if group in ("return", "normalised"):
                points.append((f"{group}{BY_ENVIRONMENT_STEPS}/{rest}", value, environment_steps))
        self._to_events(lambda events: [events.add_scalar(*point) for point in points])
        row = {
            "learner_steps": learner_steps,
            "environment_steps": environment_steps,
            "wall_seconds": round(wall_seconds, 3),
            "values": finite,
        }
        data = ("\n" if self._torn else "").encode() + json.dumps(row).encode() + b"\n"
        try:
            self._torn = self._rows.write(data) < len(data)  # readers leave a torn line out
        except OSError as error:
            self._failed(error)

    def text(self, name: str, text: str, learner_steps: int) -> None:
        """Write a preformatted text, such as the config, without secrets."""
        block = "\n".join("    " + line for line in redact(text).splitlines())
        self._to_events(lambda events: events.add_text(name, block, learner_steps))

    def task_pages(self, tasks: Sequence[str]) -> None:
        """Put together what belongs together: a page of charts for each task, under *Custom Scalars*."""
        pages = {
            task: {title: ["Multiline", [f"{name}/{task}$" for name in names]] for title, names in TASK_CHARTS.items()}
            for task in tasks
        }
        self._to_events(lambda events: events.add_custom_scalars(pages))

    def video(self, name: str, path: Path, learner_steps: int) -> None:
        """Show an MP4 as an animation. Raises OSError or ValueError where the file cannot be read."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        data, height, width = animation(path)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        self._to_events(lambda events: events._get_file_writer().add_summary(summary, learner_steps))

    def close(self) -> None:
        """Flush and close both files."""
        if self._events is not None:
            self._to_events(lambda events: events.close())
        self._rows.close()


def read_rows(path: Path) -> list[dict]:
    """Rows of ``metrics.jsonl``; a torn last line, from a run that was killed, is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def animation(path: Path) -> tuple[bytes, int, int]:
    """An MP4 as an animated GIF of about the same duration: (bytes, height, width).

    Written here with Pillow: TensorBoard's own ``add_video`` goes through moviepy, which takes ten times as long. A
    file from which nothing can be read in `VIDEO_DEADLINE_SECONDS` raises ValueError.
    """
    import imageio_ffmpeg
    import numpy as np
    from PIL import Image

    read: list[Any] = []

    def read_all() -> None:
        with contextlib.suppress(OSError, RuntimeError):  # too few pictures say it
            read.extend(imageio_ffmpeg.read_frames(str(path)))

    reading = threading.Thread(target=read_all, name=f"read {path.name}", daemon=True)  # ffmpeg may hang
    reading.start()
    reading.join(VIDEO_DEADLINE_SECONDS)
    if reading.is_alive() or len(read) < 2:
        raise ValueError(f"{path}: no pictures could be read from it within {VIDEO_DEADLINE_SECONDS:g} s")
    information, *frames = read
    width, height = information["size"]
    stride = math.ceil(len(frames) / VIDEO_FRAMES)
    factor = min(1.0, VIDEO_HEIGHT / height)
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    pictures = [
        Image.fromarray(np.frombuffer(frame, np.uint8).reshape(height, width, 3)).resize(size)
        for frame in frames[::stride]
    ]
    milliseconds = max(20, round(1000 * stride / float(information["fps"])))
    buffer = io.BytesIO()
    pictures[0].save(buffer, "GIF", save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0)
    return buffer.getvalue(), size[1], size[0]


def bottleneck(values: Mapping[str, float]) -> str:
    """Who is waited for, in one clause for the console, from the scalars of one point.

    The learner is the bottleneck while it hardly waits for data; else replay's producers are, and among the
    environment actors whatever part of their loop takes longest is named.
    """
    step = values.get("learner/step_ms", math.nan)
    wait = values.get("learner/data_wait_ms", math.nan)
    if not step > 0:
        return "starting: no update yet"
    share = wait / step if wait >= 0 else 0.0
    blocked = _mean(values, "actor/blocked_share/")
    if share <= 0.1:
        clause = f"learner compute ({100 * (1 - share):.0f}% of a step)"
        return clause + (f"; actors are held back {100 * blocked:.0f}% of their time" if blocked > 0.1 else "")
    parts = {part: _mean(values, f"actor/{part}_share/") for part in ("environment", "policy", "writer")}
    part, fraction = max(parts.items(), key=lambda item: item[1])
    actors = f"; environment actors spend {100 * fraction:.0f}% in the {part}" if fraction > 0 else ""
    return f"data (the learner waits {100 * share:.0f}% of a step){actors}"


def _mean(values: Mapping[str, float], prefix: str) -> float:
    found = [value for name, value in values.items() if name.startswith(prefix) and math.isfinite(value)]
    return sum(found) / len(found) if found else 0.0
