"""Objects of a bucket that are read in parts, all of one version."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from hashlib import blake2b
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import IntegrityError, StoreError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.store._bucket import Bucket

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

STAMP_BYTES = 16
NO_STAMP = bytes(STAMP_BYTES)
"""Of an object of which the service tells nothing but its bytes; it agrees with any other."""

PAST_END = re.compile(r"status code: 416|Wanted range starting at|Requested range was invalid")
"""What obstore says of a part that begins where the object has ended."""


class ReplacedError(IntegrityError):
    """An object is another one than that which was opened."""


class BucketBlob:
    """An object of a bucket.

    Parameters
    ----------
    bucket, key
        Where it is.
    size
        Its length in bytes.
    stamp
        What tells it from others that are written under its key; None takes that of the first answer.
    """

    def __init__(self, bucket: Bucket, key: str, size: int, stamp: bytes | None = None) -> None:
        self._bucket, self._key, self.size, self.stamp = bucket, key, size, stamp
        self._lock = Lock()

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on, one after the other.

        Raises
        ------
        ReplacedError
            The object is not the one that was opened.
        IntegrityError
            It is missing, or ends before.
        """
        for offset, out in wanted:
            if len(out):
                self._read_into(offset, out)

    def _read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        name = f"{self._bucket.name}/{self._key}"

        def get(store: Any) -> tuple[bytes, Any]:
            found = store.get(self._key, options={"range": (offset, offset + len(out))})
            return found.bytes(), found.meta

        try:
            data, meta = self._bucket.ask(self._key, get)
        except FileNotFoundError as error:
            raise IntegrityError(f"{name}: missing; convert the volume again") from error
        except StoreError as error:
            if is_past_end(error):
                raise IntegrityError(f"{name}: cut off before byte {offset}; convert the volume again") from error
            raise
        stamp = stamp_of(meta)
        with self._lock:
            if self.stamp is None:
                self.stamp = stamp
            known = self.stamp
        if stamp != known and NO_STAMP not in {stamp, known}:
            raise ReplacedError(f"{name}: written anew while it is read; open the store again")
        if len(data) != len(out):
            raise IntegrityError(f"{name}: cut off at byte {offset + len(data)}; convert the volume again")
        out[:] = np.frombuffer(data, dtype=np.uint8)


def stamp_of(meta: Any) -> bytes:
    """Give what tells an object from others of its key: its ETag, or else when it was written."""
    # a weak tag and a strong one of the same bytes differ by a prefix (RFC 9110, section 8.8.3)
    text = (meta["e_tag"] or "").removeprefix("W/")
    if not text and meta["last_modified"] > EPOCH:
        text = f"{meta['last_modified']} {meta['size']}"
    return blake2b(text.encode(), digest_size=STAMP_BYTES).digest() if text else NO_STAMP


def is_past_end(error: StoreError) -> bool:
    """Tell whether a part was asked for that begins where the object has ended."""
    return PAST_END.search(str(error.__cause__)) is not None
