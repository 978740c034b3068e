"""Where a store is: a folder, or a bucket by URL, behind the few verbs that a store needs.

Writing one object is atomic: on a disk through a temporary name and a rename, in a bucket by one request. Object
stores need the extra ``cloud`` (obstore).
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import unquote

from lesionzarr.errors import SettingError
from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from zarr.abc.store import Store

WEB = {"http", "https"}
URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
USER = re.compile(r"[^/@\[]*(@|:(?!\d*(/|$)).*@)")
"""The start of what follows the scheme, where that begins with a user, maybe with a password."""


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


class Address(NamedTuple):
    """A URL in parts, of which the first may be told to anybody."""

    url: str
    """Without credentials, query and slash at its end."""
    user: str
    """User and password, as in the URL, of which a web server is asked with them."""
    query: str

    def bucket(self, options: Mapping[str, Any] | None) -> Bucket:
        """Give the place, with options for its object store."""
        own = dict(options or {})
        if self.user:
            client = own.get("client_options", {})
            basic = f"Basic {base64.b64encode(unquote(self.user).encode()).decode()}"
            headers = {"authorization": basic, **client.get("default_headers", {})}
            own["client_options"] = {**client, "default_headers": headers}
        bucket = Bucket(self.url, own)
        # what is wrong with the environment is told at once
        _ = bucket.merged
        return bucket

    @property
    def parent(self) -> tuple[Address, str]:
        """The folder that holds it, and its name there; "" where it is a whole bucket or server."""
        folder, _, name = self.url.rpartition("/")
        return (self, "") if folder.endswith("/") else (self._replace(url=folder), unquote(name))


def split_url(text: str) -> Address:
    """Take a URL apart.

    Parameters
    ----------
    text
        Of an object store.

    Returns
    -------
    Address

    Raises
    ------
    SettingError
        A fragment, or, but for ``http(s)://``, a query or credentials: obstore drops them all.
    """
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    path, question, query = rest.partition("#")[0].partition("?")
    # secrets have slashes in them, which belong written as %2F
    user, at, path = path.rpartition("@") if USER.match(path) else ("", "", path)
    host, slash, path = path.partition("/")
    address = Address(f"{scheme}://{host}{f'{slash}{path}'.rstrip('/')}", user, query)
    if "#" in rest:
        raise SettingError(f"{address.url}: a # in the URL, which ends it; write %23 where it is part of a name")
    if scheme not in WEB and question:
        raise SettingError(f"{address.url}: a ? in the URL, which ends it; write %3F where it is part of a name")
    if scheme not in WEB and at:
        raise SettingError(f"{address.url}: credentials in the URL; give them as storage options")
    return address


def shown(url: str | os.PathLike[str]) -> str:
    """Give a path or URL as it may be told: without credentials and query."""
    text = os.fspath(url)
    return split_url(text.partition("#")[0]).url if is_url(text) else text


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
        An empty path, storage options for a folder, or a URL with a fragment, a query, or, but for that of a web
        server, credentials.
    """
    text = os.fspath(url)
    scheme, _, rest = text.partition("://") if is_url(text) else ("", "", text)
    if scheme and (scheme.lower() != "file" or storage_options):
        address = split_url(text)
        if address.query:
            what = "a query, which signs one object, and a store has many"
            raise SettingError(f"{address.url}: {what}; give credentials as storage options")
        return address.bucket(storage_options)
    if not rest:
        raise SettingError("the path of the store is empty; name a folder or a URL")
    if storage_options:
        raise SettingError(f"{text}: storage options are for the URL of an object store")
    return Folder(Path(unquote(rest) if scheme else rest).absolute())
