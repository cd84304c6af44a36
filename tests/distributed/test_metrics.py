import math
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from actors.video import write_video
from distributed.metrics import MetricsWriter, bottleneck, read_rows


def events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    accumulator = EventAccumulator(str(folder), size_guidance={"images": 0, "tensors": 0})
    accumulator.Reload()
    return accumulator


def write(writer, step, **values):
    writer.scalars(
        {name.replace("__", "/"): value for name, value in values.items()},
        learner_steps=step,
        environment_steps=10 * step,
        wall_seconds=step / 2,
    )


def test_scalars_are_against_learner_steps_and_returns_also_against_environment_steps(tmp_path):
    writer = MetricsWriter(tmp_path / "tensorboard", tmp_path / "metrics.jsonl")
    write(writer, 3, learner__loss=1.5, return__a=7.0, learner__lag=math.nan)
    writer.text("config", "seed: 0\nname: x", 0)
    writer.close()
    read = events(tmp_path / "tensorboard")
    tags = read.Tags()
    assert set(tags["scalars"]) == {"learner/loss", "return/a", "return_by_environment_steps/a"}
    assert read.Scalars("learner/loss")[0].step == 3
    assert read.Scalars("return_by_environment_steps/a")[0].step == 30
    assert "config/text_summary" in tags["tensors"]
    (row,) = read_rows(tmp_path / "metrics.jsonl")
    assert row == {
        "learner_steps": 3,
        "environment_steps": 30,
        "wall_seconds": 1.5,
        "values": {"learner/loss": 1.5, "return/a": 7.0},
    }


def test_each_task_has_a_page_of_charts_that_show_what_belongs_together(tmp_path):
    writer = MetricsWriter(tmp_path / "events", tmp_path / "rows.jsonl")
    writer.task_pages(["a/b", "c/d"])
    writer.scalars({"return/a/b": 1.0}, learner_steps=1, environment_steps=1, wall_seconds=1.0)
    writer.close()
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    tensor = events(tmp_path / "events").Tensors("custom_scalars__config__")[0].tensor_proto
    layout = Layout.FromString(tensor.string_val[0])
    assert [category.title for category in layout.category] == ["a/b", "c/d"]
    tags = [tag for chart in layout.category[0].chart for tag in chart.multiline.tag]
    known = ["demonstrations/return/a/b", "return/a/b", "evaluation/return/a/b", "share/online/a/b"]
    assert all(any(re.fullmatch(tag, name) for tag in tags) for name in known)
    assert not any(re.fullmatch(tag, "return/a/bc") for tag in tags)


def test_a_resumed_run_drops_the_steps_that_come_again(tmp_path):
    rows = tmp_path / "metrics.jsonl"
    writer = MetricsWriter(tmp_path / "tensorboard", rows)
    for step in (1, 2, 3):
        write(writer, step, learner__loss=float(step))
    writer.close()
    with rows.open("a") as file:
        file.write('{"learner_steps": 4, "val')  # torn by a kill
    time.sleep(1.1)  # event files are named by the second
    writer = MetricsWriter(tmp_path / "tensorboard", rows, resumed_from=2)
    write(writer, 3, learner__loss=30.0)
    writer.close()
    assert [(row["learner_steps"], row["values"]["learner/loss"]) for row in read_rows(rows)] == [
        (1, 1.0), (2, 2.0), (3, 30.0),
    ]  # fmt: skip
    assert [each.value for each in events(tmp_path / "tensorboard").Scalars("learner/loss")] == [1.0, 2.0, 30.0]


def test_a_run_resumed_without_a_checkpoint_begins_its_curves_anew(tmp_path):
    rows = tmp_path / "metrics.jsonl"
    for step, resumed_from in ((3, None), (1, -1)):
        time.sleep(1.1)  # event files are named by the second
        writer = MetricsWriter(tmp_path / "tensorboard", rows, resumed_from=resumed_from)
        write(writer, step, learner__loss=float(step))
        writer.close()
    assert [row["learner_steps"] for row in read_rows(rows)] == [1]
    assert [each.step for each in events(tmp_path / "tensorboard").Scalars("learner/loss")] == [1]


def test_a_video_becomes_an_animation(tmp_path):
    frames = [np.full((40, 60, 3), value, np.uint8) for value in range(0, 250, 5)]
    write_video(frames, tmp_path / "a.mp4", fps=25)
    writer = MetricsWriter(tmp_path / "tensorboard", tmp_path / "metrics.jsonl")
    writer.video("video/a", tmp_path / "a.mp4", 9)
    writer.close()
    (tmp_path / "torn.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:200])
    with pytest.raises(ValueError, match=r"torn\.mp4: no pictures"):
        writer.video("video/torn", tmp_path / "torn.mp4", 9)
    (image,) = events(tmp_path / "tensorboard").Images("video/a")
    assert image.step == 9 and image.encoded_image_string[:3] == b"GIF" and image.height == 160


@pytest.mark.parametrize(
    "values, expected",
    [
        ({}, "starting"),
        ({"learner/step_ms": 100.0, "learner/data_wait_ms": 4.0}, "learner compute (96% of a step)"),
        (
            {"learner/step_ms": 100.0, "learner/data_wait_ms": 4.0, "actor/blocked_share/a": 0.5},
            "learner compute (96% of a step); actors are held back 50% of their time",
        ),
        (
            {
                "learner/step_ms": 100.0,
                "learner/data_wait_ms": 60.0,
                "actor/policy_share/a": 0.7,
                "actor/environment_share/a": 0.2,
            },
            "data (the learner waits 60% of a step); environment actors spend 70% in the policy",
        ),
    ],
)
def test_bottleneck_names_who_is_waited_for(values, expected):
    assert bottleneck(values).startswith(expected)


def test_tensorflow_stays_out():
    code = (
        "import sys, pathlib, tempfile; from distributed.metrics import MetricsWriter\n"
        "p = pathlib.Path(tempfile.mkdtemp()); MetricsWriter(p / 'tb', p / 'm.jsonl').close()\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def test_a_full_disk_costs_points_and_nothing_that_was_written(small_disk):
    rows = small_disk / "metrics.jsonl"
    writer = MetricsWriter(small_disk / "tensorboard", rows)
    write(writer, 1, learner__loss=1.0)
    writer._events.flush()
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - 8_000))
    step = 1
    while writer.failures < 3:
        step += 1
        write(writer, step, learner__loss=float(step), **{f"learner__{i}": 0.0 for i in range(100)})
        time.sleep(0.01)  # events are written in a thread
    (small_disk / "filler").unlink()
    time.sleep(1.1)  # event files are named by the second
    write(writer, step + 1, learner__loss=0.5)
    writer.close()
    written = [row["learner_steps"] for row in read_rows(rows)]
    assert written[0] == 1 and written[-1] == step + 1 and len(set(written)) == len(written)
    points = events(small_disk / "tensorboard").Scalars("learner/loss")
    assert (points[0].step, points[0].value) == (1, 1.0) and (points[-1].step, points[-1].value) == (step + 1, 0.5)
    with pytest.MonkeyPatch.context() as patch:  # nothing is lost where a resume finds the disk full
        patch.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            MetricsWriter(small_disk / "tensorboard", rows, resumed_from=1)
    assert [row["learner_steps"] for row in read_rows(rows)] == written


def full(*_):
    raise OSError(28, "No space left on device")
