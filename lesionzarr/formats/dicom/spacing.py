"""Which slices lie evenly: positions along a series cut into runs of one spacing."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOLERANCE_MM = 0.051
"""How far a slice may lie off the even grid of its run, at the least: scanners round positions to 0.1 mm."""
TOLERANCE_RATIO = 0.01
"""The same as a part of the spacing, for thick slices."""
MOST_RATIO = 0.25
"""And at the most, so that a rounding never hides a missing thin slice."""
SAME_MM = 0.01
"""Slices nearer than this along the normal are at one position."""


def even_runs(positions: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Cut ordered positions into runs of even spacing.

    A run is a straight line of equal steps: every position lies within ``max(0.051 mm, 1 % of the step)`` of the grid
    from the first to the last of the run (and within a quarter of a step). A slice between two runs belongs to the one
    with more slices, of equal ones to that with the smaller step; so a missing slice makes two runs of its neighbours,
    and one slice that lies apart is a run of its own.

    Parameters
    ----------
    positions
        Shape (slices, coordinates), mm, ordered along the normal.

    Returns
    -------
    list of (int, int)
        First slice, and the one after the last, of each run; together they hold every slice once.
    """
    count = len(positions)
    if count == 1:
        return [(0, 1)]
    pieces = _pieces(positions)
    steps = [float(np.linalg.norm(positions[b] - positions[a])) / (b - a) for a, b in pieces]
    rank = [(b - a, -step) for (a, b), step in zip(pieces, steps, strict=True)]
    # where the slice at the end of piece i goes: True to the piece before it
    before = [rank[i] >= rank[i + 1] for i in range(len(pieces) - 1)]
    starts = [a + 1 if i and before[i - 1] else a for i, (a, _) in enumerate(pieces)]
    stops = [b + 1 if i == len(before) or before[i] else b for i, (_, b) in enumerate(pieces)]
    return [(start, stop) for start, stop in zip(starts, stops, strict=True) if start < stop]


def mean_step(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Give the step of an even run, from its two ends: shape (coordinates,), mm."""
    step: NDArray[np.float64] = (positions[-1] - positions[0]) / (len(positions) - 1)
    return step


def _pieces(positions: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Cut into longest even pieces, first and last slice of each; neighbours share a slice."""
    pieces, start = [], 0
    while start < len(positions) - 1:
        end = start + 1
        while end + 1 < len(positions) and _is_even(positions[start : end + 2]):
            end += 1
        pieces.append((start, end))
        start = end
    return pieces


def _is_even(positions: NDArray[np.float64]) -> bool:
    step = mean_step(positions)
    size = float(np.linalg.norm(step))
    tolerance = min(max(TOLERANCE_MM, TOLERANCE_RATIO * size), MOST_RATIO * size)
    off = positions - positions[0] - np.arange(len(positions))[:, None] * step
    return float(np.linalg.norm(off, axis=1).max()) <= tolerance


def same_places(distances: NDArray[np.float64]) -> NDArray[np.int64]:
    """Give a number to each place of ordered distances: slices within `SAME_MM` of the one before have its number."""
    return np.concatenate([[0], np.cumsum(np.diff(distances) > SAME_MM)]).astype(np.int64)
