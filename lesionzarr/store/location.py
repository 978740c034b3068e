"""Where a store is: a folder, or a bucket by URL, behind the few verbs that a store needs.

Writing one object is atomic: on a disk through a temporary name and a rename, in a bucket by one request. Object
stores need the extra ``cloud`` (obstore).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from lesionzarr.errors import SettingError
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder
from lesionzarr.store._options import merge_options

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from zarr.abc.store import Store

URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


class Blob(Protocol):
    """An object that is open for reading. Any number of threads may read at once."""

    size: int
    """Length in bytes."""

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; IntegrityError where the object ends before."""


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

    def open(self, key: str, size: int | None = None) -> Blob | None:
        """Open an object for reading parts of it; None if there is none.

        Where `size`, its length in bytes, is known, a bucket is not asked whether it is there.
        """

    def open_tail(self, key: str, length: int) -> tuple[Blob, bytes] | None:
        """Open an object and read its last bytes, fewer if it has no more; None if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Write an object, replacing what was there, at once or not at all."""

    def create(self, key: str, data: bytes) -> bool:
        """Write an object, at once, unless another is there; tell whether what is there now is `data`."""

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""

    def delete_tree(self, key: str) -> None:
        """Delete every object under a key, if there are any."""

    def list_folders(self, key: str) -> list[str]:
        """List the names of the folders directly under a key, sorted."""

    def list_objects(self, key: str) -> dict[str, int]:
        """Give the length in bytes of every object under a key (all of them under ""), by the key of each."""

    def reached(self) -> Location:
        """Give the same location, known to answer: an outage is then waited for, which of another may be a mistake."""

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""


def is_url(url: str | os.PathLike[str]) -> bool:
    """Tell a URL from a path."""
    return URL.match(os.fspath(url)) is not None


def open_location(url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None) -> Location:
    """Make the location of a path or URL, without touching it.

    Parameters
    ----------
    url
        Path of a folder, ``file://`` URL, or a URL that obstore knows (``s3://``, ``gs://``, ``az://``,
        ``http(s)://``).
    storage_options
        For the URL of an object store: ``anonymous``, ``endpoint``, ``path_style``, ``region``, ``profile``,
        ``retries``, ``patience_s``, ``timeout_s``, ``connect_timeout_s``, and what obstore takes besides, such as
        ``access_key_id``. Those of the environment variable ``LESIONZARR_STORAGE_OPTIONS``, a JSON object, come behind.
        They are part of the location, also where it is pickled for a worker: see `lesionzarr.convert`.

    Returns
    -------
    Location

    Raises
    ------
    SettingError
        An empty path, or storage options for a folder.
    """
    text = os.fspath(url)
    scheme, _, rest = text.partition("://") if is_url(text) else ("", "", text)
    if scheme and (scheme.lower() != "file" or storage_options):
        scheme = scheme.lower()
        return Bucket(f"{scheme}://{rest.rstrip('/')}", merge_options(scheme, storage_options))
    if not rest:
        raise SettingError("the path of the store is empty; name a folder or a URL")
    if storage_options:
        raise SettingError(f"{text}: storage options are for the URL of an object store")
    return Folder(Path(unquote(rest) if scheme else rest).absolute())
