"""Files under a root, which is a folder or a zip that is read in place.

A zip's directory is read once per process and its members are read one by one: nothing is unpacked to the disk, and
memory holds the directory and one member.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, cast

from lesionzarr.errors import SourceError
from lesionzarr.series import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator

DEPTH = 4
"""Folder levels below a root that are searched: Images_png_56/Images_png/<series>/<slice> and one to spare."""

BUFFER_BYTES = 16384
"""What is unpacked of a zip member at a time by `open_file`: the header of a CT slice, mostly."""

FAULTS = (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a file or a zip member raises."""


def iter_files(root: Path, depth: int = DEPTH) -> Iterator[SourceFile]:
    """List every file under a folder or in a zip.

    Parameters
    ----------
    root
        A folder (links are followed) or a zip.
    depth
        Folder levels below a folder that are searched.

    Yields
    ------
    SourceFile
        In no particular order. Names of zip members are given as stored, so that a name that escapes can be reported.

    Raises
    ------
    SourceError
        The root is neither, or the zip is damaged.
    """
    if root.is_dir():
        yield from _iter_folder(root, "", depth)
    else:
        for info in _open_zip(root).infolist():
            if not info.is_dir():
                yield SourceFile(str(root), info.filename, info.file_size, info.CRC)


def escapes(name: str) -> bool:
    """Tell whether a name inside an archive points outside of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1])


def read_file(file: SourceFile) -> bytes:
    """Read one file whole.

    Parameters
    ----------
    file
        As listed by `iter_files`.

    Returns
    -------
    bytes
        For a zip member, unpacked and checked against its CRC-32.

    Raises
    ------
    SourceError
        It is gone, cannot be read, or is damaged.
    """
    root = Path(file.root)
    try:
        if root.is_dir():
            return (root / file.name).read_bytes()
        return _open_zip(root).read(file.name)
    except FAULTS as error:
        raise _unreadable(file, error) from error


@contextmanager
def open_file(file: SourceFile) -> Iterator[BinaryIO]:
    """Open one file to read its beginning: of a zip member only what is read is unpacked, and no checksum is checked.

    Parameters
    ----------
    file
        As listed by `iter_files`.

    Yields
    ------
    BinaryIO
        Buffered and seekable.

    Raises
    ------
    SourceError
        It is gone, cannot be read, or is damaged; also where that is met while it is read.
    """
    root = Path(file.root)
    try:
        if root.is_dir():
            with (root / file.name).open("rb") as stream:
                yield stream
        else:
            with _open_zip(root).open(file.name) as member:
                yield io.BufferedReader(cast("io.RawIOBase", member), BUFFER_BYTES)
    except FAULTS as error:
        raise _unreadable(file, error) from error


def _unreadable(file: SourceFile, error: Exception) -> SourceError:
    return SourceError(f"{Path(file.root).name}/{file.name}: cannot be read ({_fault(error)})", file.name)


def _iter_folder(root: Path, prefix: str, depth: int) -> Iterator[SourceFile]:
    try:
        entries = sorted(os.scandir(root / prefix), key=lambda entry: entry.name)
    except OSError as error:
        raise SourceError(f"{root.name}/{prefix}: the folder cannot be listed ({_fault(error)})") from error
    for entry in entries:
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            if depth > 0:
                yield from _iter_folder(root, f"{name}/", depth - 1)
        elif entry.is_file():
            status = entry.stat()
            yield SourceFile(str(root), name, status.st_size, status.st_mtime_ns)


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        status = path.stat()
        return _opened_zip(str(path), os.getpid(), status.st_size, status.st_mtime_ns)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path.name}: cannot be read as a zip ({_fault(error)}); fetch it again") from error


@lru_cache(maxsize=4)
def _opened_zip(path: str, *state: int) -> zipfile.ZipFile:  # noqa: ARG001
    # one for each process, since a child must not share its parent's file position; a new one when the file has changed
    return zipfile.ZipFile(path)


def _fault(error: Exception) -> str:
    # the text of an OSError holds the whole path, which is of this machine
    return str(getattr(error, "strerror", None) or error)
