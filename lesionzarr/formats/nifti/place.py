"""Which stored axis goes where, and the grid that this makes. No I/O."""

from __future__ import annotations

import math
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionzarr.geometry import Grid

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.formats.nifti.header import NiftiHeader

TOWARDS = ("inferior-to-superior", "anterior-to-posterior", "right-to-left")
"""Where z, y and x grow to, in the words of OME-NGFF RFC-4."""
LPS_AXES = np.fliplr(np.eye(3))
"""Columns: directions of (z, y, x) in LPS."""
SAME_VOXELS = 0.1
"""How far, in voxels, no corner may lie from where it should for two grids to count as one."""


class Placing(NamedTuple):
    """How stored axes become (z, y, x)."""

    order: tuple[int, int, int]
    """Stored axis that each of (z, y, x) is."""
    flips: tuple[bool, bool, bool]
    """Whether it runs the other way."""


def find_placing(header: NiftiHeader, like: Grid | None = None) -> Placing:
    """Find the order of axes that an image is read in.

    Parameters
    ----------
    header
        Of the image.
    like
        Grid whose axes the array is to follow; None for those of LPS.

    Returns
    -------
    Placing
        Each stored axis goes to the axis that it is nearest to. Where the image or `like` has no affine it is
        (k, j, i).
    """
    if header.affine is None or (like is not None and like.affine is None):
        return Placing((2, 1, 0), (False, False, False))
    wanted = LPS_AXES if like is None else _directions(np.asarray(like.affine))
    cosines = wanted.T @ _directions(np.asarray(header.affine))
    order = max(permutations(range(3)), key=lambda order: sum(abs(cosines[i, axis]) for i, axis in enumerate(order)))
    z, y, x = (bool(cosines[i, axis] < 0) for i, axis in enumerate(order))
    return Placing((order[0], order[1], order[2]), (z, y, x))


def nifti_grid(header: NiftiHeader, like: Grid | None = None) -> Grid:
    """Give the grid of an image as it is read.

    Parameters
    ----------
    header
        Of the image.
    like
        Grid whose axes the array is to follow; None for those of LPS.

    Returns
    -------
    Grid
        Of (z, y, x), in mm; without orientation and affine where the file or `like` has none.
    """
    placing = find_placing(header, like)
    z, y, x = (header.shape[axis] for axis in placing.order)
    spacing = tuple(header.spacing_mm[axis] for axis in placing.order)
    if header.affine is None or (like is not None and like.affine is None):
        return Grid((z, y, x), (spacing[0], spacing[1], spacing[2]))
    stored = np.asarray(header.affine)
    columns = stored[:, list(placing.order)]
    origin = stored[:, 3].copy()
    for number, (size, flip) in enumerate(zip((z, y, x), placing.flips, strict=True)):
        if flip:
            origin += columns[:, number] * (size - 1)
            columns[:, number] *= -1
    affine = np.column_stack([columns, origin]) + 0.0
    orientation = TOWARDS if like is None or like.orientation is None else like.orientation
    rows = tuple(map(tuple, affine.tolist()))
    return Grid((z, y, x), (spacing[0], spacing[1], spacing[2]), orientation, rows)


def is_same_grid(one: Grid, other: Grid) -> bool:
    """Tell whether two grids have as many voxels at the same places, within a tenth of a voxel at every corner.

    Where neither has an affine shape and spacing decide; where one has none they are not the same.
    """
    if one.shape != other.shape or (one.affine is None) != (other.affine is None):
        return False
    if one.affine is None or other.affine is None:
        pairs = zip(one.spacing_mm, other.spacing_mm, strict=True)
        return all(a is None or b is None or math.isclose(a, b, rel_tol=1e-4) for a, b in pairs)
    corners = np.array(np.meshgrid(*([0, size - 1] for size in one.shape))).reshape(3, -1)
    first, second = (np.asarray(grid.affine) for grid in (one, other))
    moved = np.linalg.solve(first[:, :3], second[:, :3] @ corners + (second[:, 3:] - first[:, 3:]))
    return bool((np.abs(moved - corners) < SAME_VOXELS).all())


def _directions(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    columns = affine[:, :3]
    unit: NDArray[np.float64] = columns / np.linalg.norm(columns, axis=0)
    return unit
