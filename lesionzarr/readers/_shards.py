"""The objects of a store that are open for reading, and where their chunks are."""

from __future__ import annotations

import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.readers._disk_cache import CachedBlob, DiskCache
from lesionzarr.readers._pace import Pace, PacedBlob
from lesionzarr.readers._stale import check_unchanged
from lesionzarr.store import layout
from lesionzarr.store._blob import NO_STAMP, ReplacedError
from lesionzarr.store._folder import Folder
from lesionzarr.store.shards import parse_index

if TYPE_CHECKING:
    from collections.abc import Iterator

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

    @property
    def place(self) -> tuple[str, int]:
        """What tells it from the others of its store."""
        return self.volume_id, self.number

    @property
    def known_bytes(self) -> int | None:
        """Its length, where the catalog tells it."""
        return self.array.objects[self.number][0] if self.array.objects else None


class ShardError(IntegrityError):
    """A shard that is damaged, or another one than what is known of it."""

    shard: Shard
    index: Ints | None = None
    """By which it was read; None where it could not be opened."""
    is_replaced = False
    """It is another one for certain."""


@dataclass(frozen=True)
class OpenShard:
    """A shard, and where its chunks are."""

    blob: Blob
    index: Ints
    """(chunk, 2): offset and length; -1 where the chunk is absent."""


@dataclass(frozen=True)
class Head:
    """First bytes of a shard, and the index that was read with them."""

    index: Ints
    data: NDArray[np.uint8]


class Shards:
    """Shards of one store; all threads share those that are open.

    A shard may be written anew while it is read. Its index and its chunks are taken from one version of it: of a folder
    since the file stays open, of a bucket since every answer tells its version. Where that is another by now, or
    anything is damaged, a `ShardError` says so, and `renew` opens the shard as it is now.

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
        with self._lock:
            known = self._open.get(shard.place)
            if known is not None:
                self._open.move_to_end(shard.place)
                return known
        opened = self._open_anew(shard)
        if shard.known_bytes not in {None, opened.blob.size}:
            check_unchanged(self._location, shard.volume_id, shard.array)
        return self._keep(shard, opened)

    def open_with_head(self, shard: Shard, head_bytes: int) -> Head:
        """Open a shard that is not open, and give its first bytes, or none where that takes a second round trip."""
        head = np.empty(head_bytes, dtype=np.uint8)
        try:
            if shard.known_bytes is None:
                return Head(self.open(shard).index, head[:0])
            return Head(self._keep(shard, self._open_known(shard, shard.known_bytes, head)).index, head)
        except ShardError:
            # perhaps written anew since the catalog was opened: what that knows of it is no use
            return Head(self._keep(shard, self._open_checked(shard)).index, head[:0])

    def is_open(self, shard: Shard) -> bool:
        """Tell whether a shard is open."""
        return shard.place in self._open

    def renew(self, error: ShardError) -> None:
        """Open a shard as it is now, past what is kept of it on a disk, which is dropped.

        Parameters
        ----------
        error
            What was found wrong with it.

        Raises
        ------
        StoreError
            It is damaged or missing, or its volume was written anew with other voxels or in another form.
        """
        shard, index = error.shard, error.index
        self.forget(shard)
        opened = self._open_checked(shard, is_fresh=True)
        if index is not None and error.is_replaced and is_same(index, opened.index):
            # of one content: each of several servers with copies of an object may have a stamp of its own for it
            blob = opened.blob.blob if isinstance(opened.blob, CachedBlob) else opened.blob
            if isinstance(blob, PacedBlob):
                blob.stamp = NO_STAMP
            opened = OpenShard(blob, opened.index)
        elif index is not None and not shard.array.version and not is_same(index, opened.index):
            # nothing tells whether it has the same voxels
            raise StoreError(f"{self._location.name}: {shard.key} was written anew; open it again")
        self._keep(shard, opened)

    def forget(self, shard: Shard) -> None:
        """Close a shard, and drop what is kept of it on a disk."""
        with self._lock:
            old = self._open.pop(shard.place, None)
        if old is not None and isinstance(old.blob, CachedBlob):
            old.blob.drop()

    def _keep(self, shard: Shard, opened: OpenShard) -> OpenShard:
        with self._lock:
            self._open[shard.place] = opened
            if len(self._open) > self._most:
                self._open.popitem(last=False)
        return opened

    def entries(self, shard: Shard, inner: Ints) -> tuple[Ints, Ints]:
        """Give the index of a shard, and offset and length, (chunk, 2), of chunks; ShardError where one is absent."""
        index = self.open(shard).index
        entries = index[inner]
        if (entries < 0).any():
            raise self.damaged(shard, "a chunk is absent")
        return index, entries

    def read(self, shard: Shard, index: Ints, wanted: list[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; ShardError unless the shard still has that index."""
        opened = self.open(shard)
        if not is_same(opened.index, index):
            error = self.damaged(shard, "written anew while it is read", "open the store again", index=index)
            error.is_replaced = True
            raise error
        with _named(shard, index):
            opened.blob.read_ranges(wanted)

    def damaged(self, shard: Shard, fault: str, remedy: str = "", *, index: Ints | None = None) -> ShardError:
        """Make the error that names a shard, which was read by that index."""
        name = self._location.name
        remedy = remedy or ("pack them again" if shard.array.merged_axes else "convert it again")
        error = ShardError(f"{name}: volume {shard.volume_id}, {shard.key}: {fault}; {remedy}")
        error.shard, error.index = shard, index
        return error

    def _open_checked(self, shard: Shard, *, is_fresh: bool = False) -> OpenShard:
        """Open a shard that is not as it was known; StoreError where its volume is another one."""
        try:
            opened = self._open_anew(shard, is_fresh=is_fresh)
        except ShardError:
            check_unchanged(self._location, shard.volume_id, shard.array)
            raise
        # afterwards, since a writer deletes the group of a volume before it writes the shards
        check_unchanged(self._location, shard.volume_id, shard.array)
        return opened

    def _open_anew(self, shard: Shard, *, is_fresh: bool = False) -> OpenShard:
        array = shard.array
        if array.indexed and not array.index_first:
            began = time.perf_counter()
            with _named(shard):
                found = self._location.open_tail(shard.key, array.index_bytes)
            if found is None:
                raise self.damaged(shard, "missing")
            blob, data = found
            self.pace.record(1, len(data), time.perf_counter() - began)
            measured = self._measured(shard, blob, is_fresh=is_fresh)
            return self._parsed(shard, measured, np.frombuffer(data, dtype=np.uint8))
        opened = self._location.open(shard.key)
        if opened is None:
            raise self.damaged(shard, "missing")
        if not array.indexed:
            return OpenShard(self._measured(shard, opened, is_fresh=is_fresh), np.array([[0, opened.size]]))
        index = np.empty(min(array.index_bytes, opened.size), dtype=np.uint8)
        return self._read_index(shard, self._measured(shard, opened, is_fresh=is_fresh), index, [(0, index)])

    def _open_known(self, shard: Shard, size: int, head: NDArray[np.uint8]) -> OpenShard:
        """Read the index of a shard of known length, and its first bytes, at once."""
        opened = self._location.open(shard.key, size)
        if opened is None:
            raise self.damaged(shard, "missing")
        index = np.empty(shard.array.index_bytes, dtype=np.uint8)
        wanted = [(size - len(index), index), *([(0, head)] if len(head) else [])]
        return self._read_index(shard, self._measured(shard, opened), index, wanted)

    def _measured(self, shard: Shard, blob: Any, *, is_fresh: bool = False) -> Blob:
        """Give an object whose reads are measured, and kept on a disk where that is asked for."""
        if self.is_near:
            near: Blob = blob
            return near
        paced = PacedBlob(blob, self.pace)
        if self._disk is None or not shard.array.version:
            return paced
        form = replace(shard.array, objects=())
        return CachedBlob(paced, self._disk, f"2 {form} {shard.key} {blob.size}", is_fresh=is_fresh)

    def _read_index(
        self, shard: Shard, blob: Blob, index: NDArray[np.uint8], wanted: list[tuple[int, NDArray[np.uint8]]]
    ) -> OpenShard:
        try:
            with _named(shard):
                blob.read_ranges(wanted)
            return self._parsed(shard, blob, index)
        except ShardError:
            if isinstance(blob, CachedBlob):
                blob.drop()
            raise

    def _parsed(self, shard: Shard, blob: Blob, index: NDArray[np.uint8]) -> OpenShard:
        if len(index) < shard.array.index_bytes:
            raise self.damaged(shard, f"cut off ({blob.size} bytes)")
        try:
            return OpenShard(blob, parse_index(index, shard.array, blob.size))
        except ValueError as error:
            raise self.damaged(shard, str(error)) from error


def is_same(index: Ints, other: Ints) -> bool:
    """Tell whether the chunks of two versions of a shard lie at the same places."""
    return index is other or np.array_equal(index, other)


@contextmanager
def _named(shard: Shard, index: Ints | None = None) -> Iterator[None]:
    """Let an error tell which shard it is about."""
    try:
        yield
    except ShardError:
        raise
    except IntegrityError as error:
        fault = ShardError(str(error))
        fault.shard, fault.index, fault.is_replaced = shard, index, isinstance(error, ReplacedError)
        raise fault from error
