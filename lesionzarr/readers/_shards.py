"""The objects of a store that are open for reading, and where their chunks are."""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionzarr.errors import IntegrityError
from lesionzarr.readers._disk_cache import CachedBlob, DiskCache
from lesionzarr.readers._pace import Pace, PacedBlob
from lesionzarr.store import layout
from lesionzarr.store._folder import Folder
from lesionzarr.store.shards import parse_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.location import Blob, Location

    Ints = NDArray[np.int64]

OPEN_SHARDS = 256
"""Shards of a disk that are kept open, each with a file handle and an index of 16 bytes a chunk."""

FAR_OPEN_SHARDS = 4096
"""The same of a bucket, without handles. A shard that is forgotten costs another round trip, so there have to be more
than all batches of this process hold at a time; the indexes of so many have some 30 MB."""


class Shard(NamedTuple):
    """One object of an array: a shard, or a chunk that is stored by itself."""

    volume_id: str
    array: ArrayLayout
    number: int
    """In the grid of the array, in C order."""

    @property
    def key(self) -> str:
        """Where it is in the store."""
        place = np.unravel_index(self.number, self.array.grid)
        return f"{layout.volume_key(self.volume_id)}/{self.array.name}/{self.array.key([int(at) for at in place])}"


@dataclass(frozen=True)
class OpenShard:
    """A shard, and where its chunks are."""

    blob: Blob
    index: Ints
    """(chunk, 2): offset and length; -1 where the chunk is absent."""


class Shards:
    """Shards of one store; all threads share those that are open.

    Parameters
    ----------
    location
        The store.
    disk
        Where blocks of a bucket's objects are kept.
    """

    def __init__(self, location: Location, disk: DiskCache | None = None) -> None:
        self.is_near = isinstance(location, Folder)
        self._most = OPEN_SHARDS if self.is_near else FAR_OPEN_SHARDS
        self.pace = Pace()
        self._location, self._disk = location, disk
        self._open: OrderedDict[tuple[str, int], OpenShard] = OrderedDict()
        self._lock = Lock()

    def open(self, shard: Shard) -> OpenShard:
        """Open a shard, and read its index, unless it is open; StoreError where that cannot be done."""
        key = shard.volume_id, shard.number
        with self._lock:
            known = self._open.get(key)
            if known is not None:
                self._open.move_to_end(key)
                return known
        opened = self._open_anew(shard)
        self._keep(shard, opened)
        return opened

    def open_with_head(self, shard: Shard, head_bytes: int) -> NDArray[np.uint8]:
        """Open a shard that is not open, and give its first bytes, or nothing where that takes a second round trip."""
        head = np.empty(head_bytes, dtype=np.uint8)
        if shard.array.objects:
            try:
                self._keep(shard, self._open_known(shard, head))
            except IntegrityError:
                # written anew since the catalog was opened: what that knows of it is no use
                pass
            else:
                return head
        self._keep(shard, self._open_anew(shard))
        return head[:0]

    def is_open(self, shard: Shard) -> bool:
        """Tell whether a shard is open."""
        return (shard.volume_id, shard.number) in self._open

    def _keep(self, shard: Shard, opened: OpenShard) -> None:
        with self._lock:
            self._open[shard.volume_id, shard.number] = opened
            if len(self._open) > self._most:
                self._open.popitem(last=False)

    def entries(self, shard: Shard, inner: Ints) -> Ints:
        """Give offset and length, (chunk, 2), of chunks of a shard; IntegrityError where one is absent."""
        entries = self.open(shard).index[inner]
        if (entries < 0).any():
            raise self.damaged(shard, "a chunk is absent")
        return entries

    def damaged(self, shard: Shard, fault: str) -> IntegrityError:
        """Make the error that names a shard."""
        name = self._location.name
        remedy = "pack them again" if shard.array.merged_axes else "convert it again"
        return IntegrityError(f"{name}: volume {shard.volume_id}, {shard.key}: {fault}; {remedy}")

    def _open_anew(self, shard: Shard) -> OpenShard:
        array = shard.array
        if array.indexed and not array.index_first:
            began = time.perf_counter()
            found = self._location.open_tail(shard.key, array.index_bytes)
            if found is None:
                raise self.damaged(shard, "missing")
            blob, data = found
            self.pace.record(1, len(data), time.perf_counter() - began)
            return self._parsed(shard, self._measured(shard, blob), np.frombuffer(data, dtype=np.uint8))
        opened = self._location.open(shard.key)
        if opened is None:
            raise self.damaged(shard, "missing")
        if not array.indexed:
            return OpenShard(self._measured(shard, opened), np.array([[0, opened.size]]))
        index = np.empty(min(array.index_bytes, opened.size), dtype=np.uint8)
        opened = self._measured(shard, opened)
        opened.read_ranges([(0, index)])
        return self._parsed(shard, opened, index)

    def _measured(self, shard: Shard, blob: Blob) -> Blob:
        """Give an object whose reads are measured, and kept on a disk where that is asked for."""
        if self.is_near:
            return blob
        paced = PacedBlob(blob, self.pace)
        if self._disk is None or not shard.array.version:
            return paced
        return CachedBlob(paced, self._disk, f"{shard.array.version} {shard.key} {blob.size}")

    def _parsed(self, shard: Shard, blob: Blob, index: NDArray[np.uint8]) -> OpenShard:
        if len(index) < shard.array.index_bytes:
            raise self.damaged(shard, f"cut off ({blob.size} bytes)")
        try:
            return OpenShard(blob, parse_index(index, shard.array, blob.size))
        except ValueError as error:
            raise self.damaged(shard, str(error)) from error

    def _open_known(self, shard: Shard, head: NDArray[np.uint8]) -> OpenShard:
        """Read the index of a shard of known length, and its first bytes, at once."""
        size, _ = shard.array.objects[shard.number]
        blob = self._location.open(shard.key, size)
        if blob is None:
            raise self.damaged(shard, "missing")
        blob = self._measured(shard, blob)
        index = np.empty(shard.array.index_bytes, dtype=np.uint8)
        blob.read_ranges([(size - len(index), index), *([(0, head)] if len(head) else [])])
        return self._parsed(shard, blob, index)
