"""Long and short axis of a lesion on one slice, by three methods.

A lesion is the union of its pixels, each a rectangle of the pixel's size; a single pixel has a length. The axes are
those of that union:

- `feret_axes`: the longest distance of two of its points (maximum Feret diameter), and the longest line perpendicular
  to it in its convex hull, which is how RECIST 1.1 has both axes drawn (Eisenhauer et al., European Journal of Cancer
  45, 2009, section 3.1);
- `ellipse_axes`: the axes of the ellipse that has the same second moments;
- `rectangle_axes`: the sides of the smallest rectangle round it, which has a side along one of the hull's
  (Freeman and Shapira, Communications of the ACM 18, 1975).

On ellipses of 8 to 50 pixels both Feret axes come out 0.8 pixels longer than the ellipse was drawn, because the
outermost pixels count whole; those between the centres of pixels would be 0.5 too short. The axes by moments are right
to 0.1 pixels on average, but know ellipses alone. The rectangle turns to where its area is the smallest, and its long
side may miss the longest diameter by some pixels.

Distances are in mm, also of pixels that are not square. None of the axes is sampled: hulls have whole numbers for
corners, and every pair of vertices, or every side, is looked at.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.features._hull import CORNER, hull_of_corners
from lesionzarr.recist import Recist

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

TIE = 1e-9
"""Share by which two lengths or areas may differ and still count as equal, where rounding separates them."""


@dataclass(frozen=True)
class Axes:
    """Long and short axis on one slice."""

    long_mm: float
    short_mm: float
    recist: Recist | None
    """End points in pixels; None for a length that no one line has, such as a sum."""


def feret_axes(plane: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Axes:
    """Measure the maximum Feret diameter, and the longest perpendicular in the convex hull.

    Parameters
    ----------
    plane
        (y, x), at least one True.
    spacing_mm
        Distance of neighbouring pixels along (y, x).

    Returns
    -------
    Axes
        Of several longest diameters, the one with the longest perpendicular. Both axes cross; they are perpendicular in
        mm, so not in pixels that are not square.
    """
    hull = hull_of_corners(plane)
    dy, dx = np.moveaxis(hull[:, None] - hull[None], -1, 0)
    # squares of whole numbers times the spacing: mirrored pairs come out equal to the last bit
    squares = (dy * spacing_mm[0]) ** 2 + (dx * spacing_mm[1]) ** 2
    pairs = np.argwhere(np.triu(squares == squares.max()))
    candidates = [_feret(hull * np.array(spacing_mm), int(a), int(b)) for a, b in pairs]
    long, short = max(candidates, key=lambda pair: _length(pair[1]))
    return _axes(long, short, spacing_mm, CORNER)


def ellipse_axes(plane: NDArray[np.bool_], spacing_mm: tuple[float, float], *, pixel_size: bool = True) -> Axes:
    """Measure the ellipse with the same second moments.

    Parameters
    ----------
    plane
        (y, x), at least one True.
    spacing_mm
        Distance of neighbouring pixels along (y, x).
    pixel_size
        Each pixel is a rectangle, whose own second moments count; else a point in its centre, as scikit-image has it.

    Returns
    -------
    Axes
        Of a circle, the long axis runs as the eigenvectors happen to.
    """
    places = np.argwhere(plane) * np.array(spacing_mm)
    centre = places.mean(axis=0)
    offsets = places - centre
    moments = offsets.T @ offsets / len(places)
    if pixel_size:
        moments += np.diag(np.square(spacing_mm)) / 12
    values, vectors = np.linalg.eigh(moments)
    # a uniform ellipse has a quarter of its squared half axis as variance
    halves = 2 * np.sqrt(np.clip(values, 0, None)) * vectors
    short, long = (np.stack([centre - half, centre + half]) for half in halves.T)
    return _axes(long, short, spacing_mm, 0.0)


def rectangle_axes(plane: NDArray[np.bool_], spacing_mm: tuple[float, float]) -> Axes:
    """Measure the rectangle of the smallest area round the pixels.

    Parameters
    ----------
    plane
        (y, x), at least one True.
    spacing_mm
        Distance of neighbouring pixels along (y, x).

    Returns
    -------
    Axes
        The lengths of its sides, drawn through its middle. Of several rectangles of the same area, the longest.
    """
    long, short = smallest_rectangle(hull_of_corners(plane) * np.array(spacing_mm))
    return _axes(long, short, spacing_mm, CORNER)


METHODS: dict[str, Callable[[NDArray[np.bool_], tuple[float, float]], Axes]] = {
    "feret": feret_axes,
    "ellipse": ellipse_axes,
    "rectangle": rectangle_axes,
}
"""How to measure both axes, by the name of the method."""


def smallest_rectangle(hull: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the middle lines of the smallest rectangle round a convex polygon.

    Parameters
    ----------
    hull
        (vertices, 2), in order along the polygon.

    Returns
    -------
    ndarray, ndarray
        float64 (2, 2): both ends of the middle line along the longer side, then of that along the shorter.
    """
    if len(hull) == 1:
        point = np.repeat(hull.astype(np.float64), 2, axis=0)
        return point, point
    sides = np.roll(hull, -1, axis=0) - hull
    along = sides / np.hypot(*sides.T)[:, None]
    across = along[:, ::-1] * [-1, 1]
    spans = np.stack([hull @ along.T, hull @ across.T])
    low, high = spans.min(axis=1), spans.max(axis=1)
    lengths = high - low
    areas = lengths.prod(axis=0)
    smallest = np.flatnonzero(areas <= areas.min() * (1 + TIE))
    side = smallest[lengths[:, smallest].max(axis=0).argmax()]
    directions = np.stack([along[side], across[side]])
    middle = (low[:, side] + high[:, side]) / 2 @ directions
    lines = [np.stack([middle - half, middle + half]) for half in directions * lengths[:, side][:, None] / 2]
    first, second = lines if lengths[0, side] >= lengths[1, side] else reversed(lines)
    return first, second


def _feret(hull_mm: NDArray[np.float64], a: int, b: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the diameter between two vertices, and the longest perpendicular to it in the hull."""
    start, end = hull_mm[a], hull_mm[b]
    length = float(np.hypot(*(end - start)))
    along = (end - start) / length
    across = along[::-1] * [-1, 1]
    # both ends are the only vertices that lie farthest along the diameter, so each chain runs one way
    chains = [hull_mm[a : b + 1] - start, np.concatenate([hull_mm[b:], hull_mm[: a + 1]])[::-1] - start]
    knots = np.unique(np.concatenate([chain @ along for chain in chains]))
    sides = [np.interp(knots, chain @ along, chain @ across) for chain in chains]
    widths = np.abs(sides[0] - sides[1])
    widest = knots[widths >= widths.max() * (1 - TIE)]
    # between two widest places it is as wide, because the hull is convex
    place = np.clip(length / 2, widest.min(), widest.max())
    ends = [np.interp(place, chain @ along, chain @ across) for chain in chains]
    short = np.stack([start + place * along + reach * across for reach in ends])
    return np.stack([start, end]), short


def _length(line: NDArray[np.float64]) -> float:
    return math.dist(*line.tolist())


def _axes(
    long: NDArray[np.float64], short: NDArray[np.float64], spacing_mm: tuple[float, float], offset: float
) -> Axes:
    ends = np.concatenate([long, short]) / np.array(spacing_mm) + offset
    return Axes(_length(long), _length(short), Recist(*ends[:, ::-1].ravel().tolist()))
