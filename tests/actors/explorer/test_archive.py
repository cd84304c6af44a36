"""`Archive`, `TrajectoryTree` and `CellKey`: tables of cases."""

import numpy as np
import pytest

from actors.explorer.archive import Archive, Cell
from actors.explorer.cell_key import CellKey
from actors.explorer.emulator import Emulator
from actors.explorer.trajectory_tree import ROOT, TrajectoryTree


def cell(key: bytes, score: int = 0, length: int = 10, node: int = 0) -> Cell:
    return Cell(key, b"state", score, length, node)


def make_archive(*cells: Cell, capacity: int = 100) -> Archive:
    archive = Archive(capacity)
    for each in cells:
        archive.keep(each)
    return archive


@pytest.mark.parametrize(
    ("score", "length", "wanted"),
    [
        (100, 11, False),
        (100, 10, False),
        (100, 9, True),
        (101, 500, True),
        (99, 1, False),
        (-1, 1, False),
    ],
    ids=["longer", "same", "shorter", "more score", "less score", "below 0"],
)
def test_a_known_cell_is_replaced_by_a_better_way(score: int, length: int, wanted: bool) -> None:
    archive = make_archive(cell(b"a", score=100, length=10))
    assert archive.wants(b"a", score, length) is wanted


def test_an_unknown_cell_is_wanted_until_the_archive_is_full() -> None:
    archive = make_archive(cell(b"a"), capacity=2)
    assert archive.wants(b"b", 0, 10)
    assert archive.keep(cell(b"b")) == 1
    assert not archive.wants(b"c", 1_000, 1)
    assert archive.wants(b"b", 1, 10)
    assert archive.keep(cell(b"b", score=1)) == 1
    assert [len(archive), archive.cells[1].score] == [2, 1]


def test_counters() -> None:
    archive = make_archive(cell(b"a"), cell(b"b"), cell(b"c"))
    archive.count({0, 1}, set())
    archive.count({0, 2}, {2})
    assert archive.seen.tolist() == [2, 1, 0]
    archive.count({0, 1}, {0})
    assert archive.seen.tolist() == [0, 2, 0]


def test_selection_follows_the_counters() -> None:
    archive = make_archive(*[cell(bytes([number])) for number in range(100)])
    for _ in range(15):
        archive.count({0}, set())  # weight 1/4, the others 1
    random = np.random.default_rng(0)
    chosen = np.bincount([archive.select(random) for _ in range(40_000)], minlength=100)
    assert 60 < chosen[0] < 145  # 40,000 * 0.25 / 99.25 = 101, plus and minus four standard deviations
    assert chosen[1:].min() > 300


def test_the_tree_gives_whole_ways_back() -> None:
    tree = TrajectoryTree()
    first = tree.add(ROOT, [1, 2])
    second = tree.add(first, [3])
    other = tree.add(first, [])
    assert [tree.path(node).tolist() for node in (ROOT, first, second, other)] == [[], [1, 2], [1, 2, 3], [1, 2]]
    again = TrajectoryTree.from_arrays(tree.to_arrays())
    assert again.path(second).tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="no node 9"):
        tree.add(9, [1])


@pytest.mark.parametrize(
    ("name", "value", "match"),
    [
        ("parents", [0, 2, 1], "trajectories"),
        ("parents", [0, -1, 1], "trajectories"),
        ("ends", [0, 2, 9], "trajectories"),
        ("ends", [0, 3, 2], "trajectories"),
        ("parents", [0], "trajectories"),
    ],
)
def test_a_damaged_tree_is_refused(name: str, value: list[int], match: str) -> None:
    tree = TrajectoryTree()
    tree.add(tree.add(ROOT, [1, 2]), [3])
    with pytest.raises(ValueError, match=match):
        TrajectoryTree.from_arrays(tree.to_arrays() | {name: np.array(value, np.int64)})


def test_the_key_is_the_grey_screen_resized_linearly() -> None:
    game = Emulator("atari/montezuma_revenge")
    key = CellKey()
    for action in np.random.default_rng(0).integers(18, size=40).tolist():
        game.act(action)
        grey = game.see_grey().astype(float)
        expected = []
        for row in range(11):
            y = (row + 0.5) * 210 / 11 - 0.5
            top, down = int(y), y - int(y)
            for column in range(8):
                x = (column + 0.5) * 160 / 8 - 0.5
                left, across = int(x), x - int(x)
                rows = grey[top : top + 2, left : left + 2]
                value = np.array([1 - down, down]) @ rows @ np.array([1 - across, across])
                expected.append(int((value + 0.5) // 32))
        assert list(key(game.see(), game.see_grey)) == expected


def test_the_key_does_not_depend_on_what_was_seen_before() -> None:
    game, old = Emulator("atari/pitfall"), CellKey()
    for action in np.random.default_rng(1).integers(18, size=100).tolist():
        game.act(action)
        found = old(game.see(), game.see_grey)
    assert found == CellKey()(game.see(), game.see_grey)
    assert old.picture(found).shape == (11, 8)


@pytest.mark.parametrize("sizes", [(0, 11, 8), (8, 211, 8), (8, 11, 1), (8, 11, 257)])
def test_impossible_keys_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="a key is at most"):
        CellKey(*sizes)
