"""Convex hulls of the pixels of a slice, in whole numbers, so that no rounding decides what lies on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

CORNER = -0.5
"""What to add to the number of a corner for its place in pixels: corner 0 lies before pixel 0."""


def hull_of_corners(plane: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give the convex hull of the corners of all pixels of a slice.

    Parameters
    ----------
    plane
        (y, x), at least one True.

    Returns
    -------
    ndarray
        int64 (vertices, 2): (y, x) in numbers of corners, in order along the hull.
    """
    rows, first, last = _extents(plane)
    above = np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last + 1], axis=1)])
    return convex_hull(np.concatenate([above, above + np.array([1, 0])]))


def hull_of_centres(plane: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Give the convex hull of the centres of all pixels of a slice, as `hull_of_corners`; (y, x) in pixels."""
    rows, first, last = _extents(plane)
    return convex_hull(np.concatenate([np.stack([rows, first], axis=1), np.stack([rows, last], axis=1)]))


def convex_hull(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the vertices of the convex hull of points, without those that lie on a side.

    Andrew's monotone chain (Andrew, Another efficient algorithm for convex hulls in two dimensions, Information
    Processing Letters 9, 1979).

    Parameters
    ----------
    points
        int64 (points, 2), at least one.

    Returns
    -------
    ndarray
        int64 (vertices, 2), in order along the hull; one or two vertices where all points are one or lie on a line.
    """
    ordered = [(int(y), int(x)) for y, x in np.unique(points, axis=0)]
    if len(ordered) < 3:
        return np.array(ordered, dtype=np.int64)
    return np.array(_chain(ordered)[:-1] + _chain(reversed(ordered))[:-1], dtype=np.int64)


def _chain(ordered: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    chain: list[tuple[int, int]] = []
    for y, x in ordered:
        while len(chain) > 1:
            (ay, ax), (by, bx) = chain[-2:]
            if (by - ay) * (x - ax) > (bx - ax) * (y - ay):
                break
            chain.pop()
        chain.append((y, x))
    return chain


def _extents(plane: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Give the rows that have pixels, and the first and the last column of each."""
    rows = np.flatnonzero(plane.any(axis=1))
    first = plane[rows].argmax(axis=1)
    last = plane.shape[1] - 1 - plane[rows, ::-1].argmax(axis=1)
    return rows, first, last
