"""A store behind a URL, reached through obstore."""

from __future__ import annotations

import errno
import os
import random
import re
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from lesionzarr._lazy import cached_property
from lesionzarr.errors import MissingExtraError, SettingError, StoreError
from lesionzarr.store._blob import EPOCH, PAST_END, BucketBlob, is_past_end, stamp_of
from lesionzarr.store._options import merge_options, obstore_arguments, patience_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from zarr.abc.store import Store

    from lesionzarr.source import Stat

T = TypeVar("T")

ABSENT = (FileNotFoundError, NotADirectoryError)

FAULTS = {
    "RequestTimeTooSkewed": "the clock of this machine is wrong; set it",
    "501 Not Implemented": "the server does not know such requests",
    "NoSuchBucket": "no such bucket; create it, or mend the URL",
    "InvalidAccessKeyId": "the access key is not known there; check the credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the credentials",
    "ExpiredToken": "the session token has expired; get a new one",
    "AccessDenied": "access denied; check the credentials and what they allow",
    "PermissionDenied": "access denied; check the credentials and what they allow",
    "Unauthenticated": "not signed in; give credentials, or the storage option anonymous",
    "169.254.169.254": "no credentials; give them, or the storage option anonymous=true",
    "dns error": "no such host, or no network",
    "tcp connect error": "the server cannot be reached",
    "Connection refused": "the server cannot be reached",
    "operation timed out": "the server does not answer in time",
    "TimedOut": "the server does not answer in time",
    "Range request not supported": "the server sends whole files only; serve the store by one that knows byte ranges",
}
"""What to say of an error, by a word of what obstore says."""

REFUSED = re.compile(
    r"status code: (?:4(?!08|29)|501|505|506|508|510)"
    r"|Content-Range|CONTENT_RANGE|Requested \d+\.\.\d+, got|Invalid last modified|redirect"
)
"""Answers that would be the same another time, and those that make no sense."""

CLIENTS = 64
"""Most services, or folders of one, to which connections are kept; one more costs the oldest a new handshake."""

FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 4.0

_ANSWERED: set[Bucket] = set()
"""Places that have answered this process."""

_OBSTORE_PROCESS: dict[str, int] = {}
"""The process that used obstore first, inherited by its forks."""


@dataclass(frozen=True)
class Bucket:
    """A store behind a URL."""

    url: str
    options: dict[str, Any] = field(default_factory=dict, repr=False, hash=False)
    """Credentials too, which so travel where a location is pickled."""
    answered: bool = field(default=False, repr=False, compare=False)
    """The service has answered before."""

    @property
    def name(self) -> str:
        """Last component of the URL."""
        return self.url.rsplit("/", 1)[-1]

    def read(self, key: str) -> bytes | None:
        """Read an object whole; None if there is none."""
        with suppress(*ABSENT):
            return self.ask(key, lambda store: bytes(store.get(key).bytes()))
        return None

    def read_range(self, key: str, offset: int, length: int) -> bytes | None:
        """Read a part of an object, less where it ends before; None if there is none."""
        try:
            return self.ask(key, lambda store: bytes(store.get_range(key, start=offset, length=length)))
        except ABSENT:
            return None
        except StoreError as error:
            if is_past_end(error):
                return b""
            raise

    def stat(self, key: str) -> Stat | None:
        """Tell length in bytes, and time of the last change in ns, of an object; None if there is none."""

        def look(store: Any) -> Stat:
            try:
                return _stat(store.head(key))
            except ABSENT:
                # the answer to a HEAD has no text, which would tell a bucket that is absent from an object
                return _stat(store.get(key).meta)

        with suppress(*ABSENT):
            return self.ask(key, look)
        return None

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """List every object under a key (all of them under "")."""
        last = "", (0, 0)
        for item in self._list(key):
            # an empty object of a folder's name stands for the folder, as consoles make them
            if last[0] and (last[1][0] or not item["path"].startswith(f"{last[0]}/")):
                yield last
            last = item["path"], _stat(item)
        if last[0]:
            yield last

    def list_level(self, key: str) -> dict[str, Stat | None]:
        """List what is directly under a key, by key; None for folders."""
        found = self.ask(key, lambda store: store.list_with_delimiter(f"{key}/" if key else None))
        files = {item["path"]: _stat(item) for item in found["objects"]}
        return {**files, **dict.fromkeys(found["common_prefixes"])}

    def size(self, key: str) -> int | None:
        """Give the length of an object in bytes; None if there is none."""
        with suppress(*ABSENT):
            return self.ask(key, lambda store: int(store.head(key)["size"]))
        return None

    def open(self, key: str, size: int | None = None) -> BucketBlob | None:
        """Open an object for reading parts of it; one of known `size` is not asked for. None if there is none."""
        if size is not None:
            return BucketBlob(self, key, size)
        with suppress(*ABSENT):
            return self.ask(key, lambda store: self._blob(key, store.head(key)))
        return None

    def open_tail(self, key: str, length: int) -> tuple[BucketBlob, bytes] | None:
        """Open an object and read its last bytes, by one request where the service allows; None if there is none."""

        def get(store: Any) -> tuple[BucketBlob, bytes]:
            from obstore.store import AzureStore

            last: Any = {"suffix": length}
            if isinstance(store, AzureStore):
                # it cannot be asked for the last bytes
                size = int(store.head(key)["size"])
                if not size:
                    return BucketBlob(self, key, 0), b""
                last = max(0, size - length), size
            found = store.get(key, options={"range": last})
            data = bytes(found.bytes())
            return self._blob(key, found.meta), data

        try:
            return self.ask(key, get)
        except ABSENT:
            return None
        except StoreError as error:
            if is_past_end(error):
                # an empty object has no last byte
                return BucketBlob(self, key, 0), b""
            raise

    def _blob(self, key: str, meta: Any) -> BucketBlob:
        return BucketBlob(self, key, int(meta["size"]), stamp_of(meta))

    def write(self, key: str, data: bytes) -> None:
        """Write an object by one request."""
        self._put(key, lambda store: self._writable(store).put(key, data))

    def create(self, key: str, data: bytes) -> bool:
        """Write an object unless another is there; tell whether what is there now is `data`."""

        def put(store: Any) -> bool:
            from obstore.exceptions import AlreadyExistsError

            try:
                self._writable(store).put(key, data, mode="create")
            except AlreadyExistsError:
                return False
            except NotImplementedError as error:
                # of a web server
                raise _told(self, key, error) from error
            return True

        # it is there too where an answer was lost and the request was sent again
        return self._put(key, put, once=True) or self.read(key) == data

    def _put(self, key: str, action: Callable[[Any], T], *, once: bool = False) -> T:
        try:
            return self.ask(key, action, once=once)
        except ABSENT as error:
            raise _told(self, key, error) from error

    def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        with suppress(*ABSENT):
            self.ask(key, lambda store: self._writable(store).delete(key))

    def delete_tree(self, key: str) -> None:
        """Delete every object under a key, if there are any."""

        def delete(store: Any) -> None:
            self._writable(store)
            for page in store.list(f"{key}/"):
                store.delete([item["path"] for item in page])

        self.ask(key, delete)

    def _writable(self, store: Any) -> Any:
        from obstore.store import HTTPStore

        if isinstance(store, HTTPStore):
            raise StoreError(f"{self.name}: a web server is for reading; write to a folder or a bucket")
        return store

    def list_folders(self, key: str) -> list[str]:
        """List the names of the folders directly under a key, sorted."""
        found = self.ask(key, lambda store: store.list_with_delimiter(f"{key}/"))
        return sorted(prefix.rstrip("/").rsplit("/", 1)[-1] for prefix in found["common_prefixes"])

    def list_objects(self, key: str) -> dict[str, int]:
        """Give the length in bytes of every object under a key, by the key of each."""
        return {item["path"]: int(item["size"]) for item in self._list(key)}

    def _list(self, key: str) -> Iterator[Any]:
        """List every object under a key; after a fault it goes on behind the last one that came."""
        pages: Iterator[Any] | None = None
        last: str | None = None

        def turn(store: Any) -> Any:
            nonlocal pages
            pages, listing = None, pages or iter(store.list(f"{key}/" if key else None, offset=last, chunk_size=1000))
            page = next(listing, None)
            pages = listing
            return page

        while (page := self.ask(key, turn)) is not None:
            yield from page
            last = page[-1]["path"] if page else last

    @cached_property
    def merged(self) -> dict[str, Any]:
        """Its options, and those of the environment of this process."""
        return merge_options(self.url.partition("://")[0], self.options)

    def __getstate__(self) -> dict[str, Any]:
        # secrets of the environment stay in it: each worker has its own
        return {name: value for name, value in self.__dict__.items() if name != "merged"}

    def reached(self) -> Bucket:
        """Give the same location, known to answer: an outage is then waited for."""
        return replace(self, answered=True)

    def zarr_store(self) -> Store:
        """Open a read-only store of zarr-python."""
        from zarr.storage import ObjectStore

        with self._opened("") as store:
            return ObjectStore(store, read_only=True)

    def ask(self, key: str, action: Callable[[Any], T], *, once: bool = False) -> T:
        """Do something with the client that may be done twice, and again while its fault may pass.

        obstore sends a request again where that is known to be harmless, for a few seconds; not one that creates or
        deletes, nor one whose answer broke off, and a server takes longer to be started again. It also does so where a
        server says that it will never know such a request: not where a request is to be sent `once`, nor to a service
        that has not answered yet.
        """
        answered = self.answered or self in _ANSWERED
        deadline = time.monotonic() + patience_s(self.merged, reached=answered)
        wait = FIRST_WAIT_S
        while True:
            try:
                with self._opened(key, once=once or not answered) as store:
                    result = action(store)
                    _ANSWERED.add(self)
                    return result
            except StoreError as error:
                # of workers that lost one server at one time, each comes back at its own
                pause = wait * random.uniform(0.5, 1.5)  # noqa: S311 - no secret
                if not _may_pass(error.__cause__) or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                wait = min(2 * wait, LONGEST_WAIT_S)

    @contextmanager
    def _opened(self, key: str, *, once: bool = False) -> Iterator[Any]:
        """Give the client, which may send each request `once`; what goes wrong with it becomes one line."""
        try:
            from obstore.exceptions import BaseError
        except ImportError as error:
            raise MissingExtraError(f"{self.url}: URLs need obstore: pip install 'lesionzarr[cloud]'") from error
        if _OBSTORE_PROCESS.setdefault("pid", os.getpid()) != os.getpid():
            # its threads do not survive a fork, and every call would wait for them
            raise StoreError(f"{self.name}: read before this process was forked; start workers by spawn or forkserver")
        try:
            yield _client(self.url, _Frozen({**self.merged, **_once(self.merged)} if once else self.merged))
        except ABSENT as error:
            if "NoSuchBucket" in str(error):
                raise StoreError(f"{self.url}: {FAULTS['NoSuchBucket']}") from error
            raise
        except (BaseError, PermissionError, TimeoutError) as error:
            raise _told(self, key, error) from error


def _stat(meta: Any) -> Stat:
    return int(meta["size"]), (meta["last_modified"] - EPOCH) // timedelta(microseconds=1) * 1000


class _Frozen:
    """Options as a key of a cache, which holds them by value and never prints them."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options
        self._key = repr(sorted(options.items(), key=lambda item: item[0]))

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Frozen) and self._key == other._key


def _once(options: dict[str, Any]) -> dict[str, Any]:
    """Give the option by which obstore sends no request again."""
    return {"retry_config": {**options.get("retry_config", {}), "max_retries": 0}}


@lru_cache(maxsize=CLIENTS)
def _client(url: str, options: _Frozen) -> Any:
    # its connections stay open between requests, which saves a handshake for each
    from obstore.exceptions import BaseError
    from obstore.store import from_url

    scheme = url.partition(":")[0]
    try:
        return from_url(url, **obstore_arguments(scheme, options.options))
    except (BaseError, TypeError, ValueError) as error:
        raise SettingError(f"{url}: {str(error).splitlines()[0]}; check the storage options") from error


def _may_pass(error: BaseException | None) -> bool:
    """Tell a fault of the network or the server from an answer that will not change."""
    from obstore.exceptions import GenericError

    text = str(error)
    return isinstance(error, (GenericError, TimeoutError)) and not REFUSED.search(text) and not PAST_END.search(text)


def _told(bucket: Bucket, key: str, error: BaseException) -> StoreError:
    """Make the one line for a fault of a request."""
    text = f"{type(error).__name__}: {error}"
    known = next((said for word, said in FAULTS.items() if word in text), None)
    # what follows the first line is a dump of the request
    first = re.sub(r"\s+", " ", str(error).splitlines()[0])
    place = f"{bucket.name}/{key}" if key else bucket.url
    fault = StoreError(f"{place}: {known} ({first})" if known else f"{place}: {first}")
    if isinstance(error, NotImplementedError) or "status code: 501" in text:
        fault.errno = errno.ENOTSUP
    return fault
