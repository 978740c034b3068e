"""A store in a folder."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr._lazy import cached_property
from lesionzarr.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from zarr.abc.store import Store

ABSENT = (FileNotFoundError, NotADirectoryError)

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; free some space, and run the same again")

TRIES = 20
"""Times that a file is written into a folder that others delete while it is empty."""

UNLINKABLE = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS}
"""What file systems without hard links say."""


@dataclass(frozen=True)
class Folder:
    """A store in a folder."""

    root: Path

    @cached_property
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

    def open_tail(self, key: str, length: int) -> tuple[DiskBlob, bytes] | None:
        """Open an object and read its last bytes; None if there is none."""
        blob = self.open(key)
        if blob is None:
            return None
        data = np.empty(min(length, blob.size), dtype=np.uint8)
        blob.read_ranges([(blob.size - len(data), data)])
        return blob, data.tobytes()

    def open(self, key: str, size: int | None = None) -> DiskBlob | None:  # noqa: ARG002
        """Open an object for reading parts of it; None if there is none."""
        with _faults(self.name, key), suppress(*ABSENT):
            return DiskBlob(self.root / key, f"{self.name}/{key}")
        return None

    def write(self, key: str, data: bytes) -> None:
        """Write an object through a temporary name and a rename."""
        with _faults(self.name, key), _part(self.root / key, data) as part:
            part.replace(self.root / key)

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another is there; tell whether what is there now is `data`."""
        path = self.root / key
        with _faults(self.name, key), suppress(FileExistsError), _part(path, data) as part:
            try:
                path.hardlink_to(part)
            except OSError as error:
                if error.errno not in UNLINKABLE:
                    raise
                with path.open("xb") as file:
                    file.write(data)
            return True
        return self.read(key) == data

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

    def list_objects(self, key: str) -> dict[str, int]:
        """Give the length in bytes of every object under a key, by the key of each."""
        found = {}
        with _faults(self.name, key):
            for folder, _, names in os.walk(self.root / key):
                for name in names:
                    path = Path(folder, name)
                    # another conversion may just have deleted it
                    with suppress(*ABSENT):
                        found[path.relative_to(self.root).as_posix()] = path.stat().st_size
        return found

    def reached(self) -> Folder:
        """Give this location, which is there or is not."""
        return self

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""
        from zarr.storage import LocalStore

        return LocalStore(self.root, read_only=True)


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

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; IntegrityError where the object ends before."""
        for offset, out in wanted:
            self._read_into(offset, out)

    def _read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        done = 0
        while done < len(out):
            try:
                read = self._read(offset + done, out[done:])
            except OSError as error:
                fault = StoreError(f"{self._name}: {error.strerror or error}")
                fault.errno = error.errno
                raise fault from error
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


@contextmanager
def _part(path: Path, data: bytes) -> Iterator[Path]:
    """Write a file under a name of its own, which is gone afterwards."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        _write_in(path.parent, part, data)
        yield part
    finally:
        part.unlink(missing_ok=True)


def _write_in(folder: Path, part: Path, data: bytes) -> None:
    """Write a file in a folder, which is made, and made again where a run that ends deletes it: that of the claims."""
    for tries_left in reversed(range(TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            part.write_bytes(data)
        except (FileNotFoundError, FileExistsError):
            if not tries_left:
                raise
        else:
            return


@contextmanager
def _faults(name: str, key: str) -> Iterator[None]:
    """Turn what a disk raises into a StoreError that names the object."""
    try:
        yield
    except OSError as error:
        fault = StoreError(f"{name}/{key}: {error.strerror or error}{REMEDIES.get(error.errno or 0, '')}")
        fault.errno = error.errno
        raise fault from error
