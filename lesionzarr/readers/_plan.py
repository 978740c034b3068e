"""Which voxels a request needs, and where they go. Pure geometry, no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.geometry import Region
from lesionzarr.readers._request import EDGE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers._request import Request


@dataclass(frozen=True)
class Samples:
    """Positions of an image that are not simply one row of the volume each."""

    inside: NDArray[np.bool_]
    """Which positions lie in the volume."""
    below: NDArray[np.intp]
    """For each position the nearest row at or below it, counted from the first that is read."""
    above: NDArray[np.intp]
    """The nearest row at or above it."""
    weight: NDArray[np.float64]
    """Share of the row above, 0..1; 0 on whole rows."""


@dataclass(frozen=True)
class Axis:
    """How the positions along one axis of an image are taken from the volume."""

    size: int
    """Number of positions."""
    first: int
    """First row of the volume to read."""
    last: int
    """One past the last; equal to `first` where nothing has to be read."""
    lead: int = 0
    """Position of the first row that is read, where rows are copied."""
    samples: Samples | None = None
    """None where rows of the volume are copied as they are."""

    @property
    def filled(self) -> slice:
        """Positions that get a value from the volume."""
        return slice(0, self.size) if self.samples else slice(self.lead, self.lead + self.last - self.first)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which positions lie in the volume."""
        if self.samples:
            return self.samples.inside
        inside = np.zeros(self.size, dtype=bool)
        inside[self.filled] = True
        return inside


@dataclass(frozen=True)
class Plan:
    """How an image is made: what to read, and for each axis where it goes."""

    z: Axis
    y: Axis
    x: Axis

    @cached_property
    def region(self) -> Region:
        """Voxels to read; empty where the image lies outside of the volume and is not filled from its edge."""
        axes = (self.z, self.y, self.x)
        z0, y0, x0 = (axis.first for axis in axes)
        z1, y1, x1 = (axis.last for axis in axes)
        return Region((z0, y0, x0), (z1, y1, x1))

    @property
    def plain(self) -> bool:
        """Every voxel of the image is one voxel of the volume, or padding."""
        return self.z.samples is None and self.y.samples is None and self.x.samples is None

    @property
    def filled(self) -> tuple[slice, slice, slice]:
        """The block of the image that gets values from the volume."""
        return self.z.filled, self.y.filled, self.x.filled

    @property
    def whole(self) -> bool:
        """That block is all of the image."""
        sizes = (self.z.size, self.y.size, self.x.size)
        return all(part.stop - part.start == size for part, size in zip(self.filled, sizes, strict=True))

    @cached_property
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
    if request.repeat is None:
        along_z = _plan_rows(request.z, slices, fill_from_edge=edge or request.nearest_slice)
    else:
        along_z = _repeat(np.asarray(request.z), request.repeat)
    height, width = request.size
    along_y = plan_block(request.y, height, rows, fill_from_edge=edge)
    return Plan(along_z, along_y, plan_block(request.x, width, columns, fill_from_edge=edge))


def plan_block(start: int, size: int, extent: int, *, fill_from_edge: bool) -> Axis:
    """Plan an axis along which an image shows consecutive rows.

    Parameters
    ----------
    start
        First row of the volume that the image shows; it may lie outside.
    size
        Number of rows that it shows.
    extent
        Number of rows of the volume.
    fill_from_edge
        Positions outside show the nearest row, which then has to be read.

    Returns
    -------
    Axis
    """
    first, last = max(start, 0), min(start + size, extent)
    if fill_from_edge and last - first < size:
        return plan_samples(np.arange(start, start + size, dtype=np.float64), extent, fill_from_edge=True)
    return Axis(size, first, last, first - start) if first < last else Axis(size, 0, 0)


def plan_samples(positions: NDArray[np.float64], extent: int, *, fill_from_edge: bool) -> Axis:
    """Plan an axis along which an image shows any positions.

    Parameters
    ----------
    positions
        Rows of the volume, whole or between two; any may lie outside.
    extent
        Number of rows of the volume.
    fill_from_edge
        Positions outside show the nearest row, which then has to be read.

    Returns
    -------
    Axis
    """
    inside = (positions >= 0) & (positions <= extent - 1)
    nearest = np.clip(positions, 0, extent - 1)
    below, above = np.floor(nearest).astype(np.intp), np.ceil(nearest).astype(np.intp)
    needed = np.ones_like(inside) if fill_from_edge else inside
    first, last = (int(below[needed].min()), int(above[needed].max()) + 1) if needed.any() else (0, 0)
    top = max(last - first - 1, 0)
    samples = Samples(inside, np.clip(below - first, 0, top), np.clip(above - first, 0, top), nearest - below)
    return Axis(len(positions), first, last, samples=samples)


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


def _plan_rows(z: tuple[float, ...], extent: int, *, fill_from_edge: bool) -> Axis:
    first = int(z[0])
    if z == tuple(range(first, first + len(z))):
        return plan_block(first, len(z), extent, fill_from_edge=fill_from_edge)
    return plan_samples(np.asarray(z, dtype=np.float64), extent, fill_from_edge=fill_from_edge)


def _repeat(positions: NDArray[np.float64], row: int) -> Axis:
    zeros = np.zeros(len(positions), dtype=np.intp)
    return Axis(len(zeros), row, row + 1, samples=Samples(positions == row, zeros, zeros, np.zeros(len(zeros))))
