"""Lesions to paint into a phantom, whose size and place are known exactly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._phantom import between, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

BOX_MARGIN_PX: Final = 5.0


@dataclass(frozen=True, slots=True)
class PhantomLesion:
    """Where a painted lesion lies: whole numbers are pixel centres, counted from 0."""

    centre: tuple[float, float, float]
    """(z, y, x) in slices and pixels."""
    key_z: int
    """Slice that the axes are measured on: the one nearest to the centre."""
    long_axis: tuple[tuple[float, float], tuple[float, float]]
    """Both end points ((x, y), (x, y)) on the key slice, in pixels."""
    short_axis: tuple[tuple[float, float], tuple[float, float]]
    """As `long_axis`."""
    box: tuple[float, float, float, float]
    """(x0, y0, x1, y1): smallest and largest coordinates of the end points, 5 pixels wider on each side."""


def add_lesion(
    voxels: NDArray[np.int16],
    spacing_mm: tuple[float, float, float],
    centre: tuple[float, float, float],
    semi_axes_mm: tuple[float, float, float],
    angle: float = 0.0,
    hu: float = 40.0,
) -> PhantomLesion:
    """Paint an ellipsoid with a soft edge into a volume, in place.

    Parameters
    ----------
    voxels
        int16 (z, y, x), HU. Changed.
    spacing_mm
        (z, y, x) in mm.
    centre
        (z, y, x) in slices and pixels from 0, pixel centres on whole numbers.
    semi_axes_mm
        Half lengths in mm: along z, of the long and of the short axis in the slice.
    angle
        Direction of the long axis in the slice, in radians from +x towards +y.
    hu
        Density inside, in HU; the noise that was there stays.

    Returns
    -------
    PhantomLesion
        Centre, measured axes and box.

    Raises
    ------
    ValueError
        If the semi-axes are not positive, the long one is the shorter, or the ellipsoid misses the slice nearest to its
        centre.
    """
    depth, long, short = semi_axes_mm
    if not depth > 0 or not long >= short > 0:
        raise ValueError(f"semi-axes must be positive and the long one at least the short one, not {semi_axes_mm} mm")
    key_z = math.floor(centre[0] + 0.5)
    offset = (key_z - centre[0]) * spacing_mm[0] / depth
    if not 0 <= key_z < len(voxels) or abs(offset) >= 1:
        raise ValueError(f"a lesion {depth:g} mm deep round slice {centre[0]:g} does not reach the nearest slice")
    _paint_lesion(voxels, spacing_mm, centre, semi_axes_mm, angle, hu)
    cut = math.sqrt(1 - offset**2)
    long_axis = _axis(centre, spacing_mm, long * cut, angle)
    short_axis = _axis(centre, spacing_mm, short * cut, angle + math.pi / 2)
    ends = (*long_axis, *short_axis)
    box = (
        min(x for x, _ in ends) - BOX_MARGIN_PX,
        min(y for _, y in ends) - BOX_MARGIN_PX,
        max(x for x, _ in ends) + BOX_MARGIN_PX,
        max(y for _, y in ends) + BOX_MARGIN_PX,
    )
    return PhantomLesion(centre, key_z, long_axis, short_axis, box)


def _axis(
    centre: tuple[float, float, float], spacing_mm: tuple[float, float, float], half_mm: float, angle: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    dx = half_mm * math.cos(angle) / spacing_mm[2]
    dy = half_mm * math.sin(angle) / spacing_mm[1]
    _, y, x = centre
    return (x - dx, y - dy), (x + dx, y + dy)


def _paint_lesion(
    voxels: NDArray[np.int16],
    spacing_mm: tuple[float, float, float],
    centre: tuple[float, float, float],
    semi_axes_mm: tuple[float, float, float],
    angle: float,
    hu: float,
) -> None:
    reach = [max(semi_axes_mm[0], 0.0), semi_axes_mm[1], semi_axes_mm[1]]
    positions = [np.arange(size) for size in voxels.shape]
    where = tuple(
        between(position, middle, half / step + 2)
        for position, middle, half, step in zip(positions, centre, reach, spacing_mm, strict=True)
    )
    z, y, x = np.ix_(
        *(
            (position[part] - middle) * step
            for position, part, middle, step in zip(positions, where, centre, spacing_mm, strict=True)
        )
    )
    along = x * math.cos(angle) + y * math.sin(angle)
    across = y * math.cos(angle) - x * math.sin(angle)
    depth, long, short = semi_axes_mm
    radius = np.sqrt((along / long) ** 2 + (across / short) ** 2 + (z / depth) ** 2)
    alpha = np.clip(0.5 + (1 - radius) * short / (1.5 * max(spacing_mm[1:])), 0, 1)
    here = voxels[where].astype(np.float32)
    # Only what differs from pixel to pixel is noise; the limits keep vessels and organ edges from shining through.
    noise = np.clip(here - smooth(here), -30, 30)
    voxels[where] = np.rint(np.clip(here + alpha * (hu + noise - here), -1024, 3071)).astype(np.int16)
