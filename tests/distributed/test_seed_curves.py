"""The picture of several seeds: what it reads of a run, the mean it draws, and that it is written."""

from pathlib import Path

import pytest
from PIL import Image

from distributed.metrics import MetricsWriter, read_rows
from distributed.seed_curves import Panel, draw, mean_curve, scalar_by_update


def test_a_scalar_of_a_run_is_its_mean_over_the_updates_before_each_point(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "tensorboard", tmp_path / "metrics.jsonl")
    for step, value in ((0, 1.0), (50, 3.0), (100, 5.0), (101, 7.0)):
        writer.scalars({"return/a": value}, learner_steps=step, environment_steps=step, wall_seconds=1.0)
    writer.close()
    rows = read_rows(tmp_path / "metrics.jsonl")
    assert scalar_by_update(rows, "return/a", 100) == {100.0: 3.0, 200.0: 7.0}
    assert scalar_by_update(rows, "return/b", 100) == {}


def test_the_mean_is_where_all_seeds_have_been_measured_in_between_too() -> None:
    curves = [{1.0: 0.0, 3.0: 2.0, 5.0: 4.0}, {2.0: 5.0, 4.0: 7.0}, {}]
    assert mean_curve(curves) == pytest.approx({2.0: 3.0, 3.0: 4.0, 4.0: 5.0})
    assert mean_curve([{}]) == {} == mean_curve([])


@pytest.mark.parametrize("panels, size", [(1, (500, 360)), (4, (1500, 720))])
def test_a_panel_a_task_three_beside_each_other(panels: int, size: tuple[int, int], tmp_path: Path) -> None:
    panel = Panel("a task", ("updates", "return"), {"ours": [{1.0: 2.0, 2.0: 3.0}], "none": [{}]}, {"asked": 4.0})
    draw([panel] * panels, tmp_path / "new" / "curves.png")
    with Image.open(tmp_path / "new" / "curves.png") as picture:
        assert picture.size == size
        assert len(picture.convert("L").getcolors() or ()) > 2  # more than an empty page
