"""The objects of a store that are open for reading, and where their chunks are."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lesionzarr.errors import IntegrityError
from lesionzarr.store import layout
from lesionzarr.store.shards import parse_index

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.location import Blob, Location

    Ints = NDArray[np.int64]

OPEN_SHARDS = 256
"""Shards that are kept open, each with a file handle and an index of 16 bytes a chunk."""


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
    """

    def __init__(self, location: Location) -> None:
        self._location = location
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
        with self._lock:
            self._open[key] = opened
            if len(self._open) > OPEN_SHARDS:
                self._open.popitem(last=False)
        return opened

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
        blob = self._location.open(shard.key)
        if blob is None:
            raise self.damaged(shard, "missing")
        if not array.indexed:
            return OpenShard(blob, np.array([[0, blob.size]]))
        if blob.size < array.index_bytes:
            raise self.damaged(shard, f"cut off ({blob.size} bytes)")
        data = np.empty(array.index_bytes, dtype=np.uint8)
        blob.read_into(0 if array.index_first else blob.size - array.index_bytes, data)
        try:
            return OpenShard(blob, parse_index(data, array, blob.size))
        except ValueError as error:
            raise self.damaged(shard, str(error)) from error
