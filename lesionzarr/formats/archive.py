"""Files under a root, which is a folder or a zip that is read in place, on a disk or behind a URL.

A zip's directory is read once per process and its members are read one by one: nothing is unpacked to the disk, and
memory holds the directory and one member; of a zip behind a URL the ranges that are needed are read, and never all.
"""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, BinaryIO, TypeVar, cast

from lesionzarr.errors import SourceError
from lesionzarr.series import SourceFile
from lesionzarr.source import RangeReader, Remote

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from lesionzarr.source import SourcePath

T = TypeVar("T")

DEPTH = 4
"""Folder levels below a root that are searched: Images_png_56/Images_png/<series>/<slice> and one to spare."""

BUFFER_BYTES = 16384
"""What `open_file` unpacks of a zip member at a time, or reads first behind a URL: the header of a CT slice, mostly."""

AHEAD = 16
"""Files of a folder behind a URL that are read at a time."""

FAULTS = (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error)
"""What reading a file or a zip member raises."""


def iter_files(root: SourcePath, depth: int = DEPTH) -> Iterator[SourceFile]:
    """List every file under a folder or in a zip.

    Parameters
    ----------
    root
        A folder (links are followed) or a zip; behind a URL a zip is what ends in ``.zip``.
    depth
        Folder levels below a folder that are searched.

    Yields
    ------
    SourceFile
        In no particular order. Names of zip members are given as stored, so that a name that escapes can be reported.

    Raises
    ------
    SourceError
        The root is neither, or the zip is damaged, or nothing can be listed behind the URL.
    UnreachableError
        What is behind the URL cannot be reached; so with the other functions here.
    """
    if isinstance(root, Remote) and not root.is_zip:
        yield from _iter_remote(root, depth)
    elif isinstance(root, Path) and root.is_dir():
        yield from _iter_folder(root, "", depth)
    else:
        archive, place = _open_zip(root)
        for info in archive.infolist():
            if not info.is_dir():
                yield SourceFile(place, info.filename, info.file_size, info.CRC)


def with_zips(folder: SourcePath) -> list[SourcePath]:
    """Give a folder, and the zips that are directly in it, by name."""
    zips: list[SourcePath] = list(folder.glob("*.zip"))
    return [folder, *sorted(zips, key=str)]


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
    root = _place(file)
    try:
        if _is_folder(root):
            return (root / file.name).read_bytes()
        return _open_zip(root)[0].read(file.name)
    except FAULTS as error:
        raise _unreadable(file, error) from error


@contextmanager
def open_file(file: SourceFile, head: bytes = b"") -> Iterator[BinaryIO]:
    """Open one file to read its beginning: of a zip member only what is read is unpacked, and no checksum is checked.

    Parameters
    ----------
    file
        As listed by `iter_files`.
    head
        Its beginning, where `read_head` has read it.

    Yields
    ------
    BinaryIO
        Buffered and seekable.

    Raises
    ------
    SourceError
        It is gone, cannot be read, or is damaged; also where that is met while it is read.
    """
    root = _place(file)
    try:
        if isinstance(root, Remote) and not root.is_zip:
            remote = Remote(root.objects, (root / file.name).key, (file.size, file.stamp))
            yield io.BufferedReader(RangeReader(remote, head, BUFFER_BYTES))
        elif isinstance(root, Path) and root.is_dir():
            with (root / file.name).open("rb") as stream:
                yield stream
        else:
            with _open_zip(root)[0].open(file.name) as member:
                yield io.BufferedReader(cast("io.RawIOBase", member), BUFFER_BYTES)
    except FAULTS as error:
        raise _unreadable(file, error) from error


def read_head(file: SourceFile) -> bytes:
    """Read the beginning of a file of a folder behind a URL, `BUFFER_BYTES` of it; nothing of any other.

    Raises
    ------
    SourceError
        It is gone.
    """
    root = _place(file)
    if not isinstance(root, Remote) or root.is_zip:
        return b""
    try:
        return (root / file.name).read_range(0, min(BUFFER_BYTES, file.size))
    except FileNotFoundError as error:
        raise _unreadable(file, error) from error


def read_ahead(read: Callable[[SourceFile], T], files: Iterable[SourceFile]) -> Iterator[Callable[[], T]]:
    """Read files one after the other; those of a folder behind a URL `AHEAD` at a time, since each is a request.

    Parameters
    ----------
    read
        Such as `read_file`.
    files
        As listed by `iter_files`.

    Yields
    ------
    callable
        For each file, in order: gives what was read, or raises what reading raised.
    """
    rest = iter(files)
    with ThreadPoolExecutor(AHEAD) as pool:

        def begin(file: SourceFile) -> Callable[[], T]:
            remote = isinstance(file.root, Remote) and not file.root.is_zip
            return pool.submit(read, file).result if remote else partial(read, file)

        waiting = deque(map(begin, islice(rest, AHEAD)))
        while waiting:
            yield waiting.popleft()
            waiting.extend(map(begin, islice(rest, 1)))


def _place(file: SourceFile) -> SourcePath:
    return file.root if isinstance(file.root, Remote) else Path(file.root)


def _is_folder(root: SourcePath) -> bool:
    return not root.is_zip if isinstance(root, Remote) else root.is_dir()


def _unreadable(file: SourceFile, error: Exception) -> SourceError:
    return SourceError(f"{_place(file).name}/{file.name}: cannot be read ({_fault(error)})", file.name)


def _iter_remote(root: Remote, depth: int) -> Iterator[SourceFile]:
    found = False
    for name, (size, stamp) in root.files():
        found = True
        if name.count("/") <= depth:
            yield SourceFile(root, name, size, stamp)
    if not found:
        raise SourceError(f"{root}: nothing is there; check the URL")


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


def _open_zip(path: SourcePath) -> tuple[zipfile.ZipFile, str | Remote]:
    """Give an open zip, and the place of its members."""
    try:
        if isinstance(path, Remote):
            # its members have the state of now, so that nobody reads them by an older directory
            path = path.pinned()
            return _opened_zip(path, os.getpid()), path
        status = path.stat()
        return _opened_zip(str(path), os.getpid(), status.st_size, status.st_mtime_ns), str(path)
    except (OSError, zipfile.BadZipFile) as error:
        raise SourceError(f"{path.name}: cannot be read as a zip ({_fault(error)}); fetch it again") from error


@lru_cache(maxsize=4)
def _opened_zip(path: str | Remote, *state: int) -> zipfile.ZipFile:  # noqa: ARG001
    # one for each process, since a child must not share its parent's file position; a new one when the file has changed
    return zipfile.ZipFile(path.open() if isinstance(path, Remote) else path)


def _fault(error: Exception) -> str:
    # the text of an OSError holds the whole path, which is of this machine
    return str(getattr(error, "strerror", None) or error)
