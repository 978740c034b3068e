"""Places behind URLs that a source is read from, with those verbs of `pathlib.Path` that reading a source takes."""

from __future__ import annotations

import errno
import io
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Protocol

from lesionzarr.errors import SourceError, StoreError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

FIRST_BYTES = 256 * 1024
"""Range that is read first at a place; one slice, mostly."""
GROWTH = 4
"""How many times longer the next range is, as long as reading goes on where the last one ended."""
MOST_BYTES = 4 * 1024 * 1024
"""Longest range that is read ahead: half of it is wasted at the end of each volume, on average."""

ZIP = ".zip"

Stat = tuple[int, int]
"""Length in bytes, and time of the last change in ns."""


class Objects(Protocol):
    """What a source behind a URL is read with; keys have forward slashes, and a fault of the line is a StoreError."""

    @property
    def url(self) -> str:
        """The URL that keys follow."""

    def __hash__(self) -> int: ...

    def read(self, key: str) -> bytes | None:
        """Read an object whole; None if there is none."""

    def read_range(self, key: str, offset: int, length: int) -> bytes | None:
        """Read a part of an object; None if there is none."""

    def stat(self, key: str) -> Stat | None:
        """Tell size and time of an object; None if there is none."""

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """List every object under a key, all of them under ""."""

    def list_level(self, key: str) -> dict[str, Stat | None]:
        """List what is directly under a key, by key; None for folders."""


@dataclass(frozen=True)
class Remote:
    """A file, a zip or a folder behind a URL. What ends in ``.zip`` is taken for a zip, without asking.

    What cannot be reached is an UnreachableError, a folder that the server does not list a SourceError.
    """

    objects: Objects
    key: str = ""
    state: Stat | None = None
    """Of a file, where it is known: another one is another file."""

    def __str__(self) -> str:
        return f"{self.objects.url}/{self.key}" if self.key else self.objects.url

    def __lt__(self, other: Remote) -> bool:
        return str(self) < str(other)

    def __truediv__(self, name: str) -> Remote:
        return Remote(self.objects, f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """Last component."""
        return str(self).rsplit("/", 1)[-1]

    @property
    def stem(self) -> str:
        """Last component without its suffix."""
        return PurePosixPath(self.name).stem

    @property
    def suffix(self) -> str:
        """Suffix of the last component, with its dot."""
        return PurePosixPath(self.name).suffix

    @property
    def parent(self) -> Remote:
        """The folder that holds it."""
        return Remote(self.objects, self.key.rpartition("/")[0])

    @property
    def is_zip(self) -> bool:
        """Whether it is taken for a zip."""
        return self.suffix.lower() == ZIP

    def is_file(self) -> bool:
        """Tell whether there is an object."""
        return bool(self.key) and self._stat() is not None

    def is_dir(self) -> bool:
        """Tell whether there is anything under it."""
        return not self.is_zip and next(self.files(), None) is not None

    def glob(self, pattern: str) -> Iterator[Remote]:
        """List what is directly under it by name."""
        if self.is_zip:
            return
        with self._listing():
            found = self.objects.list_level(self.key)
        for key, state in found.items():
            if fnmatchcase(key.rsplit("/", 1)[-1], pattern):
                yield Remote(self.objects, key, state)

    def files(self) -> Iterator[tuple[str, Stat]]:
        """List every file under it by its name there."""
        start = len(self.key) + 1 if self.key else 0
        with self._listing():
            for key, state in self.objects.walk(self.key):
                yield key[start:], state

    def read_bytes(self) -> bytes:
        """Read it whole."""
        with _reached():
            data = self.objects.read(self.key)
        if data is None:
            raise self._absent()
        return data

    def read_text(self) -> str:
        """Read it whole as UTF-8."""
        return self.read_bytes().decode()

    def read_range(self, offset: int, length: int) -> bytes:
        """Read a part of it, less where it ends before."""
        with _reached():
            data = self.objects.read_range(self.key, offset, length) if length else b""
        if data is None:
            raise self._absent()
        return data

    def pinned(self) -> Remote:
        """Give it as it is now."""
        state = self._stat()
        if state is None:
            raise self._absent()
        return Remote(self.objects, self.key, state)

    def open(self, mode: str = "rb") -> RangeReader:  # noqa: ARG002 - there is no other
        """Open it for reading bytes."""
        return RangeReader(self.pinned())

    def _stat(self) -> Stat | None:
        with _reached():
            return self.state or self.objects.stat(self.key)

    def _absent(self) -> FileNotFoundError:
        return FileNotFoundError(errno.ENOENT, "no such object", str(self))

    @contextmanager
    def _listing(self) -> Iterator[None]:
        try:
            with _reached():
                yield
        except UnreachableError as error:
            if not self.objects.url.startswith("http"):
                raise
            text = f"{self}: a folder cannot be listed over HTTP; name zips, and each further file by its option"
            raise SourceError(f"{text} ({error})") from error


@contextmanager
def _reached() -> Iterator[None]:
    try:
        yield
    except StoreError as error:
        raise UnreachableError(str(error)) from error


class RangeReader(io.RawIOBase):
    """A file behind a URL, open for reading: by ranges that grow as long as reading goes on.

    Each thread has its own range, so that those that read from different places of a zip do not hinder each other.

    Parameters
    ----------
    remote
        Of known state.
    head
        Its first bytes, where they have been read.
    first
        Length of the first range at a place.
    """

    def __init__(self, remote: Remote, head: bytes = b"", first: int = FIRST_BYTES) -> None:
        super().__init__()
        self._remote, self._first, self._position = remote, first, 0
        self.name = remote.name
        self._size = remote.state[0] if remote.state else 0
        self._range = _Range(head, first)

    def readable(self) -> bool:
        """Say yes."""
        return True

    def seekable(self) -> bool:
        """Say yes."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def tell(self) -> int:
        """Tell the place."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, unless the file ends before."""
        view = memoryview(buffer).cast("B")
        data = self._read(self._position, min(len(view), max(0, self._size - self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _read(self, offset: int, length: int) -> memoryview:
        range_ = self._range
        skip = offset - range_.offset
        if not 0 <= skip <= skip + length <= len(range_.data):
            goes_on = 0 <= skip <= len(range_.data) > 0
            kept = range_.data[skip:] if goes_on else b""
            range_.ahead = min(GROWTH * range_.ahead, MOST_BYTES) if goes_on else self._first
            # near its end a file is read backwards: a zip has its directory there
            start = offset + len(kept) if goes_on else max(0, min(offset, self._size - self._first))
            more = min(max(offset + length - start, range_.ahead), self._size - start)
            range_.data, range_.offset = kept + self._remote.read_range(start, more), start - len(kept)
            skip = offset - range_.offset
        return memoryview(range_.data)[skip : skip + length]


class _Range(threading.local):
    """What has been read last."""

    def __init__(self, data: bytes, ahead: int) -> None:
        self.data, self.offset, self.ahead = data, 0, ahead


SourcePath = Path | Remote
"""Where a source lies."""
