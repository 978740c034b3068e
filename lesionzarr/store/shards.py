"""Shards of the ``sharding_indexed`` codec: encoded whole, decoded chunk by chunk.

A shard is its inner chunks, one after the other in C order of the chunk grid, then an index of (offset, length) pairs
of little-endian uint64, then the CRC-32C of the index. zarr-python 3.1 writes the same format in Morton order; written
here the order is the one that crops read along, and the bytes are equal whatever the version of zarr.
"""

from __future__ import annotations

import itertools
import struct
from typing import TYPE_CHECKING, Any, cast

import google_crc32c
import numcodecs
import numpy as np
from numcodecs import blosc, zstd

from lesionzarr.errors import MissingExtraError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout

    Encode = Callable[[Any], Any]


def encode_shard(
    voxels: NDArray[Any], shard_shape: tuple[int, ...], chunk_shape: tuple[int, ...], fill_value: int, codecs: list[Any]
) -> bytes:
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

    Returns
    -------
    bytes
        The shard, every inner chunk present.
    """
    encode = encoder(codecs)
    parts: list[bytes] = []
    index: list[int] = []
    offset = 0
    for chunk in _iter_chunks(voxels, shard_shape, chunk_shape, fill_value):
        part = encode(chunk)
        parts.append(part)
        index += [offset, len(part)]
        offset += len(part)
    table = np.asarray(index, dtype="<u8").tobytes()
    return b"".join([*parts, table, crc32c(table)])


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


def decoder(layout: ArrayLayout) -> Callable[[NDArray[np.uint8], NDArray[Any]], None]:
    """Make the function that decodes a chunk of an array.

    Parameters
    ----------
    layout
        Of the array.

    Returns
    -------
    callable
        Takes the bytes as stored and the array to decode into, contiguous, of the chunk's shape and dtype; ValueError
        where the bytes are damaged. It holds no state: any number of threads may use it.
    """
    decompress = {"blosc": _decode_blosc, "zstd": _decode_zstd, None: _decode_plain}[layout.compressor]
    if not layout.checked:
        return decompress

    def decode(stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
        payload = stored[:-4]
        if google_crc32c.value(payload) != int.from_bytes(stored[-4:], "little"):
            raise ValueError("the checksum of a chunk is wrong")
        decompress(payload, out)

    return decode


def _decode_blosc(stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
    # Blosc believes its header: it would leave a part of `out` as it was, or read on past the end of `stored`
    header = np.frombuffer(stored[:16].tobytes().ljust(16, b"\0"), dtype="<u4")
    if len(stored) < 16 or (int(header[1]), int(header[3])) != (out.nbytes, len(stored)):
        raise ValueError(f"a chunk is no Blosc buffer of {out.nbytes} bytes")
    try:
        blosc.decompress(stored, out)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _decode_zstd(stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
    try:
        if _zstd_size(stored) == out.nbytes:
            zstd.decompress(stored, out)
        else:
            # a frame may leave its size open, and into `out` a shorter one would leave a part as it was
            _decode_plain(np.frombuffer(zstd.decompress(stored), dtype=np.uint8), out)
    except RuntimeError as error:
        raise ValueError(str(error)) from error


def _zstd_size(stored: NDArray[np.uint8]) -> int | None:
    """Give the size that a Zstandard frame says it has decoded (RFC 8878, 3.1.1.1); None where it does not say."""
    head = stored[:18].tobytes()
    if len(head) < 5:
        return None
    single, width = head[4] >> 5 & 1, (0, 2, 4, 8)[head[4] >> 6]
    width = width or single
    start = 6 - single + (0, 1, 2, 4)[head[4] & 3]
    return int.from_bytes(head[start : start + width], "little") + 256 * (width == 2) if width else None


def _decode_plain(stored: NDArray[np.uint8], out: NDArray[Any]) -> None:
    if stored.nbytes != out.nbytes:
        raise ValueError(f"a chunk has {stored.nbytes} bytes instead of {out.nbytes}")
    out.reshape(-1).view(np.uint8)[:] = stored


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
            try:
                pcodec = numcodecs.get_codec({"id": "pcodec", **settings})
            except (ImportError, numcodecs.errors.UnknownCodecError) as error:
                raise MissingExtraError("profile 'dense' needs pcodec: pip install 'lesionzarr[dense]'") from error
            return cast("Encode", pcodec.encode)
        case "crc32c":
            return lambda data: data + crc32c(data)
    raise SettingError(f"codec {name!r} is not written by lesionzarr")


def _little_endian(chunk: NDArray[Any]) -> NDArray[Any]:
    # stays an array, so that Blosc sees the item size that its byte shuffle needs
    return chunk.astype(chunk.dtype.newbyteorder("<"), copy=False)


def _iter_chunks(
    voxels: NDArray[Any], shard_shape: tuple[int, ...], chunk_shape: tuple[int, ...], fill_value: int
) -> Iterator[NDArray[Any]]:
    starts = (range(0, shard, chunk) for shard, chunk in zip(shard_shape, chunk_shape, strict=True))
    for start in itertools.product(*starts):
        part = voxels[tuple(slice(at, at + size) for at, size in zip(start, chunk_shape, strict=True))]
        if part.shape != chunk_shape:
            whole = np.full(chunk_shape, fill_value, dtype=voxels.dtype)
            whole[tuple(slice(0, size) for size in part.shape)] = part
            part = whole
        yield np.ascontiguousarray(part)
