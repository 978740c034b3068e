"""Distributions of the densities of images, as ``get_intensity_distributions.py`` of robertorojasp06/recist-dataset.

Densities are counted one by one, so that an image is read in blocks, and its quartiles are exact all the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError, SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

EDGES_HU = np.linspace(-1024, 3071, 100)
"""Limits of the bins of a density, as upstream has them."""

QUARTILES = {"Q1": 0.25, "Q2": 0.5, "Q3": 0.75}
OFFSET = 32768
"""What makes an index of an int16."""


@dataclass(frozen=True, eq=False)
class Intensities:
    """How often each density occurs in an image."""

    shape: tuple[int, int, int]
    """Slices, rows and columns."""
    counts: NDArray[np.int64]
    """Of each int16, from -32768 on."""


def count_intensities(blocks: Iterable[NDArray[np.int16]]) -> Intensities:
    """Count the densities of an image, block by block.

    Parameters
    ----------
    blocks
        int16 (z, y, x) in HU, one after another along z, so that no image need be in memory as a whole.

    Returns
    -------
    Intensities

    Raises
    ------
    GeometryError
        No voxels, voxels that are no int16, or blocks of different widths.
    """
    counts = np.zeros(2 * OFFSET, dtype=np.int64)
    slices, plane = 0, None
    for block in blocks:
        if block.ndim != 3 or block.dtype != np.int16 or (plane is not None and block.shape[1:] != plane):
            raise GeometryError(
                f"a block of shape {block.shape} and {block.dtype}: int16 (z, y, x) of one width is needed"
            )
        counts += np.bincount(block.ravel().astype(np.int64) + OFFSET, minlength=len(counts))
        slices, plane = slices + block.shape[0], block.shape[1:]
    if plane is None or not counts.any():
        raise GeometryError("an image without a voxel: there is nothing to count")
    return Intensities((slices, *plane), counts)


def describe_intensities(counted: Intensities, filename: str) -> dict[str, Any]:
    """Give the row of upstream's ``stats.csv`` for one image.

    Parameters
    ----------
    counted
        The image.
    filename
        Its name.

    Returns
    -------
    dict
        ``filename``, ``slices``, ``rows``, ``columns``, ``dtype``, ``mean``, ``std`` (divided by the number of voxels),
        ``min``, ``Q1``, ``Q2``, ``Q3``, ``max``, in HU.
    """
    counts = counted.counts
    values = np.arange(-OFFSET, OFFSET, dtype=np.float64)
    number = int(counts.sum())
    mean = float(values @ counts) / number
    present = np.flatnonzero(counts)
    quartiles = {name: _quantile(counts, share) for name, share in QUARTILES.items()}
    return {
        "filename": filename,
        **dict(zip(("slices", "rows", "columns"), counted.shape, strict=True)),
        "dtype": "int16",
        "mean": mean,
        "std": float(np.sqrt((values - mean) ** 2 @ counts / number)),
        "min": int(present[0]) - OFFSET,
        **quartiles,
        "max": int(present[-1]) - OFFSET,
    }


def intensity_density(
    counted: Intensities, edges_hu: NDArray[np.float64] = EDGES_HU
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give the density of the distribution of an image, per HU.

    Parameters
    ----------
    counted
        The image.
    edges_hu
        Limits of the bins, ascending. Densities outside of them do not count.

    Returns
    -------
    ndarray, ndarray
        float64: the density of each bin, whose integral is 1, and the limits.

    Raises
    ------
    SettingError
        No voxel lies within the limits.
    """
    values = np.arange(-OFFSET, OFFSET)
    inside = (values >= edges_hu[0]) & (values <= edges_hu[-1])
    if not counted.counts[inside].any():
        raise SettingError(f"no voxel between {edges_hu[0]:g} and {edges_hu[-1]:g} HU: choose other limits")
    density, edges = np.histogram(values, bins=edges_hu, weights=counted.counts, density=True)
    return density, edges


def _quantile(counts: NDArray[np.int64], share: float) -> float:
    """Give a quantile of counted values, between two neighbours in proportion, as numpy does."""
    upto = counts.cumsum()
    place = (int(upto[-1]) - 1) * share
    low, high = (int(np.searchsorted(upto, n, side="right")) - OFFSET for n in (int(place), int(np.ceil(place))))
    return float(low + (high - low) * (place - int(place)))
