"""From regions to chunks: which chunks of which objects, and where each part of them goes. Arrays in, arrays out."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr._lazy import cached_property

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout

    Ints = NDArray[np.int64]


@dataclass(frozen=True)
class ChunkPlan:
    """Every pair of a region and a chunk that it touches, and every chunk once.

    Pairs are sorted by chunk, chunks by their first region, object and place in the object.
    """

    region: Ints
    """(pair,): number of the region."""
    boxes: Ints
    """(pair, 12): first and last voxel, half-open, (z, y, x), that the region takes from the chunk; then where they go
    in the region."""
    pairs: Ints
    """(chunk + 1,): where the pairs of each chunk begin."""
    volume: Ints
    """(chunk,): number of the array."""
    shard: Ints
    """(chunk,): number of the object in the grid of the array, in C order."""
    inner: Ints
    """(chunk,): number of the chunk in its object, in C order."""
    owner: Ints
    """(chunk,): the first region that needs it."""

    @cached_property
    def rows(self) -> Ints:
        """(chunk, 2): first and last row, half-open, that are needed of each chunk."""
        if not len(self.inner):
            return np.empty((0, 2), dtype=np.int64)
        starts = self.pairs[:-1]
        return np.stack(
            [np.minimum.reduceat(self.boxes[:, 0], starts), np.maximum.reduceat(self.boxes[:, 3], starts)], axis=1
        )


def plan_chunks(layouts: Sequence[ArrayLayout], volume: Ints, start: Ints, stop: Ints) -> ChunkPlan:
    """Find the chunks of regions, each chunk once however many regions share it.

    Parameters
    ----------
    layouts
        Of the arrays.
    volume
        (region,): number of the array that each region is of.
    start, stop
        (region, 3): first and last voxel, half-open, inside the array; an empty region touches no chunk.

    Returns
    -------
    ChunkPlan
    """
    chunk = np.array([layout.chunk for layout in layouts], dtype=np.int64)[volume]
    first = start // chunk
    count = np.where((stop > start).all(axis=1, keepdims=True), -(-stop // chunk) - first, 0)
    region, place = _expand(count)
    position = first[region] + place
    corner = position * chunk[region]
    low = np.maximum(start[region], corner)
    high = np.minimum(stop[region], corner + chunk[region])
    shard, inner = _locate(layouts, volume[region], position)
    order, begin = _group(region, volume[region], shard, inner)
    region, low, high, corner = region[order], low[order], high[order], corner[order]
    lead = order[begin[:-1]]
    origin = start[region]
    return ChunkPlan(
        region=region,
        boxes=np.concatenate([low - corner, high - corner, low - origin, high - origin], axis=1),
        pairs=begin,
        volume=volume[region[begin[:-1]]],
        shard=shard[lead],
        inner=inner[lead],
        owner=region[begin[:-1]],
    )


def merge_ranges(entries: Ints, owner: Ints, gap: int, limit: int) -> Ints:
    """Find which neighbouring ranges of an object are read by one request.

    Parameters
    ----------
    entries
        (range, 2): offset and length in bytes. Only ranges that follow each other in the file are merged.
    owner
        (range,): number of the object of each range.
    gap
        Bytes between two ranges that may be read in vain to save a request.
    limit
        Most bytes of one request, unless a single range has more.

    Returns
    -------
    ndarray of int64
        Numbers of the ranges that begin a request, then the number of ranges.
    """
    offset, end = entries[:, 0], entries.sum(axis=1)
    apart = offset[1:] - end[:-1]
    begin = ((apart < 0) | (apart > gap) | (owner[1:] != owner[:-1])).nonzero()[0] + 1
    begin = np.concatenate([[0], begin, [len(entries)]]) if len(entries) else np.zeros(1, dtype=np.int64)
    if not (end[begin[1:] - 1] - offset[begin[:-1]] > limit).any():
        return begin
    return np.array(_cut(begin.tolist(), offset.tolist(), end.tolist(), limit))


def _cut(begin: list[int], offset: list[int], end: list[int], limit: int) -> list[int]:
    """Cut requests where they grow beyond `limit` bytes."""
    cut = []
    for a, b in pairwise(begin):
        cut.append(a)
        for number in range(a + 1, b):
            if end[number] - offset[cut[-1]] > limit:
                cut.append(number)
    return [*cut, begin[-1]]


def _expand(count: Ints) -> tuple[Ints, Ints]:
    """Give the region, and the place (z, y, x) in it, of every chunk of boxes of `count` (region, 3) chunks."""
    total = count.prod(axis=1)
    region = np.repeat(np.arange(len(count)), total)
    number = np.arange(total.sum()) - np.repeat(np.cumsum(total) - total, total)
    rows, columns = count[region, 1], count[region, 2]
    return region, np.stack([number // (rows * columns), number // columns % rows, number % columns], axis=1)


def _locate(layouts: Sequence[ArrayLayout], volume: Ints, position: Ints) -> tuple[Ints, Ints]:
    """Give the number of the object, and of the chunk in it, of chunks at (z, y, x) in the grid of all chunks."""
    per_shard = np.array([layout.chunks_per_shard for layout in layouts], dtype=np.int64)[volume]
    grid = np.array([layout.grid for layout in layouts], dtype=np.int64)[volume]
    outer, inner = np.divmod(position, per_shard)
    return _ravel(outer, grid), _ravel(inner, per_shard)


def _ravel(place: Ints, shape: Ints) -> Ints:
    number: Ints = (place[:, 0] * shape[:, 1] + place[:, 1]) * shape[:, 2] + place[:, 2]
    return number


def _group(region: Ints, volume: Ints, shard: Ints, inner: Ints) -> tuple[Ints, Ints]:
    """Sort pairs so that those of one chunk follow each other, by the first region that needs the chunk."""
    if not len(region):
        return np.empty(0, dtype=np.int64), np.zeros(1, dtype=np.int64)
    if region[0] == region[-1]:
        # of one region, whose chunks come in the order of the grid, which a shard may not share
        return np.lexsort((inner, shard)), np.arange(len(region) + 1)
    by_chunk = np.lexsort((region, inner, shard, volume))
    same = np.ones(len(region), dtype=bool)
    for column in (inner, shard, volume):
        values = column[by_chunk]
        same[1:] &= values[1:] == values[:-1]
    same[0] = False
    number = np.cumsum(~same) - 1
    owner = region[by_chunk][~same][number]
    order = by_chunk[np.lexsort((number, owner))]
    # the second sort keeps chunks together, since a chunk has one owner
    lengths = np.bincount(number)[np.argsort(owner[~same], kind="stable")]
    return order, np.concatenate([[0], np.cumsum(lengths)])
