"""Which voxels a request needs, and where they go. Pure geometry, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.geometry import Region
from lesionzarr.readers._request import EDGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers._request import Request


@dataclass(frozen=True)
class Axis:
    """How positions along one axis of an image are taken from the volume."""

    first: int
    """First row of the volume to read."""
    last: int
    """One past the last; equal to `first` where nothing has to be read."""
    inside: NDArray[np.bool_]
    """Which positions lie in the volume."""
    below: NDArray[np.intp]
    """For each position the nearest row at or below it, counted from `first`."""
    above: NDArray[np.intp]
    """The nearest row at or above it."""
    weight: NDArray[np.float64]
    """Share of the row above, 0..1; 0 on whole rows."""


@dataclass(frozen=True)
class Plan:
    """How an image is made: what to read, and for each axis where it goes."""

    z: Axis
    y: Axis
    x: Axis

    @property
    def region(self) -> Region:
        """Voxels to read; empty where the image lies outside of the volume and is not filled from its edge."""
        axes = (self.z, self.y, self.x)
        z0, y0, x0 = (axis.first for axis in axes)
        z1, y1, x1 = (axis.last for axis in axes)
        return Region((z0, y0, x0), (z1, y1, x1))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(z, y, x): True where the image shows the volume."""
        return self.z.inside[:, None, None] & self.y.inside[:, None] & self.x.inside


def plan_request(request: Request) -> Plan:
    """Plan one request.

    Parameters
    ----------
    request
        What is asked for.

    Returns
    -------
    Plan
    """
    edge = request.padding == EDGE
    slices, rows, columns = request.shape
    z = np.asarray(request.z, dtype=np.float64)
    if request.repeat is None:
        along_z = plan_axis(z, slices, fill_from_edge=edge or request.nearest_slice)
    else:
        along_z = _repeat(z, request.repeat)
    y = np.arange(request.y, request.y + request.size[0], dtype=np.float64)
    x = np.arange(request.x, request.x + request.size[1], dtype=np.float64)
    return Plan(along_z, plan_axis(y, rows, fill_from_edge=edge), plan_axis(x, columns, fill_from_edge=edge))


def plan_axis(positions: NDArray[np.float64], size: int, *, fill_from_edge: bool) -> Axis:
    """Plan one axis.

    Parameters
    ----------
    positions
        Rows of the volume, whole or between two, that the image shows; any may lie outside.
    size
        Number of rows of the volume.
    fill_from_edge
        Positions outside show the nearest row, which then has to be read.

    Returns
    -------
    Axis
    """
    inside = (positions >= 0) & (positions <= size - 1)
    nearest = np.clip(positions, 0, size - 1)
    below, above = np.floor(nearest).astype(np.intp), np.ceil(nearest).astype(np.intp)
    needed = np.ones_like(inside) if fill_from_edge else inside
    first, last = (int(below[needed].min()), int(above[needed].max()) + 1) if needed.any() else (0, 0)
    top = max(last - first - 1, 0)
    return Axis(first, last, inside, np.clip(below - first, 0, top), np.clip(above - first, 0, top), nearest - below)


def stack_positions(key_z: int, slices: int, interval_mm: float, spacing_mm: float) -> tuple[float, ...]:
    """Give the rows of a context stack: so many slices at a fixed distance, the key slice in the middle.

    Parameters
    ----------
    key_z
        Row of the key slice.
    slices
        Number of slices; of an even number the extra one comes before the key slice.
    interval_mm
        Distance of neighbouring slices of the stack in mm.
    spacing_mm
        Distance of neighbouring rows of the volume in mm.

    Returns
    -------
    tuple of float
        Ascending rows, rounded so that a whole multiple of the row distance names one row and not a mix of two.
    """
    steps = range(-(slices // 2), slices - slices // 2)
    return tuple(round(key_z + step * interval_mm / spacing_mm, 9) for step in steps)


def _repeat(positions: NDArray[np.float64], row: int) -> Axis:
    zeros = np.zeros(len(positions), dtype=np.intp)
    return Axis(row, row + 1, positions == row, zeros, zeros, np.zeros(len(positions)))
