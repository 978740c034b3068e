"""Where a store is: a folder, or a bucket by URL, behind the few verbs that a store needs.

Writing one object is atomic: on a disk through a temporary name and a rename, in a bucket by one request. An object has
one writer at a time (the temporary name is fixed, so that what a killed writer leaves is overwritten by the next).
Object stores need the extra ``cloud`` (obstore).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

import numpy as np

from lesionzarr.errors import IntegrityError, MissingExtraError, SettingError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray
    from zarr.abc.store import Store

ABSENT = (FileNotFoundError, NotADirectoryError)

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; free some space, and run the same again")

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


_OBSTORE_PROCESS: dict[str, int] = {}
"""The process that used obstore first, inherited by its forks."""


class Blob(Protocol):
    """An object that is open for reading. Any number of threads may read at once."""

    size: int
    """Length in bytes."""

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes from `offset` on; IntegrityError where the object ends before."""


class Location(Protocol):
    """The verbs. Keys are paths inside the store, with forward slashes; every fault is a StoreError."""

    def __hash__(self) -> int: ...

    @property
    def name(self) -> str:
        """How messages call the store: the last component of its path or URL."""

    def read(self, key: str) -> bytes | None:
        """Read an object whole; None if there is none."""

    def size(self, key: str) -> int | None:
        """Give the length of an object in bytes; None if there is none."""

    def open(self, key: str) -> Blob | None:
        """Open an object for reading parts of it; None if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Write an object, replacing what was there, at once or not at all."""

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

    def delete_tree(self, key: str) -> None:
        """Delete every object under a key, if there are any."""

    def list_folders(self, key: str) -> list[str]:
        """List the names of the folders directly under a key, sorted."""

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""


def open_location(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Location:
    """Make the location of a path or URL, without touching it.

    Parameters
    ----------
    url
        Path of a folder, ``file://`` URL, or a URL that obstore knows (``s3://``, ``gs://``, ``az://``,
        ``http(s)://``).
    storage_options
        Keyword arguments of ``obstore.store.from_url``.

    Returns
    -------
    Location

    Raises
    ------
    SettingError
        An empty path, or storage options for a folder.
    """
    text = os.fspath(url)
    scheme, _, rest = text.partition("://") if URL.match(text) else ("", "", text)
    if scheme and (scheme.lower() != "file" or storage_options):
        return Bucket(f"{scheme.lower()}://{rest.rstrip('/')}", dict(storage_options or {}))
    if not rest:
        raise SettingError("the path of the store is empty; name a folder or a URL")
    if storage_options:
        raise SettingError(f"{text}: storage options are for the URL of an object store")
    return Folder(Path(unquote(rest) if scheme else rest).absolute())


@dataclass(frozen=True)
class Folder:
    """A store in a folder."""

    root: Path

    @property
    def name(self) -> str:
        """Last component of the path."""
        return self.root.resolve().name

    def read(self, key: str) -> bytes | None:
        """Read an object whole; None if there is none."""
        with _faults(self.name, key), suppress(*ABSENT):
            return (self.root / key).read_bytes()
        return None

    def size(self, key: str) -> int | None:
        """Give the length of an object in bytes; None if there is none."""
        with _faults(self.name, key), suppress(*ABSENT):
            return (self.root / key).stat().st_size
        return None

    def open(self, key: str) -> Blob | None:
        """Open an object for reading parts of it; None if there is none."""
        with _faults(self.name, key), suppress(*ABSENT):
            return DiskBlob(self.root / key, f"{self.name}/{key}")
        return None

    def write(self, key: str, data: bytes) -> None:
        """Write an object through a temporary name and a rename."""
        path = self.root / key
        part = path.with_name(f".{path.name}.part")
        with _faults(self.name, key):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(data)
                part.replace(path)
            except OSError:
                part.unlink(missing_ok=True)
                raise

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        with _faults(self.name, key), suppress(*ABSENT):
            (self.root / key).unlink()

    def delete_tree(self, key: str) -> None:
        """Delete every object under a key, if there are any."""
        with _faults(self.name, key), suppress(*ABSENT):
            shutil.rmtree(self.root / key)

    def list_folders(self, key: str) -> list[str]:
        """List the names of the folders directly under a key, sorted."""
        with _faults(self.name, key), suppress(*ABSENT):
            return sorted(entry.name for entry in os.scandir(self.root / key) if entry.is_dir())
        return []

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=True)


@dataclass(frozen=True)
class Bucket:
    """A store behind a URL, reached through obstore."""

    url: str
    options: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)

    @property
    def name(self) -> str:
        """Last component of the URL."""
        return self.url.rsplit("/", 1)[-1]

    def read(self, key: str) -> bytes | None:
        """Read an object whole; None if there is none."""
        with suppress(*ABSENT), self._opened(key) as store:
            return bytes(store.get(key).bytes())
        return None

    def size(self, key: str) -> int | None:
        """Give the length of an object in bytes; None if there is none."""
        with suppress(*ABSENT), self._opened(key) as store:
            return int(store.head(key)["size"])
        return None

    def open(self, key: str) -> Blob | None:
        """Open an object for reading parts of it; None if there is none."""
        with suppress(*ABSENT), self._opened(key) as store:
            return BucketBlob(store, key, f"{self.name}/{key}", int(store.head(key)["size"]))
        return None

    def write(self, key: str, data: bytes) -> None:
        """Write an object by one request."""
        with self._opened(key) as store:
            store.put(key, data)

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        with suppress(*ABSENT), self._opened(key) as store:
            store.delete(key)

    def delete_tree(self, key: str) -> None:
        """Delete every object under a key, if there are any."""
        with self._opened(key) as store:
            for page in store.list(f"{key}/"):
                store.delete([item["path"] for item in page])

    def list_folders(self, key: str) -> list[str]:
        """List the names of the folders directly under a key, sorted."""
        with self._opened(key) as store:
            found = store.list_with_delimiter(f"{key}/")
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found["common_prefixes"])

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""
        from zarr.storage import ObjectStore

        with self._opened("") as store:
            return ObjectStore(store, read_only=True)

    @contextmanager
    def _opened(self, key: str) -> Iterator[Any]:
        try:
            from obstore.exceptions import BaseError
            from obstore.store import from_url
        except ImportError as error:
            raise MissingExtraError(f"{self.url}: URLs need obstore: pip install 'lesionzarr[cloud]'") from error
        if _OBSTORE_PROCESS.setdefault("pid", os.getpid()) != os.getpid():
            # its threads do not survive a fork, and every call would wait for them
            raise StoreError(f"{self.name}: read before this process was forked; start workers by spawn or forkserver")
        try:
            yield from_url(self.url, **self.options)
        except BaseError as error:
            # what follows the first line is a dump of the request
            raise StoreError(f"{self.name}/{key}: {str(error).splitlines()[0]}") from error


class DiskBlob:
    """A file that is open for reading; closed when nobody holds it any more."""

    def __init__(self, path: Path, name: str) -> None:
        self._name = name
        # a bare descriptor: what is evicted from a cache is closed without a warning of a file left open
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.size = os.fstat(self._descriptor).st_size
        # without preadv, as on Windows, a read is two calls that must not be parted
        self._lock = None if hasattr(os, "preadv") else Lock()

    def __del__(self) -> None:
        if hasattr(self, "_descriptor"):
            os.close(self._descriptor)

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes from `offset` on; IntegrityError where the object ends before."""
        done = 0
        while done < len(out):
            try:
                read = self._read(offset + done, out[done:])
            except OSError as error:
                raise StoreError(f"{self._name}: {error.strerror or error}") from error
            if not read:
                raise IntegrityError(f"{self._name}: cut off at byte {offset + done}; convert the volume again")
            done += read

    def _read(self, offset: int, out: NDArray[np.uint8]) -> int:
        if self._lock is None:
            return os.preadv(self._descriptor, [out.data], offset)
        with self._lock:
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            data = os.read(self._descriptor, len(out))
        out[: len(data)] = np.frombuffer(data, dtype=np.uint8)
        return len(data)


class BucketBlob:
    """An object of a bucket."""

    def __init__(self, store: Any, key: str, name: str, size: int) -> None:
        self._store, self._key, self._name, self.size = store, key, name, size

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with the bytes from `offset` on; IntegrityError where the object ends before."""
        from obstore.exceptions import BaseError

        try:
            data = self._store.get_range(self._key, start=offset, length=len(out))
        except BaseError as error:
            raise StoreError(f"{self._name}: {str(error).splitlines()[0]}") from error
        if len(data) != len(out):
            raise IntegrityError(f"{self._name}: cut off at byte {offset + len(data)}; convert the volume again")
        out[:] = np.frombuffer(data, dtype=np.uint8)


@contextmanager
def _faults(name: str, key: str) -> Iterator[None]:
    """Turn what a disk raises into a StoreError that names the object."""
    try:
        yield
    except OSError as error:
        fault = StoreError(f"{name}/{key}: {error.strerror or error}{REMEDIES.get(error.errno or 0, '')}")
        fault.errno = error.errno
        raise fault from error
