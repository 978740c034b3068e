"""Shards looked at as bytes: their index, the checksum of every chunk, and the SHA-256 of what they hold.

Memory: one shard as it is stored, and its decoded voxels.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np

from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.store import layout
from lesionzarr.store.chunks import CRC_OF_CHECKED
from lesionzarr.store.shards import crc32c, decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lesionzarr.store.location import Location

    Ints = NDArray[np.int64]


class Fault(ValueError):  # noqa: N818 - what is wrong with an object, which is no error of its reader
    """What is wrong with an object of a store."""


@dataclass(frozen=True)
class Values:
    """What the values of an array are, all of its shards together."""

    checksum: str
    """SHA-256, little endian, C order."""
    first: float
    lowest: float


def read_object(location: Location, key: str) -> bytes:
    """Read an object whole; Fault if it is absent, empty, or on a part of the disk that cannot be read."""
    with _disk_faults():
        data = location.read(key)
    if not data:
        raise Fault("missing" if data is None else "empty")
    return data


@contextmanager
def _disk_faults() -> Iterator[None]:
    """Make damage of what a disk cannot read; a service that cannot be reached stays an error of this run."""
    try:
        yield
    except StoreError as error:
        if error.errno is None and not isinstance(error, IntegrityError):
            raise
        raise Fault(f"cannot be read ({error})") from error


def check_index(location: Location, key: str, shape: tuple[int, int, int]) -> None:
    """Raise Fault unless the index of a shard is right, and its chunks fill the shard; one request.

    Parameters
    ----------
    location, key
        The store, and the key of the shard.
    shape
        Of the array.
    """
    with _disk_faults():
        opened = location.open_tail(key, index_bytes(shape))
    if opened is None:
        raise Fault("missing")
    blob, tail = opened
    _parse_index(np.frombuffer(tail, dtype=np.uint8), index_bytes(shape), blob.size)


def read_array(
    location: Location, key: str, shape: tuple[int, int, int], dtype: str, codecs: list[dict[str, Any]]
) -> tuple[dict[str, str], Values | None]:
    """Read every shard of an array.

    Parameters
    ----------
    location, key
        The store, and the key of the array.
    shape, dtype, codecs
        Of the array, and the Zarr v3 metadata of its inner codecs.

    Returns
    -------
    faults : dict
        What is wrong with each damaged shard, by its key; missing ones are left out.
    values : Values or None
        None where there is a fault, or a shard is missing.
    """
    shard_shape = layout.shard_shape(shape)
    decode = decoder(codecs, dtype)
    digest = hashlib.sha256()
    first, lowest, whole = 0.0, math.inf, True
    faults: dict[str, str] = {}
    for number, start in enumerate(range(0, shape[0], shard_shape[0])):
        name = f"{key}/c/{number}/0/0"
        try:
            # nothing but a shard's first and lowest value outlives it
            ends = _digest_shard(digest, _read_shard(location, name, shape, dtype, decode), start, shape)
        except Fault as fault:
            whole = False
            if str(fault) not in {"missing", "empty"}:
                faults[name] = str(fault)
            continue
        first, lowest = ends[0] if number == 0 else first, min(lowest, ends[1])
    return faults, Values(f"sha256:{digest.hexdigest()}", first, lowest) if whole else None


def index_bytes(shape: tuple[int, int, int]) -> int:
    """Give the size of the index of each shard of an array of some shape, with its checksum."""
    shards = zip(layout.shard_shape(shape), layout.CHUNK, strict=True)
    return 16 * math.prod(shard // chunk for shard, chunk in shards) + 4


def damage(data: bytes, shape: tuple[int, int, int]) -> str | None:
    """Say what is wrong with a shard of an array of some shape, as far as its own checksums tell."""
    try:
        _check_chunks(np.frombuffer(data, dtype=np.uint8), shape)
    except Fault as fault:
        return str(fault)
    return None


def _digest_shard(digest: Any, voxels: NDArray[Any], start: int, shape: tuple[int, int, int]) -> tuple[float, float]:
    """Add the voxels of a shard to a SHA-256; give the first and the lowest."""
    part = voxels[: shape[0] - start, : shape[1], : shape[2]]
    for plane in part:
        digest.update(np.ascontiguousarray(plane).data)
    return float(part[0, 0, 0]), float(part.min())


def _read_shard(
    location: Location,
    key: str,
    shape: tuple[int, int, int],
    dtype: str,
    decode: Callable[[Any], NDArray[Any]],
) -> NDArray[Any]:
    data = np.frombuffer(read_object(location, key), dtype=np.uint8)
    index = _check_chunks(data, shape)
    shard_shape = layout.shard_shape(shape)
    voxels = np.empty(shard_shape, dtype=np.dtype(dtype).newbyteorder("<"))
    for place, (offset, length) in zip(_places(shard_shape), index.tolist(), strict=True):
        try:
            voxels[place] = decode(data[offset : offset + length - 4]).reshape(layout.CHUNK)
        except (RuntimeError, ValueError) as error:
            raise Fault(f"a chunk with a right checksum cannot be decoded ({error})") from error
    return voxels


def _check_chunks(data: NDArray[np.uint8], shape: tuple[int, int, int]) -> Ints:
    """Check the index and every chunk of a shard; give offset and length of each."""
    size = index_bytes(shape)
    index = _parse_index(data[-size:], size, len(data))
    wrong = sum(google_crc32c.value(data[at : at + length]) != CRC_OF_CHECKED for at, length in index.tolist())
    if wrong:
        raise Fault(f"the checksum is wrong of {wrong} of its {len(index)} chunks")
    return index


def _parse_index(tail: NDArray[np.uint8], size: int, object_bytes: int) -> Ints:
    table = tail[:-4]
    if len(tail) != size or crc32c(table) != tail[-4:].tobytes():
        raise Fault("its index is damaged, or its end is cut off")
    index: Ints = np.frombuffer(table.tobytes(), dtype="<u8").reshape(-1, 2).astype(np.int64)
    offsets, lengths = index[np.lexsort((index[:, 1], index[:, 0]))].T
    ends = np.cumsum(lengths)
    # one after the other from the start up to the index, so that every byte belongs to one
    if (offsets != ends - lengths).any() or ends[-1] + size != object_bytes:
        raise Fault("its chunks do not fill it, or it has lost some bytes")
    return index


def _places(shard_shape: tuple[int, int, int]) -> Iterator[tuple[slice, ...]]:
    """Give where the chunks of a shard lie in it, in C order."""
    starts = (range(0, size, chunk) for size, chunk in zip(shard_shape, layout.CHUNK, strict=True))
    for start in itertools.product(*starts):
        yield tuple(slice(at, at + size) for at, size in zip(start, layout.CHUNK, strict=True))
