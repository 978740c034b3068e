"""Parts of a bucket's objects that are kept on a disk, within a limit of bytes.

Objects are kept in blocks, each in a file of its own that ends in a checksum; a file comes into being by a rename, so
that any number of processes may share a folder, and one that is torn or damaged is read again.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import google_crc32c
import numpy as np

from lesionzarr.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.store.location import Blob

BLOCK_BYTES = 256 * 1024
CHECKSUM_BYTES = 4
SHARE_LEFT = 0.8
"""Of the limit, what is kept when it is reached, so that it is not reached again at once."""


class DiskCache:
    """A folder of blocks; those that were not used for longest go first.

    Parameters
    ----------
    folder
        Made if it is not there. Nothing else belongs into it.
    limit_bytes
        Most bytes of its files; for a moment each process that writes may exceed it by a block.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._lock = Lock()
        self._bytes: int | None = None

    def get(self, name: str, size: int) -> NDArray[np.uint8] | None:
        """Give a block of so many bytes; None where it is not kept, or not whole."""
        path = self._path(name)
        try:
            data = np.fromfile(path, dtype=np.uint8)
            os.utime(path)
        except OSError:
            return None
        block = data[:-CHECKSUM_BYTES]
        if len(block) != size or _checksum(block) != data[-CHECKSUM_BYTES:].tobytes():
            return None
        return block

    def put(self, name: str, block: NDArray[np.uint8]) -> None:
        """Keep a block; StoreError where the folder cannot be written."""
        path = self._path(name)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(block.tobytes() + _checksum(block))
            part.replace(path)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            text = (
                f"local cache {self._folder.name}: {error.strerror or error}; free some space, or name another folder"
            )
            raise StoreError(text) from error
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(size for _, size, _ in self._files())
            else:
                self._bytes += len(block) + CHECKSUM_BYTES
            if self._bytes > self._limit:
                self._bytes = self._shrink()

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / digest[:2] / digest[2:]

    def _files(self) -> list[tuple[float, int, Path]]:
        """List the blocks with the time of their last use and their size."""
        found = []
        for folder, _, names in os.walk(self._folder):
            for name in names:
                # another process may have deleted it by now
                with suppress(OSError):
                    path = Path(folder, name)
                    status = path.stat()
                    found.append((status.st_mtime, status.st_size, path))
        return found

    def _shrink(self) -> int:
        """Delete what was not used for longest; give the bytes that are left."""
        files = sorted(self._files())
        left = sum(size for _, size, _ in files)
        for _, size, path in files:
            if left <= SHARE_LEFT * self._limit:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left


class CachedBlob:
    """An object of a bucket whose blocks are kept on a disk.

    Parameters
    ----------
    blob
        The object.
    cache
        Where its blocks are kept.
    name
        Says what its bytes are: an object that has other bytes has another name.
    """

    def __init__(self, blob: Blob, cache: DiskCache, name: str) -> None:
        self._blob, self._cache, self._name, self.size = blob, cache, name, blob.size

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; IntegrityError where the object ends before."""
        numbers = {
            number
            for offset, out in wanted
            for number in range(offset // BLOCK_BYTES, -(-(offset + len(out)) // BLOCK_BYTES))
        }
        kept = {number: self._cache.get(self._block_name(number), self._size_of(number)) for number in numbers}
        blocks = {number: block for number, block in kept.items() if block is not None}
        blocks |= self._fetch(sorted(numbers - blocks.keys()))
        for offset, out in wanted:
            for number in range(offset // BLOCK_BYTES, -(-(offset + len(out)) // BLOCK_BYTES)):
                begin = number * BLOCK_BYTES
                first, last = max(offset, begin), min(offset + len(out), begin + BLOCK_BYTES)
                out[first - offset : last - offset] = blocks[number][first - begin : last - begin]

    def _fetch(self, numbers: list[int]) -> dict[int, NDArray[np.uint8]]:
        """Read blocks, neighbouring ones by one request, and keep them."""
        if not numbers:
            return {}
        cuts = [0, *(n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1), len(numbers)]
        runs = [numbers[a:b] for a, b in pairwise(cuts)]
        rooms = [np.empty(sum(map(self._size_of, run)), dtype=np.uint8) for run in runs]
        self._blob.read_ranges([(run[0] * BLOCK_BYTES, room) for run, room in zip(runs, rooms, strict=True)])
        blocks = {}
        for run, room in zip(runs, rooms, strict=True):
            for place, number in enumerate(run):
                block = blocks[number] = room[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
                self._cache.put(self._block_name(number), block)
        return blocks

    def _block_name(self, number: int) -> str:
        return f"{self._name} {number}"

    def _size_of(self, number: int) -> int:
        return min(BLOCK_BYTES, self.size - number * BLOCK_BYTES)


def _checksum(block: NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(np.ascontiguousarray(block))).to_bytes(CHECKSUM_BYTES, "little")
