"""The longest distance of two points of a surface, exactly, without looking at all pairs of its points.

Both ends of the longest line are corners of the convex hull. Points are therefore dropped that lie between others of
their plane: first all but the ends of each row, then, as often as any is left, those behind the line that joins the
rows before and after. What remains are hardly more than the corners of the planes, and all pairs of these are measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features._bulk import Bulk, Floats, Ints

SIDES = ((1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1))
"""Surfaces cut the way to a neighbour that is outside in its middle."""

ROUNDING = 1e-9


def diameters(bulk: Bulk, spacing: Floats) -> Floats:
    """Measure the longest distance of two points where the surface cuts the way between voxel centres.

    Parameters
    ----------
    bulk
        The regions.
    spacing
        (lesion, 3), in mm; 0 along z for regions of one slice.

    Returns
    -------
    ndarray
        float64 (lesion,), in mm; NaN where the slice interval is unknown.
    """
    inside = np.zeros(bulk.size, dtype=np.bool_)
    inside[bulk.index] = True
    found, owners = [], []
    for side in SIDES:
        outer = np.flatnonzero(~inside[bulk.index + bulk.steps(side)])
        points, owner = 2 * bulk.place[outer] + np.array(side), bulk.owner[outer]
        if side[0]:
            # of one slice these lie in no plane of their own
            solid = ~bulk.is_plane[owner]
            points, owner = points[solid], owner[solid]
        corners = np.concatenate([_chain(points, owner, last=last) for last in (False, True)])
        found.append(points[corners])
        owners.append(owner[corners])
    points, owner = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    ends = np.cumsum(np.bincount(owner, minlength=bulk.lesions))[:-1]
    parts = np.split(points[order] * (spacing[owner[order]] / 2), ends)
    return np.array([_longest(part) for part in parts])


def _chain(points: NDArray[Any], owner: Ints, *, last: bool) -> Ints:
    """Give the numbers of the points that are first, or last, in their row and not behind those of the rows around."""
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    z, y, x = points.T
    # points come in the order of lesions, planes, rows
    change = np.flatnonzero((np.diff(owner) != 0) | (np.diff(z) != 0) | (np.diff(y) != 0))
    kept = np.append(change, len(points) - 1) if last else np.append(0, change + 1)
    sign = 1 if last else -1
    while len(kept) > 2:
        a, b, c = kept[:-2], kept[1:-1], kept[2:]
        same = (owner[a] == owner[c]) & (z[a] == z[c])
        behind = (x[b] - x[a]) * (y[c] - y[a]) * sign <= (x[c] - x[a]) * (y[b] - y[a]) * sign
        drop = same & behind
        if not drop.any():
            break
        kept = np.concatenate([kept[:1], b[~drop], kept[-1:]])
    return kept


def _longest(points: Floats) -> float:
    if not np.isfinite(points).all():
        return float("nan")
    centred = points - (points.min(axis=0) + points.max(axis=0)) / 2
    reach = np.linalg.norm(centred, axis=1)
    # any long line will do: there and back from the point farthest out
    there = _farthest(centred, int(reach.argmax()))
    least = np.linalg.norm(centred[there] - centred[_farthest(centred, there)])
    # no line from a point is longer than its reach and the longest reach together
    points = points[reach + reach.max() >= least * (1 - ROUNDING)]
    centred = points - points.mean(axis=0)
    squares = (centred**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2 * (centred @ centred.T)
    a, b = divmod(int(distances.argmax()), len(points))
    return float(np.linalg.norm(points[a] - points[b]))


def _farthest(points: Floats, of: int) -> int:
    return int(((points - points[of]) ** 2).sum(axis=1).argmax())
