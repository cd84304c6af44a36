"""Several crops in one row: where each goes, so that a row of fixed length holds as many as fit."""

from __future__ import annotations

import numpy as np


def pack(lengths: np.ndarray, row_length: int) -> tuple[np.ndarray, int]:
    """Place segments into rows, longest first, each into the first row with room.

    Args:
        lengths: int [m], positions of each segment, at most ``row_length``.
        row_length: positions of a row.

    Returns:
        int64 [m], first position of each segment in the rows laid end to end; and the number of rows.
    """
    if len(lengths) and lengths.max() > row_length:
        raise ValueError(f"a segment of {lengths.max()} positions does not fit rows of {row_length}")
    start = np.zeros(len(lengths), np.int64)
    used: list[int] = []
    first_open: dict[int, int] = {}
    for index in np.argsort(-lengths, kind="stable"):
        length = int(lengths[index])
        # Segments come longest first: a row that had no room for this length never has again for the same length.
        row = first_open.get(length, 0)
        while row < len(used) and used[row] + length > row_length:
            row += 1
        first_open[length] = row
        if row == len(used):
            used.append(0)
        start[index] = row * row_length + used[row]
        used[row] += length
    return start, len(used)
