"""Lesions measured as the scripts of recist-dataset do, errors included, to compare with its published tables.

The rules of ``utils/diameters.py`` and ``compute_lesions_features.py`` of robertorojasp06/recist-dataset. What differs
from `lesionzarr.features.measure`:

- a rectangle is laid round the centres of the pixels, so it is about a pixel too short, and a single pixel is left out;
- its sides are multiplied by the spacing of the rows, also where columns have another;
- the word ``"sum"`` leaves them in pixels;
- an ellipse takes its pixels for points, and has no length on a single one;
- of equally long slices the lowest counts, whatever its short axis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError, SettingError, not_found
from lesionzarr.features._hull import hull_of_centres
from lesionzarr.features._pieces import fill_holes, find_pieces
from lesionzarr.features.axes import Axes, ellipse_axes, smallest_rectangle
from lesionzarr.features.measure import (
    JOIN,
    LARGEST_AREA,
    SUM,
    UNCONNECTED,
    Measurement,
    check_mask,
    describe_lesion,
    measure_plane,
)
from lesionzarr.recist import Recist

if TYPE_CHECKING:
    from numpy.typing import NDArray

OBB, ELLIPSE = "obb", "ellipse"
"""Upstream's words for the rectangle of the smallest area (oriented bounding box), and for the second moments."""


def measure_as_upstream(
    mask: NDArray[np.bool_],
    hu: NDArray[Any] | None,
    spacing_mm: tuple[float | None, float, float],
    *,
    method: str = OBB,
    unconnected: str = LARGEST_AREA,
) -> Measurement:
    """Measure one lesion as upstream.

    Parameters
    ----------
    mask, hu, spacing_mm
        As of `lesionzarr.features.measure.measure_mask`.
    method
        ``"obb"`` or ``"ellipse"``.
    unconnected
        What to do with several pieces on one slice, see `lesionzarr.features.measure.UNCONNECTED`.

    Returns
    -------
    Measurement
        The RECIST axes in pixels are those that were measured, the lengths what upstream makes of them.

    Raises
    ------
    GeometryError
        As `measure_mask`, and where upstream fails too: no slice has two pixels that touch.
    NotFoundError
        No such method or word for unconnected pieces.
    SettingError
        ``"join"`` with ``"ellipse"``, which upstream refuses.
    """
    box = check_mask(mask, hu, spacing_mm)
    if method not in (OBB, ELLIPSE):
        raise not_found("method", method, (OBB, ELLIPSE))
    if unconnected not in UNCONNECTED:
        raise not_found("way with unconnected pieces", unconnected, UNCONNECTED)
    if (method, unconnected) == (ELLIPSE, JOIN):
        raise SettingError("upstream has no ellipse of joined pieces: choose largest-area, or method 'obb'")
    in_plane = (float(spacing_mm[1]), float(spacing_mm[2]))
    rows = [int(z) for z in np.flatnonzero(mask.any(axis=(1, 2)))]
    if method == ELLIPSE:
        axes: dict[int, Axes] = {
            z: measure_plane(mask[z], lambda piece: ellipse_axes(piece, in_plane, pixel_size=False), unconnected)
            for z in rows
        }
    else:
        found = {z: _rectangle(mask[z], in_plane[0], unconnected) for z in rows}
        axes = {z: one for z, one in found.items() if one is not None}
    if not axes:
        raise GeometryError("a lesion of single pixels: upstream has no contour to measure; use measure_mask")
    longest = max(axes, key=lambda z: (axes[z].long_mm, -z))
    return describe_lesion(mask, hu, spacing_mm, box, {longest: axes[longest]}, (method, unconnected))


def _rectangle(plane: NDArray[np.bool_], row_mm: float, unconnected: str) -> Axes | None:
    # OpenCV's outer contours are those of the pieces with their holes filled, from the last row to the first; of equal
    # ones the first counts
    pieces = [piece for piece in reversed(find_pieces(fill_holes(plane))) if np.count_nonzero(piece) > 1]
    if not pieces:
        return None
    if unconnected == JOIN:
        return _round_centres(np.logical_or.reduce(pieces), row_mm)
    if unconnected == LARGEST_AREA:
        return _round_centres(max(pieces, key=_contour_area), row_mm)
    measured = [_round_centres(piece, row_mm) for piece in pieces]
    if unconnected == SUM:
        return Axes(
            sum(axes.long_mm for axes in measured) / row_mm, sum(axes.short_mm for axes in measured) / row_mm, None
        )
    return max(measured, key=lambda axes: axes.long_mm)


def _round_centres(piece: NDArray[np.bool_], row_mm: float) -> Axes:
    long, short = smallest_rectangle(hull_of_centres(piece))
    lengths = [float(np.hypot(*(end - start))) * row_mm for start, end in (long, short)]
    return Axes(lengths[0], lengths[1], Recist(*np.concatenate([long, short])[:, ::-1].ravel().tolist()))


def _contour_area(piece: NDArray[np.bool_]) -> float:
    """Give the area of the polygon through the centres of the outer pixels of a piece without holes."""
    square = np.lib.stride_tricks.sliding_window_view(np.pad(piece, 1), (2, 2)).sum(axis=(2, 3))
    return float(np.count_nonzero(square == 4) + np.count_nonzero(square == 3) / 2)
