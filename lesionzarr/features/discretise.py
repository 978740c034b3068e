"""Grey levels: densities in bins, counted from 1 in every region.

Reference manual of the Image Biomarker Standardisation Initiative (arXiv:1612.07003), section 2.7:

- fixed bin size (``FBS``): bins of so many HU. Their edges are whole multiples of the size, wherever the region begins,
  and the lowest bin that has a voxel is level 1. IBSI begins at the lower end of a range that is the same for all, or
  else at the region's minimum, which cuts every region elsewhere; pyradiomics does as we do.
- fixed bin number (``FBN``): so many bins from the region's minimum to its maximum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.readers._checks import check_whole

if TYPE_CHECKING:
    from lesionzarr.features._bulk import Bulk, Ints

DENSE = 8
"""Keys are counted in a table of all that there could be, unless it had more times the room of the keys."""


@dataclass(frozen=True)
class Bins:
    """How densities become grey levels; one of both."""

    size: float | None = 25.0
    """HU of a bin (fixed bin size)."""
    number: int | None = None
    """Bins of every region (fixed bin number)."""

    def __post_init__(self) -> None:
        if (self.size is None) == (self.number is None):
            raise SettingError("bins have either a size in HU or a number")
        if self.size is not None and not (math.isfinite(self.size) and self.size >= 1):
            raise SettingError(f"bins of {self.size} HU: at least 1 is needed")
        if self.number is not None and not 2 <= self.number <= MOST_LEVELS:
            raise SettingError(f"{self.number} bins: 2 to {MOST_LEVELS} are needed")


MOST_LEVELS = 4096
"""As many bins as CT of 12 bits has values."""


def make_bins(size: float | None, number: int | None) -> Bins:
    """Give the bins that a caller names by their size, by their number, or not at all."""
    if size is None and number is None:
        return Bins()
    if size is not None:
        _check_hu(size)
    if number is not None:
        check_whole(number, "bin_number", 1)
    # plain numbers, which can be written to the output
    return Bins(None if size is None else float(size), None if number is None else int(number))


def _check_hu(size: object) -> None:
    if not isinstance(size, Real):
        raise SettingError(f"bin_size {size!r}: a number of HU is needed")


def discretise(bulk: Bulk, bins: Bins) -> Ints:
    """Give the grey level of every voxel.

    Parameters
    ----------
    bulk
        The regions.
    bins
        Size or number of the bins.

    Returns
    -------
    ndarray
        int64 (voxel,), from 1 on. With a fixed number, a region of one density has level 1 alone.
    """
    low = np.minimum.reduceat(bulk.values, bulk.starts)
    if bins.size is not None:
        first = np.floor(low / bins.size)
        return (np.floor(bulk.values / bins.size) - first[bulk.owner]).astype(np.int64) + 1
    number = bins.number or 0
    span = np.maximum.reduceat(bulk.values, bulk.starts) - low
    share = (bulk.values - low[bulk.owner]) / np.where(span > 0, span, 1)[bulk.owner]
    return np.minimum((share * number).astype(np.int64), number - 1) + 1


def count_keys(owner: Ints, *parts: Ints) -> tuple[Ints, ...]:
    """Count equal keys.

    Parameters
    ----------
    owner
        (key,): the table that it belongs to, from 0 on.
    *parts
        (key,) each: whole numbers from 0 on.

    Returns
    -------
    tuple of ndarray
        Owner, then the parts, then the count of each key that occurs, in ascending order.
    """
    sides = [int(part.max(initial=0)) + 1 for part in parts]
    keys = owner.astype(np.int64)
    for part, side in zip(parts, sides, strict=True):
        keys = keys * side + part
    if (int(owner.max(initial=0)) + 1) * math.prod(sides) <= DENSE * len(keys):
        table = np.bincount(keys)
        found = np.flatnonzero(table)
        count = table[found]
    else:
        found, count = np.unique(keys, return_counts=True)
    split = []
    for side in reversed(sides):
        found, part = np.divmod(found, side)
        split.append(part)
    return (found, *reversed(split), count)
