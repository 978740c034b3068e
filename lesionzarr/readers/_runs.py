"""How the chunks of a plan are shared out: those of one object, and those that one thread takes on at a time."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionzarr.readers._shards import Shard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._chunks import ChunkPlan
    from lesionzarr.store.arrays import ArrayLayout

    Ints = NDArray[np.int64]

RUN_BYTES = 4 * 1024 * 1024
"""Decoded bytes of the chunks that a thread takes on at a time."""


@dataclass(frozen=True)
class Regions:
    """What is to be read: blocks of voxels of several arrays."""

    volumes: Sequence[str]
    """Ids of the arrays."""
    layouts: Sequence[ArrayLayout]
    """One per array."""
    volume: Ints
    """(region,): which array."""
    start: Ints
    stop: Ints
    """(region, 3): first and last voxel, half-open, inside the array."""


class Span(NamedTuple):
    """Chunks of one object."""

    shard: Shard
    numbers: Ints
    """(chunk,): of the plan."""


def spans_of(plan: ChunkPlan, first: int, last: int, regions: Regions) -> list[Span]:
    """Sort chunks into those of one object each."""
    volume, shard = plan.volume[first:last], plan.shard[first:last]
    order = np.lexsort((shard, volume))
    volume, shard = volume[order], shard[order]
    ends = (((shard[1:] != shard[:-1]) | (volume[1:] != volume[:-1])).nonzero()[0] + 1).tolist()
    spans = []
    for a, b in pairwise([0, *ends, last - first] if last > first else [0]):
        number = int(volume[a])
        spans.append(Span(Shard(regions.volumes[number], regions.layouts[number], int(shard[a])), first + order[a:b]))
    return spans


def runs_of(plan: ChunkPlan, regions: Regions, threads: int) -> list[tuple[int, int]]:
    """Cut the chunks into runs: whole regions, unless there are fewer regions than threads."""
    chunks = len(plan.owner)
    if not chunks:
        return []
    sizes = [array.chunk[0] * array.row_bytes for array in regions.layouts]
    if threads == 1 and chunks * max(sizes) <= RUN_BYTES:
        return [(0, chunks)]
    done = np.array(sizes)[plan.volume].cumsum()
    runs = max(threads, -(-int(done[-1]) // RUN_BYTES))
    ends = np.append((plan.owner[1:] != plan.owner[:-1]).nonzero()[0] + 1, chunks)
    if len(ends) < threads:
        ends = np.arange(1, chunks + 1)
    wanted = np.arange(1, runs + 1) * (int(done[-1]) / runs)
    # sums are whole numbers, and a half is more than what rounding adds
    cuts = np.unique(ends[np.searchsorted(done[ends - 1], wanted - 0.5)]).tolist()
    return list(pairwise([0, *cuts]))


def touched_by(plan: ChunkPlan, runs: list[tuple[int, int]], regions: int) -> tuple[list[list[int]], list[int]]:
    """Give the regions that each run brings voxels for, and for each region the number of such runs."""
    if regions == 1:
        return [[0]] * len(runs), [len(runs)]
    ends = plan.pairs[[b for _, b in runs]] if runs else plan.pairs[:0]
    run = np.searchsorted(ends, np.arange(len(plan.region)), side="right")
    both = np.unique(run * regions + plan.region)
    run, region = np.divmod(both, regions)
    parts = np.split(region, np.flatnonzero(np.diff(run)) + 1) if len(both) else []
    return [part.tolist() for part in parts], np.bincount(region, minlength=regions).tolist()
