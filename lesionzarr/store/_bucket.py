"""A store behind a URL, reached through obstore."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import IntegrityError, MissingExtraError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from zarr.abc.store import Store

ABSENT = (FileNotFoundError, NotADirectoryError)

_OBSTORE_PROCESS: dict[str, int] = {}
"""The process that used obstore first, inherited by its forks."""


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

    def open(self, key: str) -> BucketBlob | None:
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
