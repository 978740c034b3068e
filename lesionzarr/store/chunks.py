"""Chunks as they are stored, decoded: many by one call.

A Blosc chunk holds blocks that decode on their own, found by a table of their offsets. `ChunkDecoder` writes one header
with one such table for the blocks that are needed of many chunks, so that one call of Blosc decodes all of these,
without Python's lock, and nothing else. That call is ``blosc_decompress_ctx``, which numcodecs carries in its extension
module and does not wrap. Where it cannot be found there, and for other codecs, numcodecs decodes each chunk whole.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout

    Ints = NDArray[np.int64]

CRC_OF_CHECKED = 0x48674BC7
"""CRC-32C of any bytes that are followed by their own CRC-32C, little endian."""

HEADER_BYTES = 16
"""Of a Blosc chunk: version, version of the codec, flags, size of an item; then as uint32 its size, the size of a
block, and its size as stored. The offset of each block follows, as int32, from the start of the chunk."""
COPIED = 1 << 17
"""Flag, in the first uint32 of a header, of a chunk that is stored as it is, without any table."""

ROOM = 64 * 1024
"""Bytes before the chunks as stored, for the header of all of them."""
DECODED_BYTES = 1024 * 1024
"""Most bytes of chunks that are decoded by one call; they stay in the cache of a core until they are copied."""


class DamagedChunkError(ValueError):
    """The bytes of a chunk are damaged."""

    def __init__(self, fault: str, number: int = 0) -> None:
        super().__init__(fault)
        self.number = number
        """Which of the chunks that were to be decoded."""


class ChunkDecoder:
    """Decodes chunks of arrays of one layout, into memory of its own; one thread has one decoder.

    Parameters
    ----------
    layout
        Of the arrays.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        self._shape, self._dtype = layout.chunk, layout.dtype
        self._row_bytes = layout.row_bytes
        self._chunk_bytes = layout.chunk[0] * layout.row_bytes
        self._checked = layout.checked
        self._compressor = layout.compressor
        # what one header for many chunks takes from theirs is vouched for by the checksum alone
        self._decompress = _decompress_function() if layout.compressor == "blosc" and layout.checked else None
        self._most = max(1, DECODED_BYTES // self._chunk_bytes)
        self._decoded = np.empty(self._most * self._chunk_bytes, dtype=np.uint8)
        self._buffer = self._make_buffer(0)

    def room(self, size: int) -> NDArray[np.uint8]:
        """Give memory that chunks are read into as they are stored; what was there before is lost."""
        if len(self._buffer) < ROOM + size + HEADER_BYTES:
            self._buffer = self._make_buffer(max(size, 1 << 20))
        return self._buffer[ROOM : ROOM + size]

    def _make_buffer(self, size: int) -> NDArray[np.uint8]:
        # beyond the chunks, so that the header of one that is too short can be looked at
        return np.empty(ROOM + size + HEADER_BYTES, dtype=np.uint8)

    def decode(self, places: Ints, lengths: Ints, rows: Ints) -> Iterator[tuple[NDArray[Any], int]]:
        """Decode chunks.

        Parameters
        ----------
        places, lengths
            (chunk,): where each chunk lies in the memory that `room` gave, and its bytes as stored, with its checksum.
        rows
            (chunk, 2): first and last row along the first axis that are needed, half-open.

        Yields
        ------
        chunk : ndarray
            Consecutive rows of a chunk, in the order given; they stay until the next chunk is taken.
        row : int
            Number of their first.

        Raises
        ------
        DamagedChunkError
            With the number of the chunk.
        """
        for at in range(0, len(places), self._most):
            some = slice(at, at + self._most)
            try:
                chunks = self._decode_some(places[some] + ROOM, lengths[some], rows[some])
            except DamagedChunkError as error:
                raise DamagedChunkError(str(error), at + error.number) from error
            yield from chunks

    def _decode_some(self, places: Ints, lengths: Ints, rows: Ints) -> list[tuple[NDArray[Any], int]]:
        if self._checked:
            self._check(places, lengths)
            lengths = lengths - 4
        if self._compressor != "blosc":
            return self._decode_each(places, lengths)
        headers = self._headers(places, lengths)
        if self._decompress and self._are_alike(headers):
            return self._decode_blocks(self._decompress, places, headers, rows)
        return self._decode_each(places, lengths)

    def _check(self, places: Ints, lengths: Ints) -> None:
        buffer, crc = self._buffer, google_crc32c.value
        for number, (place, end) in enumerate(zip(places.tolist(), (places + lengths).tolist(), strict=True)):
            if crc(buffer[place:end]) != CRC_OF_CHECKED:
                raise DamagedChunkError("the checksum of a chunk is wrong", number)

    def _headers(self, places: Ints, lengths: Ints) -> NDArray[np.uint32]:
        """Give the headers of Blosc chunks, (chunk, 4), which have to be of this size.

        Blosc believes its header: it would leave a part of the chunk as it was, or read on past the end of the bytes.
        """
        headers: NDArray[np.uint32] = self._take(places, HEADER_BYTES).view("<u4")
        good = (lengths >= HEADER_BYTES) & (headers[:, 1] == self._chunk_bytes) & (headers[:, 3] == lengths)
        if not good.all():
            raise DamagedChunkError(f"a chunk is no Blosc buffer of {self._chunk_bytes} bytes", int(good.argmin()))
        return headers

    def _take(self, places: Ints, size: int) -> NDArray[np.uint8]:
        """Give the bytes at some places, (place, size)."""
        taken: NDArray[np.uint8] = self._buffer[places[:, None] + np.arange(size)]
        return taken

    def _are_alike(self, headers: NDArray[np.uint32]) -> bool:
        """Tell whether chunks differ in nothing but their content, and hold blocks of whole rows."""
        block_bytes = int(headers[0, 2])
        if (
            headers[0, 0] & COPIED
            or not block_bytes
            or block_bytes % self._row_bytes
            or self._chunk_bytes % block_bytes
        ):
            return False
        table_bytes = 4 * (self._chunk_bytes // block_bytes)
        return (
            HEADER_BYTES + table_bytes * len(headers) <= ROOM
            and bool((headers[:, 3] >= HEADER_BYTES + table_bytes).all())
            and bool((headers[:, :3] == headers[0, :3]).all())
        )

    def _decode_blocks(
        self, decompress: Any, places: Ints, headers: NDArray[np.uint32], rows: Ints
    ) -> list[tuple[NDArray[Any], int]]:
        block_bytes = int(headers[0, 2])
        block_rows = block_bytes // self._row_bytes
        first, last = rows[:, 0] // block_rows, -(-rows[:, 1] // block_rows)
        per_chunk = self._chunk_bytes // block_bytes
        tables = self._take(places + HEADER_BYTES, 4 * per_chunk).view("<i4")
        if ((tables < HEADER_BYTES + 4 * per_chunk) | (tables >= headers[:, 3:])).any():
            # a block outside of its chunk would be one of a neighbour
            return self._decode_each(places, headers[:, 3].astype(np.int64))
        numbers = np.arange(per_chunk)
        offsets = (tables + places[:, None])[(numbers >= first[:, None]) & (numbers < last[:, None])]
        expected = len(offsets) * block_bytes
        head = np.empty(4 + len(offsets), dtype="<u4")
        head[:4] = headers[0, 0], expected, block_bytes, len(self._buffer)
        head[4:] = offsets
        self._buffer[: head.nbytes] = head.view(np.uint8)
        if decompress(self._buffer.ctypes.data, self._decoded.ctypes.data, expected, 1) != expected:
            # one by one, to find which it is
            return self._decode_each(places, headers[:, 3].astype(np.int64))
        decoded = self._decoded[:expected].view(self._dtype).reshape(-1, *self._shape[1:])
        ends = (np.cumsum(last - first) * block_rows).tolist()
        return [
            (decoded[a:b], row) for a, b, row in zip([0, *ends[:-1]], ends, (first * block_rows).tolist(), strict=True)
        ]

    def _decode_each(self, places: Ints, lengths: Ints) -> list[tuple[NDArray[Any], int]]:
        chunks = self._decoded.reshape(self._most, self._chunk_bytes)[: len(places)]
        ends = (places + lengths).tolist()
        for number, (chunk, place, end) in enumerate(zip(chunks, places.tolist(), ends, strict=True)):
            try:
                self._decode_whole(self._buffer[place:end], chunk)
            except (MemoryError, RuntimeError, ValueError) as error:
                # a frame of zstd may say that it holds more than any memory does
                raise DamagedChunkError(str(error) or "a chunk says that it is too long", number) from error
        return [(chunk.view(self._dtype).reshape(self._shape), 0) for chunk in chunks]

    def _decode_whole(self, stored: NDArray[np.uint8], chunk: NDArray[np.uint8]) -> None:
        if self._compressor == "blosc":
            blosc.decompress(stored, chunk)
            return
        # into an array of its own, whose size can be looked at
        data = np.frombuffer(zstd.decompress(stored), dtype=np.uint8) if self._compressor == "zstd" else stored
        if len(data) != self._chunk_bytes:
            raise ValueError(f"a chunk has {len(data)} bytes instead of {self._chunk_bytes}")
        chunk[:] = data


@cache
def _decompress_function() -> Any | None:
    """Give ``blosc_decompress_ctx`` of numcodecs' own Blosc; None where it is not exported."""
    try:
        decompress = ctypes.CDLL(blosc.__file__).blosc_decompress_ctx
    except (OSError, AttributeError):
        return None
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return decompress
