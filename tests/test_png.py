import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from lesionzarr.errors import SourceError
from lesionzarr.formats.png import decode_gray16


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def by_hand(rows):
    """A PNG written without Pillow: filter 0 on every row, big-endian samples."""
    height, width = rows.shape

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 0, 0, 0, 0)
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


def test_every_sample_value_survives():
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    decoded = decode_gray16(by_hand(values), "all.png")
    assert decoded.dtype == np.uint16
    np.testing.assert_array_equal(decoded, values)


def test_image_need_not_be_square():
    values = np.arange(15, dtype=np.uint16).reshape(3, 5)
    np.testing.assert_array_equal(decode_gray16(by_hand(values), "wide.png"), values)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        pytest.param(b"", "empty file", id="empty"),
        pytest.param(b"GIF89a", "not a PNG", id="other-format"),
        pytest.param(png(np.zeros((4, 4), np.uint8)), "8-bit grey PNG where 16-bit grey", id="8-bit"),
        pytest.param(png(np.zeros((4, 4, 3), np.uint8)), "8-bit RGB PNG where 16-bit grey", id="rgb"),
        pytest.param(png(np.ones((64, 64), np.uint16))[:-40], "truncated PNG", id="truncated"),
        pytest.param(png(np.ones((64, 64), np.uint16))[:30], "truncated PNG", id="header-only"),
    ],
)
def test_bad_file_is_refused_with_its_name_and_fault(data, fault):
    with pytest.raises(SourceError, match=f"slice.png: .*{fault}"):
        decode_gray16(data, "slice.png")


def test_a_flipped_bit_anywhere_in_the_pixel_data_is_found():
    data = png(np.arange(4096, dtype=np.uint16).reshape(64, 64))
    start, end = data.index(b"IDAT") + 4, data.index(b"IEND") - 8
    for position in range(start, end, 7):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        with pytest.raises(SourceError, match="damaged PNG"):
            decode_gray16(bytes(damaged), "slice.png")
