"""Instance masks: where each value lies, and instances made of a mask of categories. Arrays in, records out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import MissingExtraError, SourceError
from lesionzarr.geometry import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEIGHBOURS = 26
"""Voxels that touch another by a face, an edge or a corner."""
LEAST_VOXELS, LEAST_SLICES = 50, 2
"""Smaller objects are no lesions (recist-dataset, ``get_3d_instance_annotated_lesions.py``)."""
MOST_OBJECTS = int(np.iinfo(np.uint16).max)
"""The highest value of a mask."""


@dataclass(frozen=True)
class Instance:
    """Where one value of a mask lies."""

    label: int
    voxels: int
    box: Box
    """First and last voxel along (z, y, x), both inclusive."""
    areas: dict[int, int]
    """Pixels on each slice that has any, by its row along z."""

    @property
    def key_z(self) -> int:
        """Slice with the most pixels; of several the lowest."""
        return max(self.areas, key=lambda z: (self.areas[z], -z))

    @property
    def gaps(self) -> list[int]:
        """Slices between its first and its last that have none of it."""
        return [z for z in range(int(self.box.z0), int(self.box.z1) + 1) if z not in self.areas]


def find_instances(mask: NDArray[Any]) -> dict[int, Instance]:
    """Find every value of a mask, slice by slice.

    Parameters
    ----------
    mask
        (z, y, x) of whole numbers, 0 for the background.

    Returns
    -------
    dict of int to Instance
        By value, ascending.
    """
    boxes: dict[int, list[int]] = {}
    areas: dict[int, dict[int, int]] = {}
    for z, plane in enumerate(mask):
        rows, columns = plane.nonzero()
        values = plane[rows, columns]
        for value in np.unique(values).tolist():
            y, x = rows[values == value], columns[values == value]
            areas.setdefault(value, {})[z] = len(y)
            low = boxes.setdefault(value, [z, *mask.shape[1:], z, 0, 0])
            ends = (z, y.min(), x.min()), (z, y.max(), x.max())
            low[:3] = [min(old, int(new)) for old, new in zip(low[:3], ends[0], strict=True)]
            low[3:] = [max(old, int(new)) for old, new in zip(low[3:], ends[1], strict=True)]
    return {
        value: Instance(value, sum(areas[value].values()), Box(*map(float, boxes[value])), areas[value])
        for value in sorted(areas)
    }


def split_instances(
    mask: NDArray[Any], least_voxels: int = LEAST_VOXELS, least_slices: int = LEAST_SLICES
) -> tuple[NDArray[Any], dict[int, int], int]:
    """Make an instance of every connected object of a mask of categories.

    Parameters
    ----------
    mask
        (z, y, x) uint8 or uint16: a category each, 0 for the background.
    least_voxels, least_slices
        Objects with less go to the background.

    Returns
    -------
    instances : ndarray of uint8 or uint16
        Voxels of one category that touch (`NEIGHBOURS`) are one instance, numbered in the order in which they first
        come in memory. The numbers of objects that went are not given again.
    categories : dict of int to int
        Category of each instance.
    removed : int
        Number of objects that went.

    Raises
    ------
    MissingExtraError
        cc3d is not installed.
    SourceError
        An object that is kept has a number beyond `MOST_OBJECTS`.
    """
    try:
        import cc3d
    except ImportError as error:
        raise MissingExtraError("splitting masks needs cc3d: pip install 'lesionzarr[masks]'") from error
    labels = _in_order(np.ascontiguousarray(cc3d.connected_components(mask, connectivity=NEIGHBOURS)))
    found = find_instances(labels)
    kept = [one for one in found.values() if one.voxels >= least_voxels and len(one.areas) >= least_slices]
    if kept and kept[-1].label > MOST_OBJECTS:
        text = (
            f"{len(found)} connected objects, of which number {kept[-1].label} is a lesion, and {MOST_OBJECTS} at most"
        )
        raise SourceError(f"{text} can be told apart; delete what is no lesion from the mask")
    numbers = np.zeros(len(found) + 1, dtype=np.uint8 if len(found) <= np.iinfo(np.uint8).max else np.uint16)
    for one in kept:
        numbers[one.label] = one.label
    return numbers[labels], {one.label: _value_at(mask, labels, one) for one in kept}, len(found) - len(kept)


def _in_order(labels: NDArray[Any]) -> NDArray[Any]:
    """Give objects numbers in the order in which they first come in memory."""
    values, first = np.unique(labels, return_index=True)
    first[values == 0] = -1
    numbers = np.empty(int(values.max()) + 1, dtype=np.int32)
    numbers[values[np.argsort(first)]] = np.arange(len(values)) + (0 not in values)
    ordered: NDArray[Any] = numbers[labels]
    return ordered


def _value_at(mask: NDArray[Any], labels: NDArray[Any], one: Instance) -> int:
    z = one.key_z
    return int(mask[z][labels[z] == one.label][0])
