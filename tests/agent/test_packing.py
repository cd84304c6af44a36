import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.packing import pack


@given(st.lists(st.integers(1, 32), min_size=1, max_size=60))
def test_segments_never_overlap_or_cross_rows(lengths: list[int]) -> None:
    start, rows = pack(np.array(lengths), 32)
    taken = np.zeros(rows * 32, int)
    for first, length in zip(start, lengths):
        assert first // 32 == (first + length - 1) // 32
        taken[first : first + length] += 1
    assert taken.max() == 1
    assert rows <= 2 * -(-sum(lengths) // 32)


def test_a_segment_longer_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        pack(np.array([3, 33]), 32)
