"""How an `Episode` becomes one Arrow table of Minari's form, and back, without loss.

A table has T + 1 rows; of actions, rewards and ends the last row is padding, as in Minari. What Minari has no place
for is in its infos, in the row of the step: ``label`` and ``label_mask``. Two departures keep every value exact and
stay readable by Minari itself:

- Minari's own writer stores images of at least 32 x 32 as JPEG, which loses detail; here they are PNG, which its
  reader decodes alike. Images with other than 3 or 4 channels become one plane of height x (width * channels).
- Buffers are compressed (Zstandard), which Arrow readers undo by themselves.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from PIL import Image

from actors.demonstrations.episode import Episode
from agent.task import ArraySpec, TaskSpec

if TYPE_CHECKING:
    from gymnasium import spaces

SMALLEST_IMAGE = 32
"""Minari treats a uint8 array as an image from this height and width on."""


def encode_episode(episode: Episode, task: TaskSpec, index: int) -> pa.RecordBatch:
    """T + 1 rows."""
    rows = episode.length + 1
    columns: dict[str, pa.Array] = {}
    for key, spec in task.observation.items():
        if spec.kind == "text":
            columns[key] = pa.array([episode.texts[key]] * rows)
        else:
            columns[key] = _encode(spec, episode.observation[key])
    infos = {
        "label": _encode(task.action, _padded(episode.label)),
        "label_mask": pa.array(_padded(episode.label_mask)),
    }
    ends = np.zeros((2, rows), bool)
    ends[:, rows - 2] = episode.terminated, episode.truncated
    return pa.RecordBatch.from_pydict(
        {
            "episode_id": pa.array(np.full(rows, index, np.int32)),
            "observations": (
                pa.StructArray.from_arrays(list(columns.values()), names=list(columns))
                if columns
                else pa.array([{}] * rows, type=pa.struct([]))  # nothing is observed
            ),
            "actions": _encode(task.action, _padded(episode.action)),
            "rewards": pa.array(_padded(episode.reward)),
            "terminations": pa.array(ends[0]),
            "truncations": pa.array(ends[1]),
            "infos": pa.StructArray.from_arrays(list(infos.values()), names=list(infos)),
        }
    )


def decode_episode(table: pa.Table, task: TaskSpec, facts: dict[str, Any]) -> Episode:
    """Inverse of `encode_episode`; ``facts`` holds seed, success and noisy. ValueError or KeyError where it misfits."""
    table.validate(full=True)  # else offsets in a damaged file lead beyond its memory
    table = table.combine_chunks()
    observations, infos = (table[name].chunk(0) for name in ("observations", "infos"))
    rows = len(table)
    if rows < 2:
        raise ValueError(f"{rows} rows")
    texts, arrays = {}, {}
    for key, spec in task.observation.items():
        values = observations.field(key)
        if spec.kind == "text":
            texts[key] = values[0].as_py()
            if not isinstance(texts[key], str):
                raise ValueError(f"{key} is {texts[key]!r}, which is no text")
        else:
            arrays[key] = _decode(spec, values)
    column = {name: _flat(table[name].chunk(0)) for name in ("rewards", "terminations", "truncations")}
    if column["rewards"].dtype != np.float32 or not np.isfinite(column["rewards"]).all():
        raise ValueError(f"rewards are {column['rewards'].dtype}, or one is no number")
    return Episode(
        observation=arrays,
        texts=texts,
        action=_decode(task.action, table["actions"].chunk(0))[:-1],
        label=_decode(task.action, infos.field("label"))[:-1],
        label_mask=_flat(infos.field("label_mask"))[:-1],
        reward=column["rewards"][:-1],
        terminated=bool(column["terminations"][-2]),
        truncated=bool(column["truncations"][-2]),
        seed=int(facts["seed"]),
        success=facts["success"],
        noisy=bool(facts["noisy"]),
    )


def minari_spaces(task: TaskSpec) -> tuple[spaces.Dict, spaces.Space]:
    """Observation and action space under which Minari reads the tables."""
    from gymnasium import spaces

    def space(spec: ArraySpec) -> spaces.Space:
        if spec.kind == "text" and spec.shape:
            return spaces.Box(0, 255, spec.shape, np.uint8)
        if spec.kind == "text":
            return spaces.Text(max_length=spec.max_bytes)
        if spec.kind == "image":
            return spaces.Box(0, 255, _plane(spec.shape) if _is_picture(spec) else spec.shape, np.uint8)
        if spec.kind == "continuous":
            return spaces.Box(spec.low, spec.high, spec.shape, np.float32)
        return (
            spaces.MultiDiscrete(np.full(spec.shape, spec.num_values))
            if spec.shape
            else spaces.Discrete(spec.num_values)
        )

    return spaces.Dict({key: space(spec) for key, spec in task.observation.items()}), space(task.action)


def _padded(values: np.ndarray) -> np.ndarray:
    return np.concatenate([values, np.zeros_like(values[:1])])


def _is_picture(spec: ArraySpec) -> bool:
    return spec.kind == "image" and min(_plane(spec.shape)[:2]) >= SMALLEST_IMAGE


def _plane(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of an image as a PNG holds it."""
    height, width, channels = shape
    return shape if channels in (3, 4) else (height, width * channels)


def _encode(spec: ArraySpec, values: np.ndarray) -> pa.Array:
    if _is_picture(spec):
        pictures = []
        for frame in values:
            buffer = io.BytesIO()
            Image.fromarray(frame.reshape(_plane(spec.shape))).save(buffer, format="PNG", compress_level=1)
            pictures.append(buffer.getvalue())
        return pa.array(pictures, type=pa.binary())
    if spec.kind == "discrete" and spec.shape == ():
        return pa.array(values)
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), spec.size)


def _decode(spec: ArraySpec, values: pa.Array) -> np.ndarray:
    shape = (len(values), *spec.shape)
    if _is_picture(spec):
        images = np.empty(shape, np.uint8)
        for row, picture in enumerate(values):
            # Only PNG: a damaged or foreign file must not reach Pillow's many other decoders.
            images[row] = np.asarray(Image.open(io.BytesIO(picture.as_py()), formats=["PNG"])).reshape(spec.shape)
        return images
    flat = _flat(values)
    if flat.dtype != spec.dtype:
        raise ValueError(f"{flat.dtype} where the task says {spec.dtype}")
    if spec.kind == "continuous" and not np.isfinite(flat).all():
        raise ValueError("a value is no number")
    if spec.kind == "discrete" and not ((flat >= 0) & (flat < spec.num_values)).all():
        raise ValueError(f"a discrete value is not in 0 to {spec.num_values - 1}")
    return flat.reshape(shape)


def _flat(values: pa.Array) -> np.ndarray:
    if isinstance(values, pa.FixedSizeListArray):
        values = values.flatten()
    if values.null_count:
        raise ValueError("a value is missing")
    return values.to_numpy(zero_copy_only=False)
