"""A mask made of RECIST axes, for datasets that have no other: four quarter-ellipses round the crossing of the axes.

MULAN trains on such masks (Yan et al., MULAN: Multitask Universal Lesion Analysis Network, MICCAI 2019;
rsummers11/CADLab, ``MULAN_universal_lesion_analysis/maskrcnn/data/datasets/DeepLesion_utils.py``:
``gen_mask_polygon_from_recist``). Each quarter lies between two ends of different axes, and the lengths from the
crossing to these ends are its half axes.

Where the axes are perpendicular, as nearly all of DeepLesion's are, this is the ellipse of MULAN. Where they are not,
MULAN keeps right-angled quarters, whose arcs miss one of the two ends and jump to it; here the quarter is sheared, so
that its arc passes through both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.recist import Recist

REACH_PX = 1.0
"""How far one axis may end before the other: people draw axes that just do not touch. Six of the 4,889 marks of
DeepLesion's validation split have a wider gap."""

ROUNDING = 1e-9


def pseudo_mask(recist: Recist, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Fill the quarter-ellipses between the ends of both axes.

    Parameters
    ----------
    recist
        Axes on the slice, in pixels.
    shape
        Rows and columns of the slice.

    Returns
    -------
    ndarray
        bool (y, x): True where the centre of the pixel lies inside or on the edge. What leaves the slice is cut off, so
        it may be empty; so it may for a mark smaller than a pixel.

    Raises
    ------
    GeometryError
        Axes without a length, parallel ones, or axes that do not cross.
    """
    crossing, halves = _halves(recist)
    y, x = np.ogrid[: shape[0], : shape[1]]
    dx, dy = x - crossing[0], y - crossing[1]
    ways = [(right[0] - left[0], right[1] - left[1]) for left, right in (halves[:2], halves[2:])]
    turn = ways[0][0] * ways[1][1] - ways[0][1] * ways[1][0]
    along = _over_half((dx * ways[1][1] - dy * ways[1][0]) / turn, halves[0], ways[0])
    across = _over_half((dy * ways[0][0] - dx * ways[0][1]) / turn, halves[2], ways[1])
    return along**2 + across**2 <= 1 + ROUNDING


def _over_half(share: NDArray[np.float64], left: tuple[float, float], way: tuple[float, float]) -> NDArray[np.float64]:
    """Turn parts of an axis, from the crossing on, into parts of that half of it on whose side they are."""
    before = math.hypot(*left) / math.hypot(*way)
    # an axis may end where both cross: there is nothing beyond
    return share / np.where(share < 0, max(before, ROUNDING), max(1 - before, ROUNDING))


def pseudo_outline(recist: Recist, steps: int = 8) -> list[tuple[float, float]]:
    """Give the outline of the quarter-ellipses as a polygon.

    Parameters
    ----------
    recist
        Axes on the slice, in pixels.
    steps
        Edges of each quarter.

    Returns
    -------
    list of tuple
        4 x `steps` points (x, y), from one end of the long axis round to it; pixel centres lie on whole numbers.

    Raises
    ------
    GeometryError
        As `pseudo_mask`.
    """
    (x, y), halves = _halves(recist)
    ends = [halves[number] for number in (1, 3, 0, 2)]
    points = []
    for along, across in zip(ends, [*ends[1:], ends[0]], strict=True):
        for step in range(steps):
            cos, sin = math.cos(step / steps * math.pi / 2), math.sin(step / steps * math.pi / 2)
            points.append((x + cos * along[0] + sin * across[0], y + cos * along[1] + sin * across[1]))
    return points


def extent(recist: Recist) -> tuple[float, float, float, float]:
    """Give the smallest y and x, then the largest, of the quarter-ellipses between the ends of both axes.

    Parameters
    ----------
    recist
        Axes, in pixels.

    Returns
    -------
    tuple of float

    Raises
    ------
    GeometryError
        As `pseudo_mask`.
    """
    (x, y), halves = _halves(recist)
    # of a quarter, u along + v across with u2 + v2 = 1, a coordinate is greatest where both parts add to it
    a, b, c, d = halves
    low, high = (
        [math.hypot(max(a[i] * sign, b[i] * sign, 0.0), max(c[i] * sign, d[i] * sign, 0.0)) for i in (0, 1)]
        for sign in (-1, 1)
    )
    return y - low[1], x - low[0], y + high[1], x + high[0]


def _halves(recist: Recist) -> tuple[tuple[float, float], list[tuple[float, float]]]:
    """Give the crossing of the axes, (x, y), and the way from there to each of the four ends."""
    (ax, ay, bx, by), (cx, cy, dx, dy) = recist.axes
    long, short = (bx - ax, by - ay), (dx - cx, dy - cy)
    lengths = math.hypot(*long), math.hypot(*short)
    turn = long[0] * short[1] - long[1] * short[0]
    if abs(turn) <= ROUNDING * max(lengths) ** 2:
        raise GeometryError(f"{recist}: an axis without a length, or parallel axes; use the lesion's box")
    shares = [((cx - ax) * way[1] - (cy - ay) * way[0]) / turn for way in (short, long)]
    gap = max(max(-share, share - 1) * length for share, length in zip(shares, lengths, strict=True))
    if gap > REACH_PX:
        raise GeometryError(f"{recist}: the axes end {gap:.1f} pixels before they cross; use the lesion's box")
    x, y = ax + shares[0] * long[0], ay + shares[0] * long[1]
    halves = []
    for share, way in zip(shares, (long, short), strict=True):
        inside = min(max(share, 0.0), 1.0)
        halves += [(-inside * way[0], -inside * way[1]), ((1 - inside) * way[0], (1 - inside) * way[1])]
    return (x, y), halves
