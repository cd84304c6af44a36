"""Videos as files: whole, or not there."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from actors.video import write_video

FRAMES = np.random.default_rng(0).integers(0, 255, (60, 160, 160, 3), np.uint8)


def test_a_full_disk_leaves_no_torn_video(small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - 8192))
    with pytest.raises(OSError, match="could not be written whole"):
        write_video(FRAMES, small_disk / "episode.mp4")
    assert [path.name for path in small_disk.iterdir()] == ["filler"]
    filler.unlink()
    assert write_video(FRAMES, small_disk / "episode.mp4") == 60
    assert sorted(path.name for path in small_disk.iterdir()) == ["episode.mp4"]
