"""Grids, boxes and regions.

Index order is (z, y, x), 0-based, with the pixel CENTRE on whole numbers. World coordinates are millimetres in the
DICOM patient system (LPS: x grows to the patient's left, y to the back, z to the head).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Affine = tuple[tuple[float, ...], ...]

ALIGNED = 1e-4
"""How far an axis may lean, as a share of its step, to count as running along a patient axis."""

TOWARDS_LPS = {
    "right-to-left": 1.0,
    "left-to-right": -1.0,
    "anterior-to-posterior": 1.0,
    "posterior-to-anterior": -1.0,
    "inferior-to-superior": 1.0,
    "superior-to-inferior": -1.0,
}
"""Sign of an LPS axis along each anatomical orientation (words of OME-NGFF RFC-4)."""


@dataclass(frozen=True)
class Grid:
    """Shape, spacing and orientation of a volume whose axes run along the patient's."""

    shape: tuple[int, int, int]
    """Number of slices, rows and columns."""
    spacing_mm: tuple[float | None, float, float]
    """Distance of neighbouring pixel centres along (z, y, x) in mm; None for a slice interval that is unknown."""
    orientation: tuple[str, str, str] | None = None
    """Anatomical direction in which the index grows along (z, y, x), in the words of OME-NGFF RFC-4."""
    affine: Affine | None = None
    """Three rows of four: index (z, y, x, 1) to LPS position (x, y, z) in mm; None where the source gives no origin."""

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise GeometryError(f"a grid of shape {self.shape}: three sizes of at least 1 are needed")
        for spacing in self.spacing_mm:
            if spacing is not None and not (math.isfinite(spacing) and spacing > 0):
                raise GeometryError(f"a spacing of {spacing} mm: it must be positive, or None where unknown")

    def coordinates(self) -> dict[str, NDArray[np.float64]]:
        """Give the position of every slice, row and column.

        Returns
        -------
        dict of str to ndarray
            ``z``, ``y`` and ``x``: float64 in mm along the LPS axes. With an affine whose axes run along them these are
            LPS positions, else they are 0 at the first pixel. Where the slice interval is unknown ``z`` holds the row
            numbers.
        """
        # + 0.0 turns the -0.0 of a falling axis into 0.0
        axes = zip("zyx", self.shape, self.steps_mm, self.origin_mm or (0.0, 0.0, 0.0), strict=True)
        return {name: np.arange(n, dtype=np.float64) * step + start + 0.0 for name, n, step, start in axes}

    @property
    def origin_mm(self) -> tuple[float, float, float] | None:
        """LPS position of the first pixel along the axis that (z, y, x) run along; None for an oblique grid."""
        if self.affine is None or self.orientation is None:
            return None
        matrix = np.asarray(self.affine)
        along = np.abs(matrix[:, :3]).argmax(axis=0)
        off_axis = np.abs(matrix[:, :3]).sum(axis=0) - np.abs(matrix[along, range(3)])
        if (off_axis > ALIGNED * np.abs(matrix[along, range(3)])).any():
            return None
        z, y, x = (float(position) for position in matrix[along, 3])
        return z, y, x

    @property
    def steps_mm(self) -> tuple[float, float, float]:
        """What one index adds to the LPS position along (z, y, x), in mm with its sign; 1 where it is unknown."""
        signs = [TOWARDS_LPS[word] for word in self.orientation] if self.orientation else [1.0, 1.0, 1.0]
        z, y, x = (1.0 if mm is None else mm * sign for mm, sign in zip(self.spacing_mm, signs, strict=True))
        return z, y, x


@dataclass(frozen=True)
class Box:
    """Measured extent in a volume: continuous (z, y, x), both ends inclusive."""

    z0: float
    y0: float
    x0: float
    z1: float
    y1: float
    x1: float

    def __post_init__(self) -> None:
        if not (self.z0 <= self.z1 and self.y0 <= self.y1 and self.x0 <= self.x1):
            raise GeometryError(f"a box that ends before it begins: {self}")

    @property
    def centre(self) -> tuple[float, float, float]:
        """Middle of the box, (z, y, x)."""
        return (self.z0 + self.z1) / 2, (self.y0 + self.y1) / 2, (self.x0 + self.x1) / 2

    def shift(self, dz: float, dy: float, dx: float) -> Box:
        """Move the box by whole or fractional pixels."""
        return Box(self.z0 + dz, self.y0 + dy, self.x0 + dx, self.z1 + dz, self.y1 + dy, self.x1 + dx)

    def overlap_in_plane(self, other: Box) -> float:
        """Give the intersection over union of the two rectangles in the slice plane, 0..1.

        Ends are inclusive, so a box from 3 to 5 is three pixels wide.
        """
        width = min(self.x1, other.x1) - max(self.x0, other.x0) + 1
        height = min(self.y1, other.y1) - max(self.y0, other.y0) + 1
        if width <= 0 or height <= 0:
            return 0.0
        shared = width * height
        return shared / (self._area() + other._area() - shared)

    def _area(self) -> float:
        return (self.x1 - self.x0 + 1) * (self.y1 - self.y0 + 1)


@dataclass(frozen=True)
class Region:
    """What can be read: whole numbers, half-open, (z, y, x)."""

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of slices, rows and columns; 0 along an axis that ends before it begins."""
        z, y, x = (max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The region as an index of an array."""
        z, y, x = (slice(a, b) for a, b in zip(self.start, self.stop, strict=True))
        return z, y, x


def crop_start(centre: float, size: int) -> int:
    """Give the first index of a crop along one axis.

    The centre is rounded half to even; an even size has its extra voxel before the centre.

    Parameters
    ----------
    centre
        Continuous index of the middle.
    size
        Number of voxels.

    Returns
    -------
    int
        May be negative, where the crop leaves the volume.
    """
    return round(centre) - size // 2
