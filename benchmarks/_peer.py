"""What all peers of the benchmark of crops have in common.

All deliver crops windowed to uint8, black outside of the volume, into one array (crop, z, y, x). A peer that reads any
block of a volume only says how; padding, window and threads are then the same for all.
"""

from __future__ import annotations

from abc import ABC
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from _data import WINDOW, overlap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _data import Crop, Data
    from numpy.typing import NDArray

    Inside = tuple[slice, ...]

LOW, HIGH = WINDOW
SCALE = np.float32(255 / (HIGH - LOW))
SLAB_VOXELS = 128 * 1024


def window(hu: NDArray[np.int16], out: NDArray[np.uint8]) -> None:
    """Map HU to grey levels, as quickly as numpy can: slab by slab, and each conversion by itself."""
    rows = max(1, SLAB_VOXELS * len(hu) // max(hu.size, 1))
    for first in range(0, len(hu), rows):
        clipped = np.clip(hu[first : first + rows], np.int16(LOW), np.int16(HIGH))
        clipped -= np.int16(LOW)
        grey = clipped.astype(np.float32)
        grey *= SCALE
        out[first : first + rows] = grey


class Peer(ABC):  # noqa: B024 - a peer fills either `read` or `batch`
    """A reader with its settings; nothing is opened before the first crop."""

    packages: ClassVar[tuple[str, ...]] = ()
    """To import before the clock runs; without them the peer is left out."""
    kind: ClassVar[str | None] = None
    """Format that it reads beside the stores."""
    most: ClassVar[int] = 64
    """Crops of a batch that it is asked for: fewer for one that would take minutes."""
    alone: ClassVar[bool] = False
    """Called from one thread, since it has threads of its own and is slower when called from several."""
    mapped: ClassVar[bool] = False
    """Reads by mapped memory, where requests and bytes cannot be counted."""
    anywhere: ClassVar[bool] = True
    """False for one that holds crops round lesions alone."""
    delivers: ClassVar[bool] = True
    """False for a limit that delivers no crops."""

    @classmethod
    def needs(cls, profile: str) -> str | None:  # noqa: ARG003 - for those that follow a profile
        """Give the format that it reads beside the stores."""
        return cls.kind

    def __init__(self, data: Data, threads: int, profile: str) -> None:
        self.data, self.threads, self.profile = data, threads, profile
        self._handles: dict[Any, Any] = {}
        self._pool = ThreadPoolExecutor(threads) if threads > 1 and not self.alone else None

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:
        """Read crops."""
        self.map(lambda number: self.deliver(crops[number], out[number]), range(len(crops)))

    def open(self, volume: str) -> Any:
        """Open a volume."""
        raise NotImplementedError

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Read a block of a volume."""
        raise NotImplementedError

    def prepare(self, volumes: Iterable[str]) -> None:
        """Open volumes before the clock runs."""
        for volume in volumes:
            self.handle(volume)

    def handle(self, volume: str) -> Any:
        """Give an open volume; all stay open."""
        if volume not in self._handles:
            self._handles[volume] = self.open(volume)
        return self._handles[volume]

    def deliver(self, crop: Crop, out: NDArray[np.uint8]) -> None:
        """Read one crop."""
        self.show(crop, lambda inside: self.read(self.handle(crop.volume), inside), out)

    def show(self, crop: Crop, read: Callable[[Inside], NDArray[np.int16]], out: NDArray[np.uint8]) -> None:
        """Window the part of a crop that lies in the volume; the rest is black."""
        parts = overlap(crop, self.data.shapes[crop.volume])
        if parts is None:
            out[...] = 0
            return
        inside, target = parts
        part = out[target]
        if part.shape != out.shape:
            out[...] = 0
        window(read(inside), part)

    def map(self, work: Callable[[Any], object], items: Iterable[Any]) -> None:
        """Do some work for every item, on the threads that are allowed."""
        for _ in self._pool.map(work, items) if self._pool else map(work, items):
            pass
