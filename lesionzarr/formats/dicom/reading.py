"""Opening DICOM with pydicom: the header alone, or a whole object, guarded against what a hostile file may do."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from lesionzarr.errors import MissingExtraError, SourceError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MARK = b"DICM"
META_BYTES = 2048
"""Beginning of a file in which the file meta information names its transfer syntax."""
DEFLATED = b"1.2.840.10008.1.2.1.99"
MAX_INFLATED = 2**30
"""Bytes that a deflated object may unpack to; one CT slice has half a MB."""
UNDEFINED = 0xFFFFFFFF
PIXEL_TAGS = {(0x7FE0, 0x0008), (0x7FE0, 0x0009), (0x7FE0, 0x0010)}
"""Float, double float and integer pixel data."""


def load_pydicom() -> Any:
    """Import pydicom, or say how to get it."""
    try:
        import pydicom
    except ImportError as error:
        raise MissingExtraError("reading DICOM needs pydicom: pip install 'lesionzarr[dicom]'") from error
    return pydicom


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom from warning of every value that breaks a rule of the standard: half of all files have one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def parsing(name: str) -> Iterator[None]:
    """Turn whatever pydicom raises while it parses into a SourceError that names the file.

    Values are parsed when they are asked for, so this goes round that too.
    """
    with quiet():
        try:
            yield
        except UnreachableError:
            raise
        except Exception as error:  # pydicom raises what its parsing happens to run into
            raise _unparsable(name, error) from error


def read_header(stream: BinaryIO, name: str, tags: Sequence[Any] | None = None) -> tuple[Any, int | None, int]:
    """Read an object up to its pixel data.

    Parameters
    ----------
    stream
        At its beginning.
    name
        How messages call it.
    tags
        Keywords to read; None for all.

    Returns
    -------
    dataset : pydicom.FileDataset
    pixel_bytes : int or None
        Length of the pixel data as stated, -1 where it is undefined (compressed), None where there is none.
    end : int
        Offset at which the file has to end at the least; 0 where that cannot be told.

    Raises
    ------
    SourceError
        No DICOM file (PS3.10: 128 bytes, then DICM), or one that cannot be parsed.
    """
    pydicom = load_pydicom()
    head = stream.read(META_BYTES)
    if head[128:132] != MARK:
        raise _unmarked(name)
    stream.seek(0)
    deflated = DEFLATED in head
    data = check_inflated(stream.read(), name) if deflated else b""
    source = io.BytesIO(data) if deflated else stream
    with parsing(name):
        dataset = pydicom.dcmread(source, stop_before_pixels=not deflated, specific_tags=tags and list(tags))
        if not deflated:
            return dataset, *_pixel_length(stream, dataset)
        # pixel data inside of the deflated part is measured by unpacking it
        whole = pydicom.dcmread(io.BytesIO(data), specific_tags=["PixelData"])
        return dataset, len(whole.PixelData) if "PixelData" in whole else None, 0


def read_object(data: bytes, name: str) -> Any:
    """Parse a whole object.

    Parameters
    ----------
    data
        The whole file.
    name
        How messages call it.

    Returns
    -------
    pydicom.FileDataset

    Raises
    ------
    SourceError
        No DICOM file, or one that cannot be parsed.
    """
    pydicom = load_pydicom()
    if data[128:132] != MARK:
        raise _unmarked(name)
    if DEFLATED in data[:META_BYTES]:
        check_inflated(data, name)
    with parsing(name):
        return pydicom.dcmread(io.BytesIO(data))


def check_inflated(data: bytes, name: str) -> bytes:
    """Refuse a deflated object that unpacks to more than `MAX_INFLATED` bytes; else give it back."""
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    total = 0
    try:
        rest = data[_meta_length(data) :]
        while rest and not unpack.eof:
            total += len(unpack.decompress(rest, 2**20))
            rest = unpack.unconsumed_tail
            if total > MAX_INFLATED:
                text = f"{name}: its deflated dataset unpacks to more than {MAX_INFLATED} bytes; it is not read"
                raise SourceError(text, name)
    except (zlib.error, struct.error) as error:
        raise _unparsable(name, error) from error
    return data


def _meta_length(data: bytes) -> int:
    # group length, the first element of the file meta information (PS3.10, 7.1): tag, VR, length, then the value
    return 144 + int(struct.unpack_from("<I", data, 140)[0])


def _unmarked(name: str) -> SourceError:
    return SourceError(f"{name}: not a DICOM file (no DICM mark at byte 128)", name)


def _unparsable(name: str, error: Exception) -> SourceError:
    text = " ".join(str(error).split())[:200]
    return SourceError(f"{name}: cannot be parsed as DICOM ({text}); fetch the file again", name)


def _pixel_length(stream: BinaryIO, dataset: Any) -> tuple[int | None, int]:
    implicit, little = dataset.original_encoding
    start = stream.tell()
    head = stream.read(12)
    order = "<" if little else ">"
    if len(head) < 12 or struct.unpack_from(f"{order}HH", head) not in PIXEL_TAGS:
        return None, 0
    offset = 4 if implicit else 8
    length = struct.unpack_from(f"{order}I", head, offset)[0]
    if length == UNDEFINED:
        return -1, start + offset + 4
    return length, start + offset + 4 + length
