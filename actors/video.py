"""Videos of episodes, as MP4."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from actors.environments.vector_environment import VectorEnvironment
from actors.evaluator import with_slots

if TYPE_CHECKING:
    from agent.policy import Policy

LEAST_HEIGHT = 160
"""Smaller pictures are enlarged by a whole factor: players show a grid world of 64 pixels as a stamp."""


def record_video(
    policy: Policy, environment: VectorEnvironment, seed: int, path: str | Path, fps: int = 30, max_steps: int = 1000
) -> int:
    """Play one episode (``seed``, at most ``max_steps`` steps) and write it as H.264; returns the number of frames."""
    return write_video(episode_frames(policy, environment, seed, max_steps), path, fps)


def episode_frames(
    policy: Policy, environment: VectorEnvironment, seed: int, max_steps: int = 1000
) -> Iterator[np.ndarray]:
    """Pictures of one episode in slot 0, uint8 [height, width, 3]: after the reset, then after each step."""
    num_envs = environment.num_envs
    observation = environment.reset(range(num_envs), [seed + slot for slot in range(num_envs)])
    is_first = np.ones(num_envs, bool)
    yield environment.render(0)
    for _ in range(max_steps):
        step = environment.step(policy.act(observation, is_first).action)
        yield environment.render(0)
        if step.done[0]:
            return
        observation, is_first = step.observation, step.done.copy()
        if is_first.any():
            ended = np.flatnonzero(is_first).tolist()
            observation = with_slots(observation, ended, environment.reset(ended, [seed + slot for slot in ended]))


def write_video(frames: Iterable[np.ndarray], path: str | Path, fps: int = 30) -> int:
    """Write uint8 [height, width, 3] pictures as H.264; the file appears only when whole. Returns their number.

    Raises:
        ValueError: there is none.
        OSError: the file could not be written, as on a full disk, which ffmpeg does not tell.
    """
    import imageio_ffmpeg

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.mp4")
    writer, count = None, 0
    try:
        for frame in frames:
            frame = _playable(frame)
            if writer is None:
                size = (frame.shape[1], frame.shape[0])
                writer = imageio_ffmpeg.write_frames(str(partial), size, fps=fps, macro_block_size=2, ffmpeg_timeout=60)
                writer.send(None)
            writer.send(np.ascontiguousarray(frame))
            count += 1
    finally:
        if writer is not None:
            writer.close()
    if not count:
        raise ValueError(f"{path}: no frames to write")
    if "moov" not in _boxes(partial):
        partial.unlink()
        raise OSError(f"{path} could not be written whole; is the disk full?")
    os.replace(partial, path)
    return count


def _boxes(path: Path) -> list[str]:
    """Types of the outermost boxes of an MP4 file; the table of its pictures, ``moov``, is written last."""
    found, data = [], path.read_bytes()
    while len(data) >= 8 and 8 <= (size := int.from_bytes(data[:4], "big")) <= len(data):
        found.append(data[4:8].decode("latin-1"))
        data = data[size:]
    return found


def _playable(frame: np.ndarray) -> np.ndarray:
    """Enlarged where tiny, and of even height and width, as the usual pixel format of H.264 needs."""
    factor = -(-LEAST_HEIGHT // frame.shape[0])
    frame = frame.repeat(factor, axis=0).repeat(factor, axis=1)
    return np.pad(frame, ((0, frame.shape[0] % 2), (0, frame.shape[1] % 2), (0, 0)), mode="edge")
