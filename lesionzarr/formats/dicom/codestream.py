"""How large an encoded frame says it is: read from its own header, before a decoder allocates that much."""

from __future__ import annotations

import struct

JPEG_START = b"\xff\xd8"
J2K_START = b"\xff\x4f\xff\x51"
JP2_START = b"\x00\x00\x00\x0cjP  "
FRAME_MARKERS = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC} | {0xF7}
"""SOF0..SOF15 of JPEG (ITU-T T.81, B.1.1.3) and SOF55 of JPEG-LS (T.87, C.1)."""
BARE_MARKERS = {0x01, *range(0xD0, 0xD9)}
"""Markers without a length."""


def frame_size(data: bytes) -> tuple[int, int, int] | None:
    """Read the size that a compressed frame states.

    Parameters
    ----------
    data
        A JPEG, JPEG-LS or JPEG 2000 codestream (the latter also inside a JP2 file).

    Returns
    -------
    (int, int, int) or None
        Rows, columns and components; None where it is none of these or is cut off.
    """
    try:
        if data.startswith(JPEG_START):
            return _jpeg_size(data)
        if data.startswith((J2K_START, JP2_START)):
            return _j2k_size(data)
    except struct.error:
        pass
    return None


def _jpeg_size(data: bytes) -> tuple[int, int, int] | None:
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1
        elif marker in BARE_MARKERS:
            position += 2
        elif marker in FRAME_MARKERS:
            rows, columns, components = struct.unpack_from(">HHB", data, position + 5)
            return rows, columns, components
        else:
            position += 2 + struct.unpack_from(">H", data, position + 2)[0]
    return None


def _j2k_size(data: bytes) -> tuple[int, int, int] | None:
    # SIZ follows SOC at once (T.800, A.5.1): length, capabilities, then size and offset of the image
    start = data.find(J2K_START)
    if start < 0:
        return None
    width, height, left, top = struct.unpack_from(">4I", data, start + 8)
    (components,) = struct.unpack_from(">H", data, start + 40)
    return height - top, width - left, components
