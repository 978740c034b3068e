"""Regions of several lesions as one list of voxels, so that one call of numpy measures all of them.

Every region lies in a block of its own with a border of one voxel, and the blocks lie one behind the other in one flat
array. A step to a neighbour is then one number per lesion, and the border stops it from reaching another lesion.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Ints = NDArray[np.int64]
    Floats = NDArray[np.float64]


class Part(NamedTuple):
    """The region of one lesion."""

    hu: NDArray[Any]
    """(z, y, x): densities."""
    mask: NDArray[np.bool_]
    """(z, y, x): the voxels of the region, at least one."""
    spacing_mm: tuple[float | None, float, float]
    """Distance of neighbouring voxels; None for a slice interval that is unknown."""


@dataclass(frozen=True)
class Bulk:
    """Voxels of several regions, in the order of lesions, then of z, y and x."""

    values: Floats
    """(voxel,): densities."""
    owner: Ints
    """(voxel,): number of the lesion."""
    index: Ints
    """(voxel,): place in the flat array."""
    place: Ints
    """(voxel, 3): z, y, x in the block, counted from its border."""
    counts: Ints
    """(lesion,): voxels."""
    starts: Ints
    """(lesion,): first voxel."""
    offsets: Ints
    """(lesion,): first place of the block in the flat array."""
    strides: Ints
    """(lesion, 3): steps of the flat array along z, y and x."""
    size: int
    """Length of the flat array."""
    spacing_mm: Floats
    """(lesion, 3); NaN for a slice interval that is unknown."""
    slices: Ints
    """(lesion,): slices with at least one voxel."""

    @property
    def lesions(self) -> int:
        """Number of lesions."""
        return len(self.counts)

    @property
    def is_plane(self) -> NDArray[np.bool_]:
        """(lesion,): the region lies on one slice."""
        alone: NDArray[np.bool_] = self.slices == 1
        return alone

    def sum(self, values: NDArray[Any]) -> Floats:
        """Add up (voxel,) per lesion."""
        return np.add.reduceat(values, self.starts).astype(np.float64)

    def mean(self, values: NDArray[Any]) -> Floats:
        """Give the mean of (voxel,) per lesion."""
        return self.sum(values) / self.counts

    def steps(self, direction: Sequence[int]) -> Ints:
        """Give what leads in the flat array from each voxel to its neighbour."""
        steps: Ints = (self.strides @ np.array(direction))[self.owner]
        return steps


def add_up(owner: Ints, values: NDArray[Any], owners: int) -> Floats:
    """Add up the values of each owner; 0 for one without."""
    return np.bincount(owner, values, owners).astype(np.float64)


def make_bulk(parts: Sequence[Part]) -> Bulk:
    """Put regions together.

    Parameters
    ----------
    parts
        At least one.

    Returns
    -------
    Bulk
    """
    places, values, strides, sizes = [], [], [], []
    for part in parts:
        place = np.argwhere(part.mask)
        places.append(place + 1)
        values.append(part.hu[tuple(place.T)].astype(np.float64))
        _, y, x = (side + 2 for side in part.mask.shape)
        strides.append((y * x, x, 1))
        sizes.append((part.mask.shape[0] + 2) * y * x)
    counts = np.array([len(own) for own in values], dtype=np.int64)
    owner = np.arange(len(parts)).repeat(counts)
    ends = np.cumsum(sizes)
    offsets = ends - sizes
    place, stride = np.concatenate(places), np.array(strides, dtype=np.int64)
    return Bulk(
        values=np.concatenate(values),
        owner=owner,
        index=offsets[owner] + (place * stride[owner]).sum(axis=1),
        place=place,
        counts=counts,
        starts=counts.cumsum() - counts,
        offsets=offsets,
        strides=stride,
        size=int(ends[-1]),
        spacing_mm=np.array([part.spacing_mm for part in parts], dtype=np.float64),
        slices=np.array([np.count_nonzero(part.mask.any(axis=(1, 2))) for part in parts], dtype=np.int64),
    )
