"""Which voxels a request needs, and where they go. Pure geometry, no I/O."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr._lazy import cached_property
from lesionzarr.geometry import Region
from lesionzarr.readers._request import EDGE, NEAREST, Mix

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers._request import Request

PIXEL_REACH = 0.5
"""How far, in pixels, a slice reaches past the centres of its outermost pixels: half of their width."""


@dataclass(frozen=True)
class Samples:
    """Positions of an image that are not simply one row of the volume each."""

    inside: NDArray[np.bool_]
    """Which positions lie in the volume."""
    below: NDArray[np.intp]
    """For each position the row at or below it, counted from the first that is read."""
    above: NDArray[np.intp]
    """The row at or above it."""
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
    height, width = request.size
    _, rows, columns = request.shape
    along_y = _plan_pixels(request.y, height, rows, request)
    return Plan(_plan_slices(request), along_y, _plan_pixels(request.x, width, columns, request))


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


def plan_samples(
    positions: NDArray[np.float64], extent: int, *, fill_from_edge: bool, nearest: bool = False, reach: float = 0.0
) -> Axis:
    """Plan an axis along which an image shows any positions.

    Parameters
    ----------
    positions
        Rows of the volume, whole or between two; any may lie outside.
    extent
        Number of rows of the volume.
    fill_from_edge
        Positions outside show the nearest row, which then has to be read.
    nearest
        Take the closest row (of two as close the even one) instead of a mix of two.
    reach
        How far, in rows, the volume reaches past its first and its last row; there it shows that row.

    Returns
    -------
    Axis
    """
    inside = (positions >= -reach) & (positions <= extent - 1 + reach)
    clipped = np.clip(positions, 0, extent - 1)
    if nearest:
        clipped = np.rint(clipped)
    below, above = np.floor(clipped).astype(np.intp), np.ceil(clipped).astype(np.intp)
    return _sampled(inside, below, above, clipped - below, needed=inside | fill_from_edge)


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
    return tuple(round(key_z + step * interval_mm / spacing_mm, 9) for step in _steps(slices))


def upstream_mixes(key_z: int, slices: int, interval_mm: float, spacing_mm: float) -> tuple[Mix, ...] | None:
    """Give the mixes of a context stack as the published code of 3DCE makes them.

    With ``r = interval_mm / spacing_mm`` the p-th neighbour lies ``r * p`` rows from the key slice, and is mixed from
    the rows at the floor and the ceiling of that. The share of the farther row should be the fractional part of
    ``r * p``; upstream takes that of ``r`` for every p. (rsummers11/CADLab,
    ``lesion_detector_3DCE/rcnn/fio/load_ct_img.py``, ``load_multislice_img_16bit_png``: ``a`` and ``b`` are set before
    the loop over p. ``LesaNet/load_ct_img.py`` does the same.)

    Parameters
    ----------
    key_z, slices, interval_mm, spacing_mm
        As of `stack_positions`.

    Returns
    -------
    tuple of Mix, or None
        One per slice, ascending; None where r is a whole number and no slices are mixed.
    """
    rows = interval_mm / spacing_mm
    farther = rows - math.floor(rows)
    return tuple(_upstream_mix(key_z, step, rows, farther) for step in _steps(slices)) if farther else None


def _upstream_mix(key_z: int, step: int, rows: float, farther: float) -> Mix:
    far, near = math.ceil(rows * abs(step)), math.floor(rows * abs(step))
    return Mix(key_z - far, key_z - near, 1 - farther) if step < 0 else Mix(key_z + near, key_z + far, farther)


def sample_positions(centre: float, size: int, step: float) -> tuple[float, ...]:
    """Give the positions along one axis of a resampled image.

    Parameters
    ----------
    centre
        Position in the volume of the middle; it is not rounded.
    size
        Number of positions; of an even number the extra one comes before the centre.
    step
        Distance of neighbouring positions, in voxels of the volume.

    Returns
    -------
    tuple of float
        Ascending ``centre + (i - size // 2) * step``; any may lie outside of the volume.
    """
    return tuple(round(centre + place * step, 9) for place in _steps(size))


def whole_positions(extent: int, step: float) -> tuple[float, ...]:
    """Give the positions along one axis of a whole slice that is resampled.

    The image covers what the slice covers, from the outer edge of its first pixel, so the first position lies half a
    pixel of the image from there. These are the size and the places of ``cv2.resize`` with INTER_LINEAR, which 3DCE
    resamples with (rsummers11/CADLab, ``lesion_detector_3DCE/rcnn/fio/load_ct_img.py``, ``load_prep_img``).

    Parameters
    ----------
    extent
        Number of pixels of the slice.
    step
        Distance of neighbouring positions, in pixels of the slice.

    Returns
    -------
    tuple of float
        Ascending ``(i + 1/2) * step - 1/2``, ``extent / step`` of them, rounded half to even, but at least one.
    """
    size = max(1, round(extent / step))
    return tuple(round((place + 0.5) * step - 0.5, 9) for place in range(size))


def _steps(size: int) -> range:
    return range(-(size // 2), size - size // 2)


def _plan_slices(request: Request) -> Axis:
    z, extent = request.z, request.shape[0]
    if request.repeat is not None:
        return _repeat(np.asarray(z), request.repeat)
    if request.mixes is not None:
        return _plan_mixes(np.asarray(z), request.mixes, extent)
    fill_from_edge = request.padding == EDGE or request.nearest_slice
    first = int(z[0])
    if z == tuple(range(first, first + len(z))):
        return plan_block(first, len(z), extent, fill_from_edge=fill_from_edge)
    nearest = request.interpolation == NEAREST
    return plan_samples(np.asarray(z, dtype=np.float64), extent, fill_from_edge=fill_from_edge, nearest=nearest)


def _plan_pixels(pixels: int | tuple[float, ...], size: int, extent: int, request: Request) -> Axis:
    edge = request.padding == EDGE
    if isinstance(pixels, int):
        return plan_block(pixels, size, extent, fill_from_edge=edge)
    positions, nearest = np.asarray(pixels, dtype=np.float64), request.interpolation == NEAREST
    return plan_samples(positions, extent, fill_from_edge=edge, nearest=nearest, reach=PIXEL_REACH)


def _plan_mixes(positions: NDArray[np.float64], mixes: tuple[Mix, ...], extent: int) -> Axis:
    below, above = (np.clip([mix[end] for mix in mixes], 0, extent - 1).astype(np.intp) for end in (0, 1))
    inside = (positions >= 0) & (positions <= extent - 1)
    return _sampled(inside, below, above, np.array([mix.weight for mix in mixes]), needed=np.ones_like(inside))


def _sampled(
    inside: NDArray[np.bool_],
    below: NDArray[np.intp],
    above: NDArray[np.intp],
    weight: NDArray[np.float64],
    *,
    needed: NDArray[np.bool_],
) -> Axis:
    first, last = (int(below[needed].min()), int(above[needed].max()) + 1) if needed.any() else (0, 0)
    top = max(last - first - 1, 0)
    samples = Samples(inside, np.clip(below - first, 0, top), np.clip(above - first, 0, top), weight)
    return Axis(len(inside), first, last, samples=samples)


def _repeat(positions: NDArray[np.float64], row: int) -> Axis:
    zeros = np.zeros(len(positions), dtype=np.intp)
    return Axis(len(zeros), row, row + 1, samples=Samples(positions == row, zeros, zeros, np.zeros(len(zeros))))
