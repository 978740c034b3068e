"""Lesions measured on their masks: volume, density, extent, and both axes on the slice that RECIST 1.1 takes.

Arrays in, values out. RECIST 1.1 takes the longest diameter in the plane of acquisition, and for a lymph node the
longest perpendicular to it on the same slice (Eisenhauer et al., European Journal of Cancer 45, 2009, section 3.1).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError, not_found
from lesionzarr.features._pieces import find_pieces
from lesionzarr.features.axes import METHODS, TIE, Axes
from lesionzarr.geometry import Box

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from lesionzarr.recist import Recist

JOIN, LARGEST_AREA, LARGEST_MEASUREMENT, SUM = "join", "largest-area", "largest-measurement", "sum"
UNCONNECTED = (JOIN, LARGEST_AREA, LARGEST_MEASUREMENT, SUM)
"""What to measure where a lesion lies in several pieces on one slice: all of them as one; the piece with the most
pixels, or with the longest axis, the first of equal ones; or each alone, and the lengths added, as RECIST 1.1 does for
a lesion that has fragmented. The words are those of recist-dataset."""


@dataclass(frozen=True)
class Measurement:
    """Size, density and place of one lesion; indices (z, y, x) of the array that was measured."""

    voxels: int
    volume_ml: float | None
    """None where the slice interval is unknown."""
    slices: int
    """Slices with at least one voxel; those between them may have none."""
    mean_hu: float | None
    """None where no densities were given."""
    std_hu: float | None
    """Of all voxels, not of a sample: divided by their number."""
    box: Box
    """First and last voxel along each axis, both inclusive."""
    key_z: int
    """Slice with the longest long axis; of equal ones that with the longest short axis, of these the lowest."""
    long_mm: float
    short_mm: float
    """On the slice of the long axis; the longest on any slice may be longer."""
    recist: Recist | None
    """Both axes on that slice, in pixels; None where the lengths are sums."""
    method: str
    unconnected: str

    def diameter_mm(self, *, node: bool) -> float:
        """Give what RECIST 1.1 adds up: the short axis of a lymph node, the long one of all else."""
        return self.short_mm if node else self.long_mm


def measure_mask(
    mask: NDArray[np.bool_],
    hu: NDArray[Any] | None,
    spacing_mm: tuple[float | None, float, float],
    *,
    method: str = "feret",
    unconnected: str = JOIN,
) -> Measurement:
    """Measure one lesion.

    Parameters
    ----------
    mask
        bool (z, y, x): the voxels of the lesion.
    hu
        Densities in HU, of the same shape; None where they are not wanted.
    spacing_mm
        Distance of neighbouring voxels along (z, y, x); None for a slice interval that is unknown.
    method
        ``"feret"``, ``"ellipse"`` or ``"rectangle"``, see `lesionzarr.features.axes`.
    unconnected
        What to do with several pieces on one slice, see `UNCONNECTED`.

    Returns
    -------
    Measurement

    Raises
    ------
    GeometryError
        A mask without voxels or that is no volume, densities of another shape, a spacing that cannot be.
    NotFoundError
        No such method or word for unconnected pieces.
    """
    box = check_mask(mask, hu, spacing_mm)
    axes = measure_slices(mask, spacing_mm, method=method, unconnected=unconnected)
    return describe_lesion(mask, hu, spacing_mm, box, axes, (method, unconnected))


def measure_slices(
    mask: NDArray[np.bool_],
    spacing_mm: tuple[float | None, float, float],
    *,
    method: str = "feret",
    unconnected: str = JOIN,
) -> dict[int, Axes]:
    """Measure both axes of a lesion on every slice that it lies on.

    Parameters
    ----------
    mask, spacing_mm, method, unconnected
        As of `measure_mask`.

    Returns
    -------
    dict of int to Axes
        By row along z, ascending; end points in pixels of the slice.

    Raises
    ------
    GeometryError, NotFoundError
        As `measure_mask`.
    """
    box = check_mask(mask, None, spacing_mm)
    if method not in METHODS:
        raise not_found("method", method, METHODS)
    if unconnected not in UNCONNECTED:
        raise not_found("way with unconnected pieces", unconnected, UNCONNECTED)
    y, x = int(box.y0), int(box.x0)
    cut = mask[:, y : int(box.y1) + 1, x : int(box.x1) + 1]
    in_plane = (float(spacing_mm[1]), float(spacing_mm[2]))
    found = {
        int(z): measure_plane(cut[z], lambda piece: METHODS[method](piece, in_plane), unconnected)
        for z in np.flatnonzero(cut.any(axis=(1, 2)))
    }
    return {z: replace(axes, recist=axes.recist and axes.recist.shift(y, x)) for z, axes in found.items()}


def measure_plane(plane: NDArray[np.bool_], measure: Callable[[NDArray[np.bool_]], Axes], unconnected: str) -> Axes:
    """Measure one slice, with one of the ways for several pieces; see `UNCONNECTED`."""
    if unconnected == JOIN:
        return measure(plane)
    pieces = find_pieces(plane)
    if unconnected == LARGEST_AREA:
        return measure(max(pieces, key=np.count_nonzero))
    measured = [measure(piece) for piece in pieces]
    if unconnected == LARGEST_MEASUREMENT or len(measured) == 1:
        return max(measured, key=lambda axes: axes.long_mm)
    return Axes(sum(axes.long_mm for axes in measured), sum(axes.short_mm for axes in measured), None)


def choose_slice(axes: Mapping[int, Axes]) -> int:
    """Give the slice that RECIST 1.1 measures on.

    Parameters
    ----------
    axes
        By row along z, at least one; as `measure_slices` gives them.

    Returns
    -------
    int
        The row with the longest long axis; of equal ones that with the longest short axis, of these the lowest.
    """
    longest = _longest({z: one.long_mm for z, one in axes.items()})
    return min(_longest({z: axes[z].short_mm for z in longest}))


def _longest(lengths: Mapping[int, float]) -> list[int]:
    """Give the slices of the greatest length, those that rounding sets apart included."""
    least = max(lengths.values()) * (1 - TIE)
    return [z for z, length in lengths.items() if length >= least]


def describe_lesion(
    mask: NDArray[np.bool_],
    hu: NDArray[Any] | None,
    spacing_mm: tuple[float | None, float, float],
    box: Box,
    axes: Mapping[int, Axes],
    words: tuple[str, str],
) -> Measurement:
    """Put the axes and all that does not depend on them together; `words` are method and way with several pieces."""
    voxels = int(np.count_nonzero(mask))
    inside = None if hu is None else hu[mask].astype(np.float64)
    z_mm, y_mm, x_mm = spacing_mm
    key_z = choose_slice(axes)
    return Measurement(
        voxels=voxels,
        volume_ml=None if z_mm is None else voxels * z_mm * y_mm * x_mm / 1000,
        slices=int(np.count_nonzero(mask.any(axis=(1, 2)))),
        mean_hu=None if inside is None else float(inside.mean()),
        std_hu=None if inside is None else float(inside.std()),
        box=box,
        key_z=key_z,
        long_mm=axes[key_z].long_mm,
        short_mm=axes[key_z].short_mm,
        recist=axes[key_z].recist,
        method=words[0],
        unconnected=words[1],
    )


def check_mask(mask: NDArray[np.bool_], hu: NDArray[Any] | None, spacing_mm: tuple[float | None, float, float]) -> Box:
    """Give the extent of a mask, first and last voxel inclusive; GeometryError where it cannot be measured."""
    if mask.ndim != 3 or mask.dtype != np.bool_:
        raise GeometryError(f"a mask of shape {mask.shape} and {mask.dtype}: bool (z, y, x) is needed")
    if hu is not None and hu.shape != mask.shape:
        raise GeometryError(f"densities of shape {hu.shape} and a mask of {mask.shape}: they must be equal")
    for name, spacing in zip("zyx", spacing_mm, strict=True):
        unknown = spacing is None and name == "z"
        if not unknown and not (spacing is not None and math.isfinite(spacing) and spacing > 0):
            raise GeometryError(f"a spacing of {spacing} mm along {name}: it must be positive")
    extents = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    if not len(extents[0]):
        raise GeometryError("a mask without a voxel: there is nothing to measure")
    return Box(*(float(extent[0]) for extent in extents), *(float(extent[-1]) for extent in extents))
