"""Decoded chunks that are kept for the next batch, up to a number of bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Key = tuple[str, int, int]


@dataclass(frozen=True)
class CacheInfo:
    """What a cache of decoded chunks has done so far."""

    hits: int
    """Chunks that were there."""
    misses: int
    """Chunks that had to be read."""
    chunks: int
    """Chunks that are kept now."""
    bytes: int
    """Their size, decoded."""
    budget_bytes: int
    """Most bytes that are kept; 0 where the cache is off."""


class ChunkCache:
    """The chunks that were used last; any number of threads may share it.

    Parameters
    ----------
    budget_bytes
        Most bytes of decoded chunks; 0 keeps nothing.
    """

    def __init__(self, budget_bytes: int) -> None:
        self._budget = budget_bytes
        self._chunks: OrderedDict[Key, NDArray[Any]] = OrderedDict()
        self._lock = Lock()
        self._hits = self._misses = self._bytes = 0

    def __bool__(self) -> bool:
        return self._budget > 0

    def get(self, key: Key) -> NDArray[Any] | None:
        """Give a chunk, by volume, shard and place in the shard; None where it is not kept. It must not be changed."""
        with self._lock:
            chunk = self._chunks.get(key)
            if chunk is None:
                self._misses += 1
            else:
                self._hits += 1
                self._chunks.move_to_end(key)
            return chunk

    def put(self, key: Key, chunk: NDArray[Any]) -> None:
        """Keep a copy of a chunk, in place of those that were not used for longest."""
        if chunk.nbytes > self._budget:
            return
        copy = chunk.copy()
        with self._lock:
            if key in self._chunks:
                return
            self._chunks[key] = copy
            self._bytes += copy.nbytes
            while self._bytes > self._budget:
                _, oldest = self._chunks.popitem(last=False)
                self._bytes -= oldest.nbytes

    def info(self) -> CacheInfo:
        """Give statistics."""
        with self._lock:
            return CacheInfo(self._hits, self._misses, len(self._chunks), self._bytes, self._budget)
