"""Pieces of a slice: pixels that touch each other, found row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


def find_pieces(plane: NDArray[np.bool_], *, diagonal: bool = True) -> list[NDArray[np.bool_]]:
    """Split a slice into pieces whose pixels touch.

    Parameters
    ----------
    plane
        (y, x).
    diagonal
        Pixels touch at their corners too (8 neighbours), not by their sides alone (4).

    Returns
    -------
    list of ndarray
        bool (y, x) each, in the order of their first pixel.
    """
    runs = _runs(plane)
    parents = list(range(len(runs)))
    reach = 1 if diagonal else 0
    row_above: list[int] = []
    row: list[int] = []
    for i, (y, start, stop) in enumerate(runs):
        if row and runs[row[-1]][0] != y:
            row_above, row = (row if runs[row[-1]][0] == y - 1 else []), []
        row.append(i)
        for j in row_above:
            if runs[j][1] < stop + reach and start < runs[j][2] + reach:
                _join(parents, i, j)
    pieces: dict[int, NDArray[np.bool_]] = {}
    for i, (y, start, stop) in enumerate(runs):
        piece = pieces.setdefault(_root(parents, i), np.zeros_like(plane))
        piece[y, start:stop] = True
    return list(pieces.values())


def fill_holes(plane: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Set every pixel that no way along sides of unset pixels leads out of."""
    outside = find_pieces(np.pad(~plane, 1, constant_values=True), diagonal=False)[0]
    return ~outside[1:-1, 1:-1]


def _runs(plane: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """List row, first column and the column after the last of each run of pixels."""
    steps = np.diff(np.pad(plane, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(steps == 1)
    stops = np.nonzero(steps == -1)[1]
    return list(zip(rows.tolist(), starts.tolist(), stops.tolist(), strict=True))


def _join(parents: list[int], one: int, other: int) -> None:
    low, high = sorted((_root(parents, one), _root(parents, other)))
    parents[high] = low


def _root(parents: list[int], one: int) -> int:
    while parents[one] != one:
        parents[one] = parents[parents[one]]
        one = parents[one]
    return one
