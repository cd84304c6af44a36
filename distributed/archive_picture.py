"""TensorBoard of an exploration: scalars against frames, and now and then a picture of the archive."""

from __future__ import annotations

import dataclasses
import sys
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from actors.explorer.explorer import Explorer

SCREENS = 8
_SCALARS = ("cells", "rooms", "best", "scores", "runs", "cpu_seconds")


@dataclasses.dataclass(frozen=True)
class ArchiveView:
    """What a picture needs of an archive.

    Attributes:
        lengths, scores, seen: of its cells, int64 [N].
        screens: of a few cells from the first to the furthest, uint8 [M, 210, 160, 3].
        captions: one for each screen.
        frames: of the explorer at that time.
    """

    lengths: np.ndarray
    scores: np.ndarray
    seen: np.ndarray
    screens: np.ndarray
    captions: tuple[str, ...]
    frames: int


def view_of(explorer: Explorer) -> ArchiveView:
    """The explorer's archive now."""
    arrays = explorer.archive.to_arrays()
    order = np.lexsort((arrays["lengths"], arrays["scores"]))
    shown = order[np.linspace(0, len(order) - 1, min(SCREENS, len(order))).astype(np.int64)].tolist()
    captions = tuple(f"{arrays['scores'][n]:,} points, {arrays['lengths'][n]} steps" for n in shown)
    screens = explorer.screens(shown)
    return ArchiveView(arrays["lengths"], arrays["scores"], arrays["seen"], screens, captions, explorer.progress.frames)


class ExplorationWriter:
    """Appends; a TensorBoard run for each seed, so that their curves lie over each other."""

    def __init__(self, folder: Path, seeds: Sequence[int]) -> None:
        # As in `MetricsWriter`: keeps TensorFlow from being imported.
        sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
        from torch.utils.tensorboard import SummaryWriter

        self._folder = folder
        self._writers = {seed: SummaryWriter(str(folder / f"seed{seed}"), flush_secs=10) for seed in seeds}

    def scalars(self, seed: int, report: Mapping[str, Any], rate: float) -> None:
        """One point of each scalar; nothing before a first report."""
        if not report:
            return
        for name in _SCALARS:
            self._writers[seed].add_scalar(f"explorer/{name}", report[name], report["frames"])
        self._writers[seed].add_scalar("explorer/frames_per_s", rate, report["frames"])

    def picture(self, seed: int, view: ArchiveView) -> None:
        """Into TensorBoard, and the newest as a PNG beside the archive."""
        image = draw(view)
        self._writers[seed].add_image("explorer/archive", image, view.frames, dataformats="HWC")
        from PIL import Image

        path = self._folder.parent / f"seed{seed}" / "archive.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}")
        Image.fromarray(image).save(partial, format="png")
        partial.replace(path)

    def close(self) -> None:
        """Flush."""
        for writer in self._writers.values():
            writer.close()


def draw(view: ArchiveView) -> np.ndarray:
    """Cells by steps and score, coloured by visits, above some of their screens; uint8 [height, width, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6.5), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    rows = figure.add_gridspec(2, max(1, len(view.screens)), height_ratios=(3, 2))
    cells = figure.add_subplot(rows[0, :])
    dots = cells.scatter(view.lengths, view.scores, c=np.log10(view.seen + 1), s=4, cmap="viridis")
    figure.colorbar(dots, ax=cells, label="log10(visits + 1)")
    cells.set_xlabel("steps from the first screen")
    cells.set_ylabel("score")
    cells.set_title(f"{len(view.lengths):,} cells after {view.frames:,} frames")
    for column, (screen, caption) in enumerate(zip(view.screens, view.captions)):
        axis = figure.add_subplot(rows[1, column])
        axis.imshow(screen, aspect=0.7)
        axis.set_title(caption, fontsize=7)
        axis.set_axis_off()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
