"""Shards of the ``sharding_indexed`` codec: encoded whole, decoded chunk by chunk.

A shard is its inner chunks, one after the other in any order, then an index of (offset, length) pairs of little-endian
uint64 in C order of the chunk grid, then the CRC-32C of the index. zarr-python 3.1 writes the same format in Morton
order; written here the chunks that a lesion's crop needs lie together, so that one request brings them, and the bytes
are equal whatever the version of zarr.
"""

from __future__ import annotations

import itertools
import math
import struct
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import google_crc32c
import numcodecs
import numpy as np

from lesionzarr.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from lesionzarr.geometry import Region
    from lesionzarr.store.arrays import ArrayLayout

    Encode = Callable[[Any], Any]


class EncodedShard(NamedTuple):
    """A shard, ready to be written."""

    data: bytes
    head_bytes: int
    """Length of the chunks that were to come first."""


def encode_shard(
    voxels: NDArray[Any],
    shard_shape: tuple[int, ...],
    chunk_shape: tuple[int, ...],
    fill_value: float,
    codecs: list[Any],
    order: Iterable[int] = (),
) -> EncodedShard:
    """Encode one shard.

    Parameters
    ----------
    voxels
        The part of the array that the shard covers, of at most `shard_shape`.
    shard_shape, chunk_shape
        Shape of the shard and of its inner chunks; the first a multiple of the second.
    fill_value
        Value of the voxels beyond the array's edge.
    codecs
        Zarr v3 metadata of the inner codecs.
    order
        Numbers, in C order, of the chunks that are written first; the others follow in C order.

    Returns
    -------
    EncodedShard
        Every inner chunk is present.
    """
    encode = encoder(codecs)
    parts = [encode(chunk) for chunk in _iter_chunks(voxels, shard_shape, chunk_shape, fill_value)]
    first = list(dict.fromkeys(order))
    places = list(dict.fromkeys([*first, *range(len(parts))]))
    lengths = np.array([len(part) for part in parts], dtype="<u8")
    offsets = np.empty_like(lengths)
    offsets[places] = np.cumsum(lengths[places]) - lengths[places]
    table = np.stack([offsets, lengths], axis=1).tobytes()
    data = b"".join([*(parts[place] for place in places), table, crc32c(table)])
    return EncodedShard(data, int(lengths[first].sum()))


def chunks_of_regions(
    regions: Iterable[Region], first: int, shard_shape: tuple[int, ...], chunk_shape: tuple[int, ...]
) -> list[int]:
    """Give the chunks of a shard that regions of its volume touch, region by region.

    Parameters
    ----------
    regions
        Of the volume; they may leave it.
    first
        Slice of the volume that the shard begins with; it holds whole slices.
    shard_shape, chunk_shape
        Shape of the shard and of its inner chunks.

    Returns
    -------
    list of int
        Numbers in C order, each once.
    """
    grid = [outer // inner for outer, inner in zip(shard_shape, chunk_shape, strict=True)]
    numbers = np.arange(math.prod(grid)).reshape(grid)
    found: dict[int, None] = {}
    for region in regions:
        starts, stops = (np.array(ends) - (first, 0, 0) for ends in (region.start, region.stop))
        part = tuple(
            slice(max(start // size, 0), max(-(-stop // size), 0))
            for start, stop, size in zip(starts.tolist(), stops.tolist(), chunk_shape, strict=True)
        )
        found |= dict.fromkeys(numbers[part].ravel().tolist())
    return list(found)


def encoder(codecs: list[dict[str, Any]]) -> Callable[[NDArray[Any]], bytes]:
    """Make the function that encodes an array by a list of codecs.

    Parameters
    ----------
    codecs
        Zarr v3 metadata: ``bytes``, ``blosc`` and ``crc32c``, or ``numcodecs.pcodec`` in place of the first two.

    Returns
    -------
    callable
        Array to bytes.

    Raises
    ------
    MissingExtraError
        The codec needs a package that is not installed.
    SettingError
        A codec that is not written here.
    """
    steps = [_step(codec["name"], codec.get("configuration", {})) for codec in codecs]

    def encode(chunk: NDArray[Any]) -> bytes:
        data: Any = chunk
        for step in steps:
            data = step(data)
        return bytes(data)

    return encode


def decoder(codecs: list[dict[str, Any]], dtype: str) -> Callable[[Any], NDArray[Any]]:
    """Make the function that decodes what `encoder` gives by the same codecs; a checksum is left to the caller.

    Parameters
    ----------
    codecs
        Zarr v3 metadata, as of `encoder`.
    dtype
        Of the values.

    Returns
    -------
    callable
        Bytes, less their checksum, to a flat array. It raises RuntimeError or ValueError for bytes that are none.

    Raises
    ------
    MissingExtraError
        The codec needs a package that is not installed.
    """
    codec: Any = _pcodec(codecs[0]["configuration"]) if codecs[0]["name"] == "numcodecs.pcodec" else numcodecs.Blosc()
    stored = np.dtype(dtype).newbyteorder("<")

    def decode(data: Any) -> NDArray[Any]:
        return np.frombuffer(codec.decode(data), dtype=stored)

    return decode


def parse_index(data: NDArray[np.uint8], layout: ArrayLayout, object_bytes: int) -> NDArray[np.int64]:
    """Read the index of a shard.

    Parameters
    ----------
    data
        The index as stored, with its checksum.
    layout
        Of the array.
    object_bytes
        Length of the whole shard.

    Returns
    -------
    ndarray of int64
        (chunk, 2): offset and length of every inner chunk, in C order; both -1 where a chunk is absent.

    Raises
    ------
    ValueError
        A wrong checksum, or a chunk that would lie outside of the shard.
    """
    table = data
    if layout.index_checked:
        table = data[:-4]
        if crc32c(table) != data[-4:].tobytes():
            raise ValueError("the checksum of its index is wrong")
    index = table.view("<u8").reshape(-1, 2).astype(np.int64)
    offset, length = index[(index != -1).any(axis=1)].T
    # no sum: that of two lengths of a damaged index may be too long for its integers
    if (offset < 0).any() or (length < 0).any() or (offset > object_bytes - length).any():
        raise ValueError("its index points outside of it")
    return index


def crc32c(data: Any) -> bytes:
    """Give the CRC-32C (Castagnoli) of `data` as 4 bytes, little endian."""
    return struct.pack("<I", google_crc32c.value(data))


def _step(name: str, settings: dict[str, Any]) -> Encode:
    match name:
        case "bytes":
            return _little_endian
        case "blosc":
            shuffle = {"noshuffle": 0, "shuffle": 1, "bitshuffle": 2}[settings["shuffle"]]
            codec = numcodecs.Blosc(settings["cname"], settings["clevel"], shuffle, settings["blocksize"])
            return cast("Encode", codec.encode)
        case "numcodecs.pcodec":
            return cast("Encode", _pcodec(settings).encode)
        case "crc32c":
            return lambda data: data + crc32c(data)
    raise SettingError(f"codec {name!r} is not written by lesionzarr")


def _pcodec(settings: dict[str, Any]) -> Any:
    try:
        return numcodecs.get_codec({"id": "pcodec", **settings})
    except (ImportError, numcodecs.errors.UnknownCodecError) as error:
        raise MissingExtraError("profile 'dense' needs pcodec: pip install 'lesionzarr[dense]'") from error


def _little_endian(chunk: NDArray[Any]) -> NDArray[Any]:
    # stays an array, so that Blosc sees the item size that its byte shuffle needs
    return chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)


def _iter_chunks(
    voxels: NDArray[Any], shard_shape: tuple[int, ...], chunk_shape: tuple[int, ...], fill_value: float
) -> Iterator[NDArray[Any]]:
    starts = (range(0, shard, chunk) for shard, chunk in zip(shard_shape, chunk_shape, strict=True))
    for start in itertools.product(*starts):
        part = voxels[tuple(slice(at, at + size) for at, size in zip(start, chunk_shape, strict=True))]
        if part.shape != chunk_shape:
            whole = np.full(chunk_shape, fill_value, dtype=voxels.dtype)
            whole[tuple(slice(0, size) for size in part.shape)] = part
            part = whole
        yield np.ascontiguousarray(part)
