"""Parts of a bucket's objects that are kept on a disk, within a limit of bytes.

Objects are kept in blocks, each in a file of its own that ends in the stamp of its object and a checksum; a file comes
into being by a rename, so that any number of processes may share a folder, and one that is torn or damaged is read
again. Blocks of two objects that were written under one key have two stamps, and are never taken together.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
import warnings
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c
import numpy as np

from lesionzarr.store._blob import STAMP_BYTES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.readers._pace import PacedBlob

BLOCK_BYTES = 256 * 1024
CHECKSUM_BYTES = 4
SHARE_LEFT = 0.8
"""Of the limit, what is kept when it is reached, so that it is not reached again at once."""

RECOUNTS = 4
"""Times that a process counts the folder while it writes as much as the limit, whatever the others tell."""

TALLY = "tally"
TALLY_BYTES = 4096
"""Bytes of blocks for which the tally grows by a byte."""

PART_S = 3600.0
"""After which the file of a process that was writing it is left over from one that ended."""

FOLDER, BLOCK, PART = re.compile("[0-9a-f]{2}"), re.compile("[0-9a-f]{62}"), re.compile(r"\.[0-9a-f]{16}\.part")


class Kept(NamedTuple):
    """A block that was kept."""

    data: NDArray[np.uint8]
    stamp: bytes
    """Of its object."""


class DiskCache:
    """A folder of blocks; those that were not used for longest go first.

    All processes that write add to one tally, the length of a file, so that none has to count the folder before the
    limit is reached. Where appending to a file is atomic, as on every local disk, their files have no more bytes than
    the limit, one block for each thread that is writing, and what is written while a process counts. Elsewhere, as on
    NFS, a tally may miss blocks; a process that has written a quarter of the limit counts the folder anyway, so there
    is at most as much more for each process.

    A folder that cannot be written is read only, and one warning says so.

    Parameters
    ----------
    folder
        Made if it is not there. Nothing else belongs into it, and nothing else in it is deleted.
    limit_bytes
        Most bytes of its files.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self._folder, self._limit = folder, limit_bytes
        self._lock = Lock()
        self._written = 0
        self._is_off = False

    def get(self, name: str, size: int) -> Kept | None:
        """Give a block of so many bytes; None where it is not kept, or not whole."""
        path = self._path(name)
        try:
            data = np.fromfile(path, dtype=np.uint8)
        except OSError:
            return None
        content = data[:-CHECKSUM_BYTES]
        if len(content) != size + STAMP_BYTES or _checksum(content) != data[-CHECKSUM_BYTES:].tobytes():
            return None
        # a folder of somebody else's is of use too
        with suppress(OSError):
            os.utime(path)
        return Kept(content[:size], content[size:].tobytes())

    def put(self, name: str, block: NDArray[np.uint8], stamp: bytes) -> None:
        """Keep a block of an object with that stamp, if the folder can be written."""
        if self._is_off:
            return
        path = self._path(name)
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        content = np.concatenate([block, np.frombuffer(stamp, dtype=np.uint8)])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content.tobytes() + _checksum(content))
            part.replace(path)
            with self._lock:
                self._make_room(len(content) + CHECKSUM_BYTES)
        except OSError as error:
            with suppress(OSError):
                part.unlink()
            self._give_up(error.strerror or str(error))

    def drop(self, name: str) -> None:
        """Keep a block no more."""
        with suppress(OSError):
            self._path(name).unlink()

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode()).hexdigest()
        return self._folder / digest[:2] / digest[2:]

    def _give_up(self, fault: str) -> None:
        with self._lock:
            if self._is_off:
                return
            self._is_off = True
        remedy = "free some space, or name another folder"
        text = f"local cache {self._folder.name}: {fault}; nothing more is kept there: {remedy}"
        warnings.warn(text, UserWarning, stacklevel=2)

    def _make_room(self, size: int) -> None:
        """Count bytes that were written, and delete blocks where all processes have written too many."""
        self._written += size
        descriptor = os.open(self._folder / TALLY, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            added = os.write(descriptor, bytes(-(-size // TALLY_BYTES)))
            tally = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        is_first = tally == added
        if is_first or tally * TALLY_BYTES > self._limit or self._written * RECOUNTS > self._limit:
            left = self._shrink()
            self._written = 0
            os.truncate(self._folder / TALLY, -(-left // TALLY_BYTES))
            if left > self._limit:
                raise OSError(f"its files have {left} bytes, and cannot be deleted")

    def _shrink(self) -> int:
        """Delete what was not used for longest; give the bytes that are left."""
        files = sorted(self._blocks())
        left = sum(size for _, size, _ in files)
        if left <= self._limit:
            return left
        for _, size, path in files:
            if left <= SHARE_LEFT * self._limit:
                break
            try:
                path.unlink(missing_ok=True)
            except OSError:
                continue
            left -= size
        return left

    def _blocks(self) -> list[tuple[float, int, Path]]:
        """List the blocks with the time of their last use and their size; delete what was left half written."""
        found = []
        for folder in self._folder.iterdir():
            # another process may have deleted any of them by now
            with suppress(OSError):
                for entry in list(os.scandir(folder)) if FOLDER.fullmatch(folder.name) else ():
                    with suppress(OSError):
                        status = entry.stat()
                        if PART.fullmatch(entry.name) and status.st_mtime < time.time() - PART_S:
                            Path(entry.path).unlink()
                        elif BLOCK.fullmatch(entry.name):
                            found.append((status.st_mtime, status.st_size, Path(entry.path)))
        return found


class CachedBlob:
    """An object of a bucket whose blocks are kept on a disk.

    Parameters
    ----------
    blob
        The object.
    cache
        Where its blocks are kept.
    name
        Says which object it is, as far as that is known without asking for it.
    is_fresh
        What others have kept of it is read again.
    """

    def __init__(self, blob: PacedBlob, cache: DiskCache, name: str, *, is_fresh: bool = False) -> None:
        self.blob, self.size = blob, blob.size
        self._cache, self._name = cache, name
        self._own: set[int] | None = set() if is_fresh else None

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; IntegrityError where the object is another, or ends."""
        numbers = {number for offset, out in wanted for number in _numbers(offset, len(out))}
        usable = numbers if self._own is None else numbers & self._own
        found = {number: self._cache.get(self._block_name(number), self._size_of(number)) for number in usable}
        kept = {number: block for number, block in found.items() if block is not None}
        if kept and self.blob.stamp is None:
            self.blob.stamp = kept[max(kept)].stamp
        blocks = {number: block.data for number, block in kept.items() if block.stamp == self.blob.stamp}
        blocks |= self._fetch(sorted(numbers - blocks.keys()))
        for offset, out in wanted:
            for number in _numbers(offset, len(out)):
                begin = number * BLOCK_BYTES
                first, last = max(offset, begin), min(offset + len(out), begin + BLOCK_BYTES)
                out[first - offset : last - offset] = blocks[number][first - begin : last - begin]

    def drop(self) -> None:
        """Keep none of its blocks any more."""
        for number in _numbers(0, self.size):
            self._cache.drop(self._block_name(number))

    def _fetch(self, numbers: list[int]) -> dict[int, NDArray[np.uint8]]:
        """Read blocks, neighbouring ones by one request, and keep them."""
        if not numbers:
            return {}
        cuts = [0, *(n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1), len(numbers)]
        runs = [numbers[a:b] for a, b in pairwise(cuts)]
        rooms = [np.empty(sum(map(self._size_of, run)), dtype=np.uint8) for run in runs]
        self.blob.read_ranges([(run[0] * BLOCK_BYTES, room) for run, room in zip(runs, rooms, strict=True)])
        stamp = self.blob.stamp
        blocks = {}
        for run, room in zip(runs, rooms, strict=True):
            for place, number in enumerate(run):
                block = blocks[number] = room[place * BLOCK_BYTES : (place + 1) * BLOCK_BYTES]
                if stamp is not None:
                    self._cache.put(self._block_name(number), block, stamp)
        if self._own is not None:
            self._own.update(numbers)
        return blocks

    def _block_name(self, number: int) -> str:
        return f"{self._name} {number}"

    def _size_of(self, number: int) -> int:
        return min(BLOCK_BYTES, self.size - number * BLOCK_BYTES)


def _numbers(offset: int, size: int) -> range:
    """Give the numbers of the blocks that a range touches."""
    return range(offset // BLOCK_BYTES, -(-(offset + size) // BLOCK_BYTES))


def _checksum(data: NDArray[np.uint8]) -> bytes:
    return int(google_crc32c.value(np.ascontiguousarray(data))).to_bytes(CHECKSUM_BYTES, "little")
