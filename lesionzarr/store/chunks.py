"""Chunks as they are stored, decoded.

A Blosc chunk holds blocks that decode on their own. Where the rows that are needed lie in some of them, only those are
decoded: by ``blosc_getitem``, which numcodecs carries in its extension module and does not wrap. Where it cannot be
found there, and for other codecs, chunks are decoded whole by numcodecs.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import TYPE_CHECKING, Any

import google_crc32c
import numpy as np
from numcodecs import blosc, zstd

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.store.arrays import ArrayLayout

CRC_OF_CHECKED = 0x48674BC7
"""CRC-32C of any bytes that are followed by their own CRC-32C, little endian."""

HEADER_BYTES = 16
"""Of a Blosc chunk: version, version of the codec, flags, size of an item; then as uint32 its size, the size of a
block, and its size as stored."""


class ChunkDecoder:
    """Decodes chunks of one array, one at a time, into an array of its own; one thread has one decoder.

    Parameters
    ----------
    layout
        Of the array.
    """

    def __init__(self, layout: ArrayLayout) -> None:
        self.chunk: NDArray[Any] = np.empty(layout.chunk, dtype=layout.dtype)
        """What was decoded last, (z, y, x)."""
        self._checked = layout.checked
        self._address = self.chunk.ctypes.data
        self._row_bytes = self.chunk.strides[0]
        self._row_items = self._row_bytes // self.chunk.itemsize
        self._compressor = layout.compressor
        # what a partial decoding reads of the header is vouched for by the checksum alone
        self._blosc = _blosc_functions() if layout.compressor == "blosc" and layout.checked else None

    def decode(self, stored: NDArray[np.uint8], address: int, first: int, last: int) -> None:
        """Decode a chunk into `chunk`.

        Parameters
        ----------
        stored
            The chunk as stored, with its checksum.
        address
            Where it lies in memory.
        first, last
            Rows along the first axis that are needed, half-open; others may keep what they held.

        Raises
        ------
        ValueError
            The bytes are damaged.
        """
        if self._checked and google_crc32c.value(stored) != CRC_OF_CHECKED:
            raise ValueError("the checksum of a chunk is wrong")
        payload = stored[:-4] if self._checked else stored
        item_bytes = self._check_header(payload) if self._compressor == "blosc" else 0
        if self._blosc and item_bytes == self.chunk.itemsize:
            self._decode_rows(*self._blosc, address, first, last)
        else:
            self._decode_whole(payload)

    def _check_header(self, stored: NDArray[np.uint8]) -> int:
        """Give the size of an item by the header of a Blosc chunk, which has to be one of this size.

        Blosc believes its header: it would leave a part of the chunk as it was, or read on past the end of the bytes.
        """
        header = stored[:HEADER_BYTES].tobytes()
        size, stored_size = int.from_bytes(header[4:8], "little"), int.from_bytes(header[12:16], "little")
        if len(header) < HEADER_BYTES or (size, stored_size) != (self.chunk.nbytes, len(stored)):
            raise ValueError(f"a chunk is no Blosc buffer of {self.chunk.nbytes} bytes")
        return header[3]

    def _decode_rows(self, decompress: Any, getitem: Any, address: int, first: int, last: int) -> None:
        if last - first == len(self.chunk):
            expected = self.chunk.nbytes
            done = decompress(address, self._address, expected, 1)
        else:
            expected = (last - first) * self._row_bytes
            items = self._row_items
            done = getitem(address, first * items, (last - first) * items, self._address + first * self._row_bytes)
        if done != expected:
            raise ValueError(f"a chunk gives {done} bytes instead of {expected}")

    def _decode_whole(self, stored: NDArray[np.uint8]) -> None:
        try:
            if self._compressor == "blosc":
                blosc.decompress(stored, self.chunk)
                return
            # into an array of its own, whose size can be looked at
            data = np.frombuffer(zstd.decompress(stored), dtype=np.uint8) if self._compressor == "zstd" else stored
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        if len(data) != self.chunk.nbytes:
            raise ValueError(f"a chunk has {len(data)} bytes instead of {self.chunk.nbytes}")
        self.chunk.reshape(-1).view(np.uint8)[:] = data


@cache
def _blosc_functions() -> tuple[Any, Any] | None:
    """Give ``blosc_decompress_ctx`` and ``blosc_getitem`` of numcodecs' own Blosc; None where they are not exported."""
    try:
        library = ctypes.CDLL(blosc.__file__)
        decompress, getitem = library.blosc_decompress_ctx, library.blosc_getitem
    except (OSError, AttributeError):
        return None
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    getitem.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p]
    return decompress, getitem
