"""What requests cost, measured as they are made, and what follows for how ranges are merged."""

from __future__ import annotations

import time
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from lesionzarr.readers._threads import run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from lesionzarr.store._blob import BucketBlob

SMALL_BYTES = 64 * 1024
"""A request of no more takes as long as an empty one."""

LEAST_GAP_BYTES = 64 * 1024
MOST_GAP_BYTES = 1024 * 1024
"""Bytes between two chunks that are read in vain to save a request, at least and at most."""

RANGES_AT_ONCE = 64
"""Of all objects: as many again as objects are read at a time."""

WEIGHT = 0.2
"""Of the newest measurement in the running mean."""


@dataclass(frozen=True)
class Traffic:
    """What was asked of a store."""

    requests: int
    bytes: int
    latency_s: float | None
    """Running mean of small requests; None before the first."""
    bytes_per_s: float | None
    """Running mean of one request's rate after its latency; None before the first large one."""


class Pace:
    """Counts the requests of any number of threads, and measures them."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._requests = self._bytes = 0
        self._latency_s: float | None = None
        self._bytes_per_s: float | None = None

    def record(self, requests: int, size: int, seconds: float) -> None:
        """Count requests that were made at once."""
        with self._lock:
            self._requests += requests
            self._bytes += size
            if size <= SMALL_BYTES:
                self._latency_s = _mean(self._latency_s, seconds)
            elif self._latency_s is not None and seconds > self._latency_s:
                self._bytes_per_s = _mean(self._bytes_per_s, size / (seconds - self._latency_s))

    def gap(self) -> int:
        """Give the bytes that take as long as a request, within bounds: it pays to read fewer in vain."""
        with self._lock:
            if self._latency_s is None or self._bytes_per_s is None:
                return LEAST_GAP_BYTES
            return int(min(max(self._latency_s * self._bytes_per_s, LEAST_GAP_BYTES), MOST_GAP_BYTES))

    def traffic(self) -> Traffic:
        """Give what was measured."""
        with self._lock:
            return Traffic(self._requests, self._bytes, self._latency_s, self._bytes_per_s)


class PacedBlob:
    """An object of a bucket whose ranges are read at once, and measured."""

    def __init__(self, blob: BucketBlob, pace: Pace) -> None:
        self._blob, self._pace, self.size = blob, pace, blob.size

    @property
    def stamp(self) -> bytes | None:
        """What tells the object from others of its key; None where nothing was read of it. It may be set."""
        return self._blob.stamp

    @stamp.setter
    def stamp(self, stamp: bytes) -> None:
        self._blob.stamp = stamp

    def read_ranges(self, wanted: Sequence[tuple[int, NDArray[np.uint8]]]) -> None:
        """Fill each array with the bytes from its offset on; IntegrityError where the object is another, or ends."""
        began = time.perf_counter()
        run_all(lambda each: self._blob.read_ranges([each]), wanted, RANGES_AT_ONCE)
        self._pace.record(len(wanted), sum(len(out) for _, out in wanted), time.perf_counter() - began)


def _mean(known: float | None, new: float) -> float:
    return new if known is None else (1 - WEIGHT) * known + WEIGHT * new
