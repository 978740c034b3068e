"""Voxels of a store: every chunk of a batch is read and decoded once, and its parts go straight to where they belong.

Arrays that `lesionzarr.store.arrays` does not know are read by zarr-python.
"""

from __future__ import annotations

import math
import os
from itertools import pairwise
from threading import Lock, local
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from lesionzarr.readers._cache import ChunkCache
from lesionzarr.readers._chunks import merge_ranges, plan_chunks
from lesionzarr.readers._disk_cache import DiskCache
from lesionzarr.readers._runs import Regions, Span, runs_of, spans_of, touched_by
from lesionzarr.readers._shards import Head, Shard, ShardError, Shards, is_same
from lesionzarr.readers._threads import run_all
from lesionzarr.store.chunks import ChunkDecoder, DamagedChunkError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lesionzarr.readers._chunks import ChunkPlan
    from lesionzarr.readers._pace import Traffic
    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.store.location import Location

    Ints = NDArray[np.int64]
    Heads = dict[tuple[str, int], Head]
    Asked = tuple["Span", Ints, list[tuple[int, NDArray[np.uint8]]]]

FAR_THREADS = 32
"""Requests to a bucket at a time: they wait more than they work."""

AHEAD_BYTES = 64 * 1024 * 1024
"""Most bytes that are read of shards, for one batch, before their indexes are known."""

AHEAD_WASTE = 3
"""The chunks round the lesions of a shard are read ahead unless they have more times the bytes that are wanted."""

CHUNKS_PER_THREAD = 16
"""Fewer chunks of a disk are not worth waking another thread: a millisecond of decoding against tenths of one."""

REQUEST_BYTES = 16 * 1024 * 1024
"""Most bytes of one request, unless a single chunk has more; a thread holds those of less than two."""


class Located(NamedTuple):
    """Where chunks of some spans are, in their order in the objects."""

    numbers: Ints
    """(chunk,): of the plan."""
    owner: Ints
    """(chunk,): which span."""
    entries: Ints
    """(chunk, 2): offset and length in the object."""
    indexes: list[Ints]
    """Of the object of each span, as it was when this was looked up."""


class _Parts:
    """The parts of some chunks of a plan, and where they go."""

    def __init__(self, plan: ChunkPlan, first: int, last: int, target: Callable[[int], NDArray[Any]]) -> None:
        pairs = slice(*plan.pairs[[first, last]].tolist())
        self._first = first
        self._ends = (plan.pairs[first : last + 1] - pairs.start).tolist()
        regions = plan.region[pairs].tolist()
        targets = {region: target(region) for region in set(regions)}
        self._targets = [targets[region] for region in regions]
        self._boxes = plan.boxes[pairs].tolist()

    def copy(self, number: int, chunk: NDArray[Any], row: int = 0) -> None:
        """Copy the parts of a chunk, of which the rows from `row` on are given."""
        for pair in range(self._ends[number - self._first], self._ends[number - self._first + 1]):
            z, y, x, z1, y1, x1, tz, ty, tx, tz1, ty1, tx1 = self._boxes[pair]
            self._targets[pair][tz:tz1, ty:ty1, tx:tx1] = chunk[z - row : z1 - row, y:y1, x:x1]


class Fetcher:
    """Reads regions of the volumes of one store; all threads share the shards that it keeps open."""

    def __init__(self, location: Location, cache_bytes: int = 0, disk: DiskCache | None = None) -> None:
        self.location = location
        self.cache = ChunkCache(cache_bytes)
        self._shards = Shards(location, disk)
        self._is_near = self._shards.is_near

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
            parts = threads = max(1, min(threads, len(plan.owner) // CHUNKS_PER_THREAD))
            heads: Heads = {}
        else:
            threads = max(threads, FAR_THREADS)
            parts = min(threads, len(regions.volume))
            heads = self._open_ahead(plan, regions, threads)
        runs = runs_of(plan, regions, parts)
        touched, pending = touched_by(plan, runs, len(regions.volume))
        lock = Lock()

        def work(number: int) -> None:
            self._execute(plan, runs[number], regions, target, heads)
            with lock:
                ready = []
                for region in touched[number]:
                    pending[region] -= 1
                    if not pending[region]:
                        ready.append(region)
            for region in ready:
                finish(region)

        for region in [region for region, runs_left in enumerate(pending) if not runs_left]:
            finish(region)
        run_all(work, range(len(runs)), threads)

    def costs(self, plan: ChunkPlan, regions: Regions) -> tuple[int, int]:
        """Give the number of requests for the chunks of a plan, and their bytes; opens their shards."""
        requests = size = 0
        for first, last in runs_of(plan, regions, 1):
            spans = spans_of(plan, first, last, regions)
            _, _, sizes = self._ranges(self._locate(plan, spans, [span.numbers for span in spans]))
            requests += len(sizes)
            size += int(sizes.sum())
        return requests, size

    def _open_ahead(self, plan: ChunkPlan, regions: Regions, threads: int) -> Heads:
        """Open the shards of a plan, several at a time, and read with their indexes what is likely to be wanted."""
        spans = [span for span in spans_of(plan, 0, len(plan.owner), regions) if not self._shards.is_open(span.shard)]
        heads: Heads = {}
        left = AHEAD_BYTES
        wanted = []
        for span in spans:
            size = _head_bytes(span)
            wanted.append((span.shard, size if size <= left else 0))
            left -= wanted[-1][1]

        def open_one(item: tuple[Shard, int]) -> None:
            shard, size = item
            heads[shard.place] = self._shards.open_with_head(shard, size)

        run_all(open_one, wanted, threads)
        return heads

    def _execute(
        self,
        plan: ChunkPlan,
        run: tuple[int, int],
        regions: Regions,
        target: Callable[[int], NDArray[Any]],
        heads: Heads,
    ) -> None:
        """Read the chunks of a run, and scatter them."""
        first, last = run
        parts = _Parts(plan, first, last, target)
        alike: dict[Any, list[Span]] = {}
        for span in spans_of(plan, first, last, regions):
            alike.setdefault(span.shard.array.coding, []).append(span)
        for spans in alike.values():
            self._scatter_anew(plan, spans, parts, heads)

    def _scatter_anew(self, plan: ChunkPlan, spans: list[Span], parts: _Parts, heads: Heads) -> None:
        """Scatter chunks, once more with any shard that is not what it was, or is damaged where it is kept."""
        renewed: set[tuple[str, int]] = set()
        while True:
            try:
                self._scatter(plan, spans, parts, heads)
            except ShardError as error:
                heads.pop(error.shard.place, None)
                if error.shard.place in renewed:
                    self._shards.forget(error.shard)
                    raise
                renewed.add(error.shard.place)
                self._shards.renew(error)
            else:
                return

    def _scatter(self, plan: ChunkPlan, spans: list[Span], parts: _Parts, heads: Heads) -> None:
        """Bring chunks of arrays that are coded alike, and copy their parts to where they belong."""
        array = spans[0].shard.array
        wanted = [self._wanted(plan, span, parts) for span in spans]
        found = self._locate(plan, spans, wanted)
        if not len(found.numbers):
            return
        # a chunk that is kept is kept whole
        rows = np.tile([0, array.chunk[0]], (len(found.numbers), 1)) if self.cache else plan.rows[found.numbers]
        decoder = _decoder(array)
        for part, places in self._bring(spans, found, decoder, heads):
            chunks = decoder.decode(places, found.entries[part, 1], rows[part])
            numbers, owners = found.numbers[part].tolist(), found.owner[part].tolist()
            try:
                for each, of, (chunk, row) in zip(numbers, owners, chunks, strict=True):
                    if self.cache:
                        self.cache.put(_key(plan, spans[of], each), chunk)
                    parts.copy(each, chunk, row)
            except DamagedChunkError as error:
                of = owners[error.number]
                raise self._shards.damaged(spans[of].shard, str(error), index=found.indexes[of]) from error

    def _locate(self, plan: ChunkPlan, spans: list[Span], wanted: list[Ints]) -> Located:
        """Look up where the wanted chunks of each span are."""
        found = [self._shards.entries(span.shard, plan.inner[some]) for span, some in zip(spans, wanted, strict=True)]
        numbers, entries = np.concatenate(wanted), np.concatenate([entries for _, entries in found])
        owner = np.arange(len(spans)).repeat([len(some) for some in wanted])
        order = np.lexsort((entries[:, 0], owner))
        return Located(numbers[order], owner, entries[order], [index for index, _ in found])

    def _wanted(self, plan: ChunkPlan, span: Span, parts: _Parts) -> Ints:
        """Copy the parts of chunks that the cache holds; give the numbers of the others."""
        if not self.cache:
            return span.numbers
        wanted = []
        for number in span.numbers.tolist():
            chunk = self.cache.get(_key(plan, span, number))
            if chunk is None:
                wanted.append(number)
            else:
                parts.copy(number, chunk)
        return np.array(wanted, dtype=np.int64)

    def _bring(
        self, spans: list[Span], found: Located, decoder: ChunkDecoder, heads: Heads
    ) -> Iterator[tuple[slice, Ints]]:
        """Read chunks into the room of a decoder, so many at a time; give which, and their places."""
        begin, starts, sizes = self._ranges(found)
        ends = sizes.cumsum()
        load = (ends - sizes) // REQUEST_BYTES
        for a, b in pairwise([0, *((load[1:] != load[:-1]).nonzero()[0] + 1).tolist(), len(sizes)]):
            bases = ends[a:b] - sizes[a:b]
            bases -= bases[0]
            room = decoder.room(int(sizes[a:b].sum()))
            asked: dict[int, list[tuple[int, NDArray[np.uint8]]]] = {}
            owners = found.owner[begin[a:b]].tolist()
            places = zip(owners, starts[a:b].tolist(), bases.tolist(), sizes[a:b].tolist(), strict=True)
            for of, start, base, size in places:
                asked.setdefault(of, []).append((start, room[base : base + size]))
            self._ask([(spans[of], found.indexes[of], wanted) for of, wanted in asked.items()], heads)
            part = slice(int(begin[a]), int(begin[b]))
            counts = begin[a + 1 : b + 1] - begin[a:b]
            yield part, found.entries[part, 0] + (bases - starts[a:b]).repeat(counts)

    def _ask(self, asked: list[Asked], heads: Heads) -> None:
        """Read ranges of several shards, each of the version that has that index."""

        def ask(item: Asked) -> None:
            span, index, ranges = item
            head = heads.get(span.shard.place)
            left = _take(head.data, ranges) if head and is_same(head.index, index) else ranges
            if left:
                self._shards.read(span.shard, index, left)

        # of a disk one by one, so that no more files are open than are kept open
        run_all(ask, asked, 1 if self._is_near else FAR_THREADS)

    def traffic(self) -> Traffic:
        """Give what was asked of a bucket, and how fast it was; reads of a disk are not counted."""
        return self._shards.pace.traffic()

    def _ranges(self, found: Located) -> tuple[Ints, Ints, Ints]:
        """Give which chunks begin a request, and the first byte and the bytes of each."""
        gap = 0 if self._is_near else self._shards.pace.gap()
        begin = merge_ranges(found.entries, found.owner, gap, REQUEST_BYTES)
        starts = found.entries[begin[:-1], 0]
        return begin, starts, found.entries[begin[1:] - 1].sum(axis=1) - starts


def fetcher_of(catalog: Catalog) -> Fetcher:
    """Give the fetcher of an opened store, which lives as long as that does."""
    # a lock that another thread held at a fork would never open again in the child
    key = os.getpid()
    known = _FETCHERS.get(catalog)
    if known is None or known[0] != key:
        disk = None if catalog.local_cache is None else DiskCache(catalog.local_cache, catalog.local_cache_bytes)
        known = _FETCHERS[catalog] = key, Fetcher(catalog.location, catalog.cache_bytes, disk)
    return known[1]


# a decoder has megabytes, and a bucket is read by many threads: all stores of a process share those of each
_SCRATCH = local()
_FETCHERS: WeakKeyDictionary[Catalog, tuple[int, Fetcher]] = WeakKeyDictionary()


def _decoder(array: ArrayLayout) -> ChunkDecoder:
    """Give this thread's decoder for chunks like those of an array."""
    key = array.coding
    known: tuple[Any, ChunkDecoder] | None = getattr(_SCRATCH, "decoder", None)
    if known is None or known[0] != key:
        known = _SCRATCH.decoder = key, ChunkDecoder(array)
    return known[1]


def _head_bytes(span: Span) -> int:
    """Give how many of the first bytes of a shard to read with its index."""
    array = span.shard.array
    if not array.objects:
        return 0
    size, head = array.objects[span.shard.number]
    likely = size * len(span.numbers) / math.prod(array.chunks_per_shard)
    return head if head <= AHEAD_WASTE * likely else 0


def _take(head: NDArray[np.uint8], ranges: list[tuple[int, NDArray[np.uint8]]]) -> list[tuple[int, NDArray[np.uint8]]]:
    """Fill what the first bytes of an object hold; give the other ranges."""
    left = []
    for start, out in ranges:
        if start + len(out) <= len(head):
            out[:] = head[start : start + len(out)]
        else:
            left.append((start, out))
    return left


def _key(plan: ChunkPlan, span: Span, number: int) -> tuple[str, int, int]:
    """Give what the cache knows a chunk by."""
    return span.shard.volume_id, span.shard.number, int(plan.inner[number])
