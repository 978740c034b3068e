"""Which voxels of a lesion are measured: those of its mask, of its box, or of an ellipse round its RECIST axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError
from lesionzarr.features.pseudo_mask import ROUNDING, extent, pseudo_mask
from lesionzarr.features.store import find_mask, mask_region
from lesionzarr.geometry import Region

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.features.store import ReadRegion
    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion

MASK, BOX, ELLIPSE = "mask", "box", "ellipse"
REGIONS = (MASK, BOX, ELLIPSE)
"""``mask``: the voxels that the mask of the volume gives to the lesion. ``box``: those whose centres lie in its box, on
the key slice where the source gives no extent along z. ``ellipse``: on the key slice,
`lesionzarr.features.pseudo_mask.pseudo_mask`."""


def has_region(lesion: Lesion, kind: str) -> bool:
    """Tell whether there is what a region is made of."""
    if kind == MASK:
        return lesion.mask_label is not None
    if kind == BOX:
        return lesion.box is not None
    return lesion.recist is not None and lesion.key_z is not None


def plan_region(lesion: Lesion, grid: Grid, kind: str) -> Region:
    """Say which voxels to read.

    Parameters
    ----------
    lesion
        That has such a region.
    grid
        Of its volume.
    kind
        One of `REGIONS`.

    Returns
    -------
    Region
        Inside the volume, at least one voxel; of a mask whose extent is not known the whole volume.

    Raises
    ------
    GeometryError
        The region lies outside of the volume or between its voxels.
    """
    if kind == MASK:
        return mask_region(lesion, grid.shape) or Region((0, 0, 0), grid.shape)
    if kind == BOX:
        box = lesion.box
        if box is None:
            raise GeometryError(f"lesion {lesion.lesion_id}: it has no box")
        ends = ((box.z0, box.z1), (box.y0, box.y1), (box.x0, box.x1))
    else:
        mark = lesion.mark
        if mark is None or lesion.key_z is None:
            raise GeometryError(f"lesion {lesion.lesion_id}: it has no RECIST axes on a slice of the store")
        try:
            y0, x0, y1, x1 = extent(mark)
        except GeometryError as error:
            raise GeometryError(f"lesion {lesion.lesion_id}: {error}") from error
        ends = ((lesion.key_z, lesion.key_z), (y0 - ROUNDING, y1 + ROUNDING), (x0 - ROUNDING, x1 + ROUNDING))
    start = [max(0, math.ceil(low)) for low, _ in ends]
    stop = [min(size, math.floor(high) + 1) for (_, high), size in zip(ends, grid.shape, strict=True)]
    if any(a >= b for a, b in zip(start, stop, strict=True)):
        raise GeometryError(f"lesion {lesion.lesion_id}: its {kind} holds no voxel of the volume")
    return Region((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def find_region(
    lesion: Lesion, grid: Grid, kind: str, read: ReadRegion, region: Region | None = None
) -> tuple[NDArray[np.bool_], NDArray[Any], tuple[int, int, int]]:
    """Give the voxels of a region.

    Parameters
    ----------
    lesion, grid, kind
        As of `plan_region`.
    read
        Gives mask and densities of a region of a volume.
    region
        Of a box or an ellipse, what `plan_region` said.

    Returns
    -------
    mask : ndarray
        bool (z, y, x), at least one True.
    hu : ndarray
        Densities, of the same shape.
    start : tuple of int
        First voxel in the volume.

    Raises
    ------
    GeometryError
        There is no such region, or no voxel in it.
    """
    if kind == MASK:
        return find_mask(lesion, grid, read)
    region = region or plan_region(lesion, grid, kind)
    _, hu = read(lesion.volume_id, region)
    mask = np.ones(region.shape, dtype=np.bool_)
    mark = lesion.mark
    if kind == ELLIPSE and mark is not None:
        mask = pseudo_mask(mark.shift(-region.start[1], -region.start[2]), region.shape[1:])[None]
        if not mask.any():
            raise GeometryError(f"lesion {lesion.lesion_id}: its ellipse holds no centre of a pixel; use its box")
    return mask, hu, region.start
