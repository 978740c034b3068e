"""16-bit grey PNG to arrays.

Pillow decodes; this file checks first what Pillow lets pass: the checksum of every chunk (Pillow skips those of the
pixel data), and that the samples really are 16-bit grey, since other readers turn 8-bit previews into plausible voxels.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from lesionzarr.errors import SourceError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}


def decode_gray16(data: bytes, name: str) -> NDArray[np.uint16]:
    """Decode a 16-bit greyscale PNG.

    Parameters
    ----------
    data
        The whole file.
    name
        How messages call it.

    Returns
    -------
    ndarray of uint16
        Shape (rows, columns), as stored: no offset, no scaling.

    Raises
    ------
    SourceError
        No PNG, a truncated or damaged one, or one of another depth or colour type.
    """
    _check(data, name)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise SourceError(f"{name}: damaged PNG ({error}); fetch the file again") from error
    return pixels.astype(np.uint16, copy=False)


def _check(data: bytes, name: str) -> None:
    if not data:
        raise SourceError(f"{name}: empty file (0 bytes); fetch the file again")
    if not data.startswith(SIGNATURE):
        raise SourceError(f"{name}: not a PNG; a 16-bit grey PNG is needed")
    position, ended = len(SIGNATURE), False
    while not ended:
        if position + 12 > len(data):
            raise SourceError(f"{name}: truncated PNG ({len(data)} bytes, no end chunk); fetch the file again")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise SourceError(f"{name}: truncated PNG (ends inside a chunk at byte {len(data)}); fetch the file again")
        if zlib.crc32(memoryview(data)[position + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise SourceError(f"{name}: damaged PNG (checksum of chunk {kind!r} is wrong); fetch the file again")
        if kind == b"IHDR":
            _check_header(data, position + 8, name)
        position, ended = end + 4, kind == b"IEND"


def _check_header(data: bytes, position: int, name: str) -> None:
    depth, colour = struct.unpack_from(">8xBB", data, position)
    if (depth, colour) != (16, 0):
        found = f"{depth}-bit {COLOUR_TYPES.get(colour, 'unknown colour')}"
        raise SourceError(f"{name}: {found} PNG where 16-bit grey is needed (a preview or a re-saved copy?)")
