"""An object behind a URL whose query is its signature, as services give out for some hours.

The signature is for GET of this object alone, so that nothing is listed, and its size is told by the answer to a range.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeVar

from lesionzarr.errors import StoreError
from lesionzarr.store._bucket import ABSENT, Bucket, _Frozen, _stat
from lesionzarr.store._options import obstore_arguments, of_client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lesionzarr.source import Stat

T = TypeVar("T")

QUERY = re.compile(r"\?\S*")


@dataclass(frozen=True)
class SignedObject:
    """The folder of a URL that is signed, in which one object can be read (`lesionzarr.source.Objects`)."""

    bucket: Bucket
    """By the URL without its query."""
    query: str = field(repr=False)
    """What follows the question mark: a secret, as long as it is valid."""

    @property
    def url(self) -> str:
        """The URL of the folder, without the query."""
        return self.bucket.url

    def read(self, key: str) -> bytes | None:
        """Read the object whole; None if there is none."""
        return self._ask(key, lambda store: bytes(store.get(key).bytes()))

    def read_range(self, key: str, offset: int, length: int) -> bytes | None:
        """Read a part of the object, less where it ends before; None if there is none."""
        return self._ask(key, lambda store: bytes(store.get_range(key, start=offset, length=length)))

    def stat(self, key: str) -> Stat | None:
        """Tell length in bytes, and time of the last change in ns, of the object; None if there is none."""
        return self._ask(key, lambda store: _stat(store.get(key, options={"range": (0, 1)}).meta))

    def walk(self, key: str) -> Iterator[tuple[str, Stat]]:
        """Raise StoreError: a signature is for one object."""
        raise StoreError(f"{self.url}/{key}: a URL that is signed is one object, and no folder")

    def list_level(self, key: str) -> dict[str, Stat | None]:
        """Raise StoreError: a signature is for one object."""
        raise StoreError(f"{self.url}/{key}: a URL that is signed is one object, and no folder")

    def _ask(self, key: str, action: Callable[[Any], T]) -> T | None:
        with suppress(*ABSENT), _unsigned():
            # not by the client of the bucket, which would sign requests itself, and drops the query
            return self.bucket.ask(key, lambda _: action(_client(self.url, self.query, _Frozen(self.bucket.merged))))
        return None


@contextmanager
def _unsigned() -> Iterator[None]:
    """Leave signatures out of what is told."""
    try:
        yield
    except StoreError as error:
        fault = StoreError(QUERY.sub("", str(error)))
    else:
        return
    # not from the error, which has the URL as it is
    raise fault


@lru_cache(maxsize=16)
def _client(url: str, query: str, options: _Frozen) -> Any:
    from obstore.store import HTTPStore

    return HTTPStore.from_url(f"{url}?{query}", **obstore_arguments("https", of_client(options.options)))
