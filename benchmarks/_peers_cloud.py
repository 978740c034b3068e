"""Peers that read a store in a bucket. Handles stay open, and no peer keeps voxels from one crop to another."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import cycle
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

from _data import WINDOW, overlap
from _network import BUCKET
from _peer import Peer

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from _data import Crop, Data
    from _network import Asked
    from numpy.typing import NDArray

SIZE = (9, 128, 128)
"""Of all crops."""

THREADS = 32
"""Of the bare loop, as many as lesionzarr has for a bucket."""

CONNECTIONS = 256
"""Most at a time, where a peer has to be told."""


class Store(NamedTuple):
    """A store in a bucket."""

    name: str
    """Its folder in the bucket."""
    options: dict[str, Any]
    """Of storage."""
    asked: dict[str, list[list[Asked]]]
    """What lesionzarr asked for, by phase, for the bare loop: a group of ranges for each of its batches."""


class CloudPeer(Peer):
    """A reader of a store in a bucket; nothing is opened before the first crop but what stands for the store."""

    def __init__(self, data: Data, store: Store) -> None:
        super().__init__(data, 1, "portable")
        self.store = store

    def begin(self, phase: str) -> None:
        """Hear which part of the measurement comes."""

    def inside(self, crop: Crop) -> tuple[slice, ...]:
        """Give the part of the volume that a crop at a lesion shows."""
        parts = overlap(crop, self.data.shapes[crop.volume])
        if parts is None:
            raise ValueError(f"{crop.lesion} lies outside of its volume")
        return parts[0]


class CloudLesionzarr(CloudPeer):
    """`read_batch` of this package."""

    packages = ("lesionzarr", "obstore.store")

    def __init__(self, data: Data, store: Store) -> None:
        super().__init__(data, store)
        import lesionzarr

        self._catalog = lesionzarr.open(f"s3://{BUCKET}/{store.name}", store.options)
        self._reader = lesionzarr.CropReader(self._catalog, size=SIZE, window=WINDOW)

    def prepare(self, volumes: Iterable[str]) -> None:
        """Read the indexes of all shards."""
        self._reader.explain(self._catalog.lesions[self._catalog.lesions["volume_id"].isin(set(volumes))])

    def batch(self, crops: Sequence[Crop], out: NDArray[Any]) -> None:
        """Read lesions."""
        self._reader.read_batch([crop.lesion for crop in crops], out=out[:, None])


class CloudLesionzarrAnew(CloudLesionzarr):
    """The same where no batch finds a shard open, as in an epoch through more volumes than are kept open."""

    def prepare(self, volumes: Iterable[str]) -> None:
        """Nothing, as everything is new for each batch."""

    def batch(self, crops: Sequence[Crop], out: NDArray[Any]) -> None:
        """Read lesions by a catalog that has read none before."""
        import lesionzarr

        reader = lesionzarr.CropReader(replace(self._catalog), size=SIZE, window=WINDOW)
        reader.read_batch([crop.lesion for crop in crops], out=out[:, None])


class CloudZarr(CloudPeer):
    """zarr-python on obstore; the crops of a batch are awaited together."""

    packages = ("zarr.storage", "obstore.store")

    def __init__(self, data: Data, store: Store) -> None:
        super().__init__(data, store)
        import zarr

        zarr.config.set({"async.concurrency": CONNECTIONS})
        self._zarr_store = self.zarr_store()

    def zarr_store(self) -> Any:
        """Give the store as zarr-python takes it."""
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        return ObjectStore(S3Store(BUCKET, prefix=self.store.name, **self.store.options), read_only=True)

    def open(self, volume: str) -> Any:
        """Open the array."""
        import zarr

        return zarr.open_array(self._zarr_store, path=f"volumes/{volume}/hu", mode="r", zarr_format=3)

    def batch(self, crops: Sequence[Crop], out: NDArray[Any]) -> None:
        """Await all crops, then window each."""
        from zarr.core.sync import sync

        read = sync(_all([_slice(self.handle(crop.volume), self.inside(crop)) for crop in crops]))
        self.map(lambda n: self.show(crops[n], lambda _: read[n], out[n]), range(len(crops)))


class CloudFsspec(CloudZarr):
    """zarr-python on s3fs."""

    packages = ("zarr.storage", "s3fs")

    def zarr_store(self) -> Any:
        """Give the store as zarr-python takes it."""
        from zarr.storage import FsspecStore

        options = self.store.options
        return FsspecStore.from_url(
            f"s3://{BUCKET}/{self.store.name}",
            read_only=True,
            storage_options={
                "key": options["access_key_id"],
                "secret": options["secret_access_key"],
                "client_kwargs": {"endpoint_url": options["endpoint"], "region_name": options["region"]},
                "config_kwargs": {"max_pool_connections": CONNECTIONS, "s3": {"addressing_style": "path"}},
            },
        )


class CloudTensorstore(CloudPeer):
    """Tensorstore's own S3 driver, the reads of a batch in one of its own batches."""

    packages = ("tensorstore",)

    def __init__(self, data: Data, store: Store) -> None:
        super().__init__(data, store)
        import tensorstore as ts

        settings = {"s3_request_concurrency": {"limit": CONNECTIONS}, "cache_pool": {"total_bytes_limit": 0}}
        self._context = ts.Context(settings)

    def open(self, volume: str) -> Any:
        """Open the array; credentials are in the environment."""
        import tensorstore as ts

        kvstore = {
            "driver": "s3",
            "bucket": BUCKET,
            "path": f"{self.store.name}/volumes/{volume}/hu/",
            "endpoint": self.store.options["endpoint"],
            "aws_region": self.store.options["region"],
            "aws_credentials": {"type": "environment"},
        }
        spec = {"driver": "zarr3", "kvstore": kvstore}
        return ts.open(spec, context=self._context, open=True, read=True).result()

    def batch(self, crops: Sequence[Crop], out: NDArray[Any]) -> None:
        """Begin all reads, and window each crop when it is there."""
        import tensorstore as ts

        with ts.Batch() as together:
            reads = [self.handle(crop.volume)[self.inside(crop)].read(batch=together) for crop in crops]
        self.map(lambda n: self.show(crops[n], lambda _: reads[n].result(), out[n]), range(len(crops)))


class Bare(CloudPeer):
    """The limit: the ranges that lesionzarr asked for, fetched by obstore, and nothing done with their bytes."""

    packages = ("obstore.store",)
    delivers = False

    def __init__(self, data: Data, store: Store) -> None:
        super().__init__(data, store)
        from obstore.store import S3Store

        self._bucket = S3Store(BUCKET, **store.options)
        self._threads = ThreadPoolExecutor(THREADS)
        self._lock = Lock()
        self._groups: Iterator[list[Asked]] = iter(())

    def prepare(self, volumes: Iterable[str]) -> None:
        """Nothing: objects have no handles."""

    def begin(self, phase: str) -> None:
        """Take the groups of a phase, again and again."""
        self._groups = cycle(self.store.asked[phase])

    def batch(self, crops: Sequence[Crop], out: NDArray[Any]) -> None:  # noqa: ARG002 - nothing is delivered
        """Fetch the next group: the ranges of each object by one call."""
        objects: dict[str, list[Asked]] = {}
        with self._lock:
            group = next(self._groups)
        for asked in group:
            objects.setdefault(asked[0], []).append(asked)
        for _ in self._threads.map(self._fetch, objects.items()):
            pass

    def _fetch(self, item: tuple[str, list[Asked]]) -> None:
        key, ranges = item
        starts, ends = [first for _, first, _ in ranges], [end for *_, end in ranges]
        self._bucket.get_ranges(key, starts=starts, ends=ends, coalesce=0)


async def _slice(array: Any, inside: tuple[slice, ...]) -> Any:
    # zarr 3.1 has no public name for it, and several reads at once are asked for by no other door
    known = getattr(array, "async_array", None) or array._async_array  # noqa: SLF001
    return await known.getitem(inside)


async def _all(reads: list[Coroutine[Any, Any, Any]]) -> list[Any]:
    return await asyncio.gather(*reads)


PEERS: dict[str, type[CloudPeer]] = {
    "lesionzarr": CloudLesionzarr,
    "lesionzarr, new volumes": CloudLesionzarrAnew,
    "zarr-python, obstore": CloudZarr,
    "zarr-python, s3fs": CloudFsspec,
    "tensorstore": CloudTensorstore,
    "bare ranges": Bare,
}
"""lesionzarr first, whose ranges the bare loop follows."""
