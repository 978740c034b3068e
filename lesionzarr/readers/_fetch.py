"""Voxels of a store: every chunk of a batch is read and decoded once, and its parts go straight to where they belong.

Arrays that `lesionzarr.store.arrays` does not know are read by zarr-python.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from itertools import pairwise
from threading import Lock, local
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.readers._cache import ChunkCache
from lesionzarr.readers._chunks import merge_ranges, plan_chunks
from lesionzarr.readers._threads import run_all
from lesionzarr.store import layout
from lesionzarr.store.chunks import ChunkDecoder
from lesionzarr.store.location import Folder
from lesionzarr.store.shards import parse_index

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._chunks import ChunkPlan
    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.store.location import Blob, Location

    Ints = NDArray[np.int64]

OPEN_SHARDS = 256
"""Shards that are kept open, each with a file handle and an index of 16 bytes a chunk."""

DISK_GAP_BYTES = 0
BUCKET_GAP_BYTES = 64 * 1024
"""Bytes between two chunks that are read in vain to save a request."""

CHUNKS_PER_THREAD = 16
"""Fewer chunks of a disk are not worth waking another thread: a millisecond of decoding against tenths of one."""

REQUEST_BYTES = 16 * 1024 * 1024
"""Most bytes of one request."""


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


@dataclass(frozen=True)
class OpenShard:
    """A shard, and where its chunks are."""

    blob: Blob
    index: Ints
    """(chunk, 2): offset and length; -1 where the chunk is absent."""


class _Parts:
    """The parts of the chunks of one shard, and where they go."""

    def __init__(self, plan: ChunkPlan, first: int, last: int, target: Callable[[int], NDArray[Any]]) -> None:
        pairs = slice(*plan.pairs[[first, last]].tolist())
        self._ends = (plan.pairs[first : last + 1] - pairs.start).tolist()
        self._regions = plan.region[pairs].tolist()
        self._boxes = plan.boxes[pairs].tolist()
        self._target = target
        self.rows = plan.rows(first, last).tolist()
        """First and last row, half-open, of each chunk that are needed."""

    def copy(self, number: int, chunk: NDArray[Any]) -> None:
        """Copy the parts of a chunk."""
        for pair in range(self._ends[number], self._ends[number + 1]):
            z, y, x, z1, y1, x1, tz, ty, tx, tz1, ty1, tx1 = self._boxes[pair]
            self._target(self._regions[pair])[tz:tz1, ty:ty1, tx:tx1] = chunk[z:z1, y:y1, x:x1]


class Fetcher:
    """Reads regions of the volumes of one store; all threads share the shards that it keeps open."""

    def __init__(self, location: Location, cache_bytes: int = 0) -> None:
        self.location = location
        self.cache = ChunkCache(cache_bytes)
        self._is_near = isinstance(location, Folder)
        self._gap = DISK_GAP_BYTES if self._is_near else BUCKET_GAP_BYTES
        self._shards: OrderedDict[tuple[str, int], OpenShard] = OrderedDict()
        self._lock = Lock()
        self._scratch = local()

    def read(
        self,
        regions: Regions,
        target: Callable[[int], NDArray[Any]],
        finish: Callable[[int], None],
        threads: int,
    ) -> None:
        """Read regions.

        Parameters
        ----------
        regions
            What to read.
        target
            Gives the array of a region's shape that its voxels go to; called from any thread, more than once.
        finish
            Called for every region as soon as its voxels are there, from the thread that brought the last of them.
        threads
            Most threads at a time.

        Raises
        ------
        IntegrityError
            An object is missing, cut off or damaged.
        StoreError
            The store cannot be reached.
        """
        plan = plan_chunks(regions.layouts, regions.volume, regions.start, regions.stop)
        if self._is_near:
            threads = max(1, min(threads, len(plan.owner) // CHUNKS_PER_THREAD))
        runs = _runs(plan, threads)
        touched, pending = _touched(plan, runs, len(regions.volume))
        lock = Lock()

        def work(number: int) -> None:
            self._execute(plan, *runs[number], regions, target)
            for region in touched[number]:
                with lock:
                    pending[region] -= 1
                    ready = not pending[region]
                if ready:
                    finish(region)

        for region in [region for region, runs_left in enumerate(pending) if not runs_left]:
            finish(region)
        run_all(work, range(len(runs)), threads)

    def _execute(
        self, plan: ChunkPlan, first: int, last: int, regions: Regions, target: Callable[[int], NDArray[Any]]
    ) -> None:
        """Read the chunks of a run, and scatter them."""
        for number, shard, a, b in plan.spans(first, last):
            volume_id, array = regions.volumes[number], regions.layouts[number]
            try:
                self._scatter(plan, a, b, volume_id, array, target)
            except ValueError as error:
                raise self._damaged(volume_id, array, shard, str(error)) from error

    def _scatter(
        self,
        plan: ChunkPlan,
        first: int,
        last: int,
        volume_id: str,
        array: ArrayLayout,
        target: Callable[[int], NDArray[Any]],
    ) -> None:
        """Bring chunks of one shard, and copy their parts to where they belong."""
        parts = _Parts(plan, first, last, target)
        shard, inner = int(plan.shard[first]), plan.inner[first:last]
        numbers = list(range(last - first))
        if self.cache:
            numbers = self._scatter_kept(parts, volume_id, shard, inner)
        entries = self.entries(volume_id, array, shard, inner[numbers])
        offsets, ends = entries[:, 0].tolist(), entries.sum(axis=1).tolist()
        decoder = self._decoder(array)
        for a, b in pairwise(self.merge(entries)):
            start = offsets[a]
            data, address = self._buffer(ends[b - 1] - start)
            self._open(volume_id, array, shard).blob.read_into(start, data)
            for k in range(a, b):
                number, at = numbers[k], offsets[k] - start
                # a chunk that is kept is kept whole
                rows = (0, len(decoder.chunk)) if self.cache else parts.rows[number]
                decoder.decode(data[at : ends[k] - start], address + at, *rows)
                if self.cache:
                    self.cache.put((volume_id, shard, int(inner[number])), decoder.chunk)
                parts.copy(number, decoder.chunk)

    def _scatter_kept(self, parts: _Parts, volume_id: str, shard: int, inner: Ints) -> list[int]:
        """Copy the parts of chunks that the cache holds; give the numbers of the others."""
        others = []
        for number, place in enumerate(inner.tolist()):
            chunk = self.cache.get((volume_id, shard, place))
            if chunk is None:
                others.append(number)
            else:
                parts.copy(number, chunk)
        return others

    def entries(self, volume_id: str, array: ArrayLayout, shard: int, inner: Ints) -> Ints:
        """Give offset and length, (chunk, 2), of chunks of a shard; ValueError where one is absent."""
        entries = self._open(volume_id, array, shard).index[inner]
        if (entries < 0).any():
            raise ValueError("a chunk is absent")
        return entries

    def merge(self, entries: Ints) -> list[int]:
        """Find which chunks are read by one request: see `merge_ranges`."""
        return merge_ranges(entries, self._gap, REQUEST_BYTES)

    def _open(self, volume_id: str, array: ArrayLayout, shard: int) -> OpenShard:
        key = volume_id, shard
        with self._lock:
            known = self._shards.get(key)
            if known is not None:
                self._shards.move_to_end(key)
                return known
        opened = self._open_anew(volume_id, array, shard)
        with self._lock:
            self._shards[key] = opened
            if len(self._shards) > OPEN_SHARDS:
                self._shards.popitem(last=False)
        return opened

    def _open_anew(self, volume_id: str, array: ArrayLayout, shard: int) -> OpenShard:
        blob = self.location.open(_key(volume_id, array, shard))
        if blob is None:
            raise self._damaged(volume_id, array, shard, "missing")
        if not array.indexed:
            return OpenShard(blob, np.array([[0, blob.size]]))
        if blob.size < array.index_bytes:
            raise self._damaged(volume_id, array, shard, f"cut off ({blob.size} bytes)")
        data = np.empty(array.index_bytes, dtype=np.uint8)
        blob.read_into(0 if array.index_first else blob.size - array.index_bytes, data)
        return OpenShard(blob, parse_index(data, array, blob.size))

    def _damaged(self, volume_id: str, array: ArrayLayout, shard: int, fault: str) -> StoreError:
        key = _key(volume_id, array, shard)
        return IntegrityError(f"{self.location.name}: volume {volume_id}, {key}: {fault}; convert it again")

    def _buffer(self, size: int) -> tuple[NDArray[np.uint8], int]:
        """Give this thread's buffer for bytes as stored, and its address."""
        known: tuple[NDArray[np.uint8], int] | None = getattr(self._scratch, "buffer", None)
        if known is None or len(known[0]) < size:
            buffer = np.empty(max(size, 1 << 20), dtype=np.uint8)
            known = self._scratch.buffer = buffer, buffer.ctypes.data
        return known[0][:size], known[1]

    def _decoder(self, array: ArrayLayout) -> ChunkDecoder:
        """Give this thread's decoder for chunks like those of an array."""
        key = array.coding
        known: tuple[Any, ChunkDecoder] | None = getattr(self._scratch, "decoder", None)
        if known is None or known[0] != key:
            known = self._scratch.decoder = key, ChunkDecoder(array)
        return known[1]


def fetcher_of(catalog: Catalog) -> Fetcher:
    """Give the fetcher of an opened store, which lives as long as that does."""
    # a lock that another thread held at a fork would never open again in the child
    key = os.getpid()
    known = _FETCHERS.get(catalog)
    if known is None or known[0] != key:
        known = _FETCHERS[catalog] = key, Fetcher(catalog.location, catalog.cache_bytes)
    return known[1]


_FETCHERS: WeakKeyDictionary[Catalog, tuple[int, Fetcher]] = WeakKeyDictionary()


def _key(volume_id: str, array: ArrayLayout, shard: int) -> str:
    place = np.unravel_index(shard, array.grid)
    return f"{layout.volume_key(volume_id)}/{layout.ARRAY}/{array.key([int(number) for number in place])}"


def _runs(plan: ChunkPlan, threads: int) -> list[tuple[int, int]]:
    """Cut the chunks into runs: one for each region, or more where there are fewer regions than threads."""
    chunks = len(plan.owner)
    if not chunks:
        return []
    ends = (np.flatnonzero(np.diff(plan.owner)) + 1).tolist()
    if len(ends) + 1 < threads:
        ends = [chunks * part // threads for part in range(1, threads)]
    return [(a, b) for a, b in pairwise([0, *ends, chunks]) if a < b]


def _touched(plan: ChunkPlan, runs: list[tuple[int, int]], regions: int) -> tuple[list[list[int]], list[int]]:
    """Give the regions that each run brings voxels for, and for each region the number of such runs."""
    if regions == 1:
        return [[0]] * len(runs), [len(runs)]
    ends = plan.pairs[[b for _, b in runs]] if runs else plan.pairs[:0]
    run = np.searchsorted(ends, np.arange(len(plan.region)), side="right")
    both = np.unique(run * regions + plan.region)
    run, region = np.divmod(both, regions)
    parts = np.split(region, np.flatnonzero(np.diff(run)) + 1) if len(both) else []
    return [part.tolist() for part in parts], np.bincount(region, minlength=regions).tolist()
