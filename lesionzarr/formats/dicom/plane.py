"""Where a stack of slices lies: order along the normal, spacing, orientation, affine (DICOM PS3.3, C.7.6.2.1.1)."""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.formats.dicom.spacing import mean_step
from lesionzarr.geometry import Affine, Grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.formats.dicom.slices import Slice


LPS_WORDS = (
    ("right-to-left", "left-to-right"),
    ("anterior-to-posterior", "posterior-to-anterior"),
    ("inferior-to-superior", "superior-to-inferior"),
)
"""For x, y and z of LPS: the word where the index grows with it, and against it."""


def slice_order(slices: Sequence[Slice]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give what slices of one geometry are ordered by, and their positions.

    Parameters
    ----------
    slices
        All with a position and one orientation, or all without.

    Returns
    -------
    distances : ndarray of float64
        Shape (slices,): distance along the normal in mm, of which no two are the same for slices without geometry.
    positions : ndarray of float64
        Shape (slices, coordinates): LPS in mm; Slice Location where there is no geometry; the order where that is
        absent as well.
    """
    if slices[0].has_geometry:
        positions = np.array([plane.position for plane in slices], np.float64)
        return positions @ slices[0].normal, positions
    locations = [plane.row["slice_location"] for plane in slices]
    if None not in locations and len(set(locations)) == len(locations):
        distances = np.array(locations, np.float64)
    else:
        ranks = sorted(range(len(slices)), key=lambda number: slices[number].order)
        distances = np.empty(len(slices))
        distances[ranks] = np.arange(len(slices))
    return distances, distances[:, None]


def describe_grid(part: Sequence[Slice]) -> Grid:
    """Give the grid of an even run of slices.

    Parameters
    ----------
    part
        In order.

    Returns
    -------
    Grid
        The z spacing is the distance of neighbouring pixel centres, which in a tilted stack is more than the distance
        of the planes. Spacing unknown and no affine for one slice alone and for an order by number; no affine for an
        order by Slice Location, whose origin and direction are the scanner's own.
    """
    plane = part[0]
    shape = len(part), plane.row["rows"], plane.row["columns"]
    if not plane.has_geometry or plane.orientation is None:
        return Grid(shape, (_location_step(part), *plane.spacing))
    row, column = np.array(plane.orientation[:3]), np.array(plane.orientation[3:])
    if len(part) == 1:
        return Grid(shape, (None, *plane.spacing), _words(plane.normal, column, row))
    step = mean_step(_positions(part))
    columns = (step, column * plane.spacing[0], row * plane.spacing[1], np.array(plane.position))
    affine: Affine = tuple(tuple(map(float, line)) for line in np.stack(columns, axis=1))
    return Grid(shape, (float(np.linalg.norm(step)), *plane.spacing), _words(plane.normal, column, row), affine)


def tilt_degrees(part: Sequence[Slice]) -> float:
    """Give the angle between the normal of the slices and the line through their positions."""
    step = mean_step(_positions(part))
    along = float(step @ part[0].normal)
    return float(np.degrees(np.arctan2(np.linalg.norm(step - along * part[0].normal), along)))


def _positions(part: Sequence[Slice]) -> NDArray[np.float64]:
    return np.array([plane.position for plane in part], np.float64)


def _location_step(part: Sequence[Slice]) -> float | None:
    locations = [plane.row["slice_location"] for plane in part]
    if len(part) == 1 or None in locations or len(set(locations)) < len(locations):
        return None
    return float(abs(locations[-1] - locations[0]) / (len(part) - 1))


def _words(*axes: NDArray[np.float64]) -> tuple[str, str, str]:
    """Name the patient's axis that each of (z, y, x) runs along most nearly, a different one for each."""
    cosines = np.stack(axes)
    nearest = max(permutations(range(3)), key=lambda order: sum(abs(cosines[i, axis]) for i, axis in enumerate(order)))
    z, y, x = (LPS_WORDS[axis][int(cosines[i, axis] < 0)] for i, axis in enumerate(nearest))
    return z, y, x
