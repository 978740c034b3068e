"""What all readers share: settings, and the verbs that deliver. A reader adds how a lesion becomes a request."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast, overload

from lesionzarr.errors import GeometryError, MissingExtraError, SettingError
from lesionzarr.lesion import Lesion
from lesionzarr.readers._checks import check_interpolation, check_padding, check_whole, is_pair
from lesionzarr.readers._explain import explain
from lesionzarr.readers._fetch import fetcher_of
from lesionzarr.readers._images import read_images, regions_of
from lesionzarr.readers._order import Order, order_batches
from lesionzarr.readers._plan import plan_request
from lesionzarr.readers._prefetch import read_ahead
from lesionzarr.readers._request import LINEAR, find_lesions
from lesionzarr.readers._suv import suv_factor
from lesionzarr.readers.batch import Batch, Crop
from lesionzarr.window import GREY_DTYPES, OWN, Window, WindowLike, resolve_window

if TYPE_CHECKING:
    from collections.abc import Generator
    from typing import Unpack

    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from lesionzarr.readers._cache import CacheInfo
    from lesionzarr.readers._explain import Explanation
    from lesionzarr.readers._order import Ordering
    from lesionzarr.readers._pace import Traffic
    from lesionzarr.readers._plan import Plan
    from lesionzarr.readers._request import LesionsLike, Request
    from lesionzarr.readers._torch import LesionBatches, LesionDataset
    from lesionzarr.store.catalog import Catalog

BATCH = 64
"""Lesions per dask task."""

PREFETCH = 2
"""Batches that are read before they are asked for."""


@dataclass(frozen=True, eq=False)
class Reader(ABC):
    """Frozen settings, and the verbs."""

    catalog: Catalog
    """The opened store."""
    _: KW_ONLY
    window: WindowLike | Sequence[WindowLike] | None = None
    """A preset name, (low, high) in HU, ``"dicom"`` for the lesion's own, a list of these (one channel each), or None
    for HU."""
    dtype: str = "uint8"
    """Of windowed images: ``"uint8"`` (0..255, truncated), ``"float16"`` or ``"float32"`` (0..1). Without a window it
    is int16."""
    padding: float | str | None = None
    """What stands outside of the volume: HU, ``"edge"``, or None for the low end of each window (without a window: the
    volume's own padding value)."""
    interpolation: str = LINEAR
    """Between voxels of the volume, in HU before the window: ``"linear"``, or ``"nearest"`` for the closest one."""

    kind: ClassVar[type[Crop]] = Crop

    def __post_init__(self) -> None:
        if self.dtype not in GREY_DTYPES:
            raise SettingError(f"dtype {self.dtype!r}: windowed images are 'uint8', 'float16' or 'float32'")
        check_interpolation(self.interpolation)
        check_padding(self.padding, windowed=bool(self._windows()))
        for window in self._windows():
            if window != OWN:
                resolve_window(window)

    @abstractmethod
    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the image of a lesion; GeometryError for a lesion without a position."""

    @abstractmethod
    def step(self, lesion: Lesion) -> tuple[float, float, float]:
        """Give the distance of neighbouring voxels of the image, in voxels of the volume, (z, y, x)."""

    def at_epoch(self, epoch: int) -> Reader:  # noqa: ARG002 - packs need it
        """Give the reader for an epoch: itself, unless its images differ from epoch to epoch."""
        return self

    def origin(self, lesion: Lesion, request: Request) -> tuple[float, float, float]:  # noqa: ARG002 - packs need it
        """Give the position in the volume of the first voxel of the image, (z, y, x)."""
        return request.origin

    @property
    def image_dtype(self) -> str:
        """Dtype of the images."""
        return self.dtype if self._windows() else "int16"

    def read(self, lesion: str | Lesion) -> Crop:
        """Read one lesion.

        Parameters
        ----------
        lesion
            Id or lesion.

        Returns
        -------
        Crop
            With `image` (window, z, y, x).

        Raises
        ------
        NotFoundError
            No such lesion.
        GeometryError
            The lesion has no position, since its key slice is not in the store.
        IntegrityError
            The store is damaged there.
        SettingError
            More than one lesion, or something that is none.
        """
        if not isinstance(lesion, (str, Lesion)):
            raise SettingError(f"read takes one lesion, not {type(lesion).__name__}; read_batch takes several")
        return self.read_batch(lesion).crops[0]

    def read_batch(self, lesions: LesionsLike, *, out: NDArray[Any] | None = None, threads: int | None = None) -> Batch:
        """Read several lesions.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``; at least one.
        out
            Array (lesion, window, z, y, x) of `image_dtype` to write the images to; a new one if None.
        threads
            Most threads; None for one a core.

        Returns
        -------
        Batch
            With `image` (lesion, window, z, y, x), in the order given.

        Raises
        ------
        NotFoundError, GeometryError, IntegrityError
            As `read`; also GeometryError where the images would differ in shape.
        """
        found = find_lesions(self.catalog, lesions)
        requests = self._requests(found)
        if threads is not None:
            check_whole(threads, "threads", 1)
        image, plans = read_images(fetcher_of(self.catalog), requests, self.image_dtype, out=out, threads=threads)
        crops = tuple(map(self._crop, found, requests, image, plans))
        return Batch(image, crops)

    def batches(  # noqa: PLR0913 - one keyword for each choice that an epoch has
        self,
        lesions: LesionsLike | None = None,
        *,
        batch_size: int = 64,
        seed: int | None = None,
        epoch: int = 0,
        split: str | None = None,
        drop_noisy: bool = False,
        balance: str | None = None,
        rank: int = 0,
        ranks: int = 1,
        start_batch: int = 0,
        drop_last: bool = False,
        prefetch: int = PREFETCH,
        threads: int | None = None,
    ) -> Generator[Batch, None, None]:
        """Go through lesions once, batch by batch, reading ahead. Those without a position are left out.

        The order follows from lesions, `seed` and `epoch` alone: it is the same for any number of ranks.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``; None for all.
        batch_size
            Lesions per batch.
        seed
            Shuffle by it and `epoch`; None keeps the order given.
        epoch
            Number of the epoch, from 0.
        split
            Only lesions of this split.
        drop_noisy
            Leave out lesions that the source marks as noisy.
        balance
            ``"type"`` or ``"size"``: draw with replacement so that each type, or each quarter of the long axes, is as
            likely as any other; what is unknown is one class more. As many lesions as without; needs a seed.
        rank, ranks
            Take the batches rank, rank + ranks, ...; ranks may differ by one batch.
        start_batch
            Go on in mid-epoch: leave out the batches of all ranks before this one. After n batches on each rank it is
            ``n * ranks``.
        drop_last
            Leave out a last batch that is not full.
        prefetch
            Most batches that a thread reads ahead; 0 for none.
        threads
            Most threads that read a batch; None for one a core.

        Returns
        -------
        generator of Batch
            To read ahead no more, close or drop it.

        Raises
        ------
        SettingError
            An argument that means nothing, or no lesion is left.
        NotFoundError, GeometryError, IntegrityError
            As `read_batch`; what is wrong with the store is raised in place of the batch.
        """
        order = Order(
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            split=split,
            drop_noisy=drop_noisy,
            balance=balance,
            rank=rank,
            ranks=ranks,
            start_batch=start_batch,
            drop_last=drop_last,
        )
        _check_reading(prefetch, threads)
        found, reader = self._found(lesions), self.at_epoch(epoch)

        def read(numbers: NDArray[Any]) -> Batch:
            return reader.read_batch([found[number] for number in numbers], threads=threads)

        return read_ahead(read, order_batches(found, order), prefetch)

    def explain(self, lesions: LesionsLike, *, run: bool = False) -> Explanation:
        """Say what a batch costs: chunks, requests and bytes, from the plan and the indexes of the shards.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``; at least one.
        run
            Also read the batch, and say how long it took.

        Returns
        -------
        Explanation

        Raises
        ------
        NotFoundError, GeometryError, IntegrityError
            As `read_batch`.
        SettingError
            A volume is of a kind that is read by zarr-python, which tells no costs.
        """
        requests = self._requests(find_lesions(self.catalog, lesions))
        if any(part.array is None for request in requests for part in (request, *request.overlays)):
            raise SettingError("some of these volumes are read by zarr-python, which tells no costs")
        fetcher = fetcher_of(self.catalog)
        parts = [part for request in requests for part in (request, *request.overlays)]
        told = explain(fetcher, regions_of(parts, [plan_request(part) for part in parts]))
        told = replace(told, images=len(requests))
        if not run:
            return told
        before, began = fetcher.traffic(), time.perf_counter()
        read_images(fetcher, requests, self.image_dtype)
        seconds, after = time.perf_counter() - began, fetcher.traffic()
        return replace(
            told,
            seconds=seconds,
            requests_made=after.requests - before.requests,
            bytes_fetched=after.bytes - before.bytes,
        )

    def cache_info(self) -> CacheInfo:
        """Give statistics of the decoded chunks that the readers of this catalog keep together."""
        return fetcher_of(self.catalog).cache.info()

    def traffic(self) -> Traffic:
        """Tell what the readers of this catalog have asked of a bucket, and how quickly it answered."""
        return fetcher_of(self.catalog).traffic()

    def to_dask(self, lesions: LesionsLike, batch_size: int = BATCH) -> da.Array:
        """Give the images as a lazy array.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``.
        batch_size
            Lesions per task.

        Returns
        -------
        dask.array.Array
            (lesion, window, z, y, x), one chunk and one task per `batch_size` lesions. Tasks hold the path of the store
            and their own requests, no table. What is padding `to_xarray` tells, as ``valid``.

        Raises
        ------
        NotFoundError, GeometryError
            As `read_batch`; what is wrong with the store shows when the array is computed.
        """
        from lesionzarr.readers._dask import lazy_images

        requests = self._requests(find_lesions(self.catalog, lesions), batch_size)
        return lazy_images(self.catalog.location, requests, self.image_dtype, batch_size)[0]

    def to_xarray(self, lesions: LesionsLike, batch_size: int = BATCH) -> xr.Dataset:
        """Give the images as a lazy dataset with the lesion table as coordinates.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``.
        batch_size
            Lesions per task.

        Returns
        -------
        xarray.Dataset
            ``image`` (lesion, window, z, y, x) and ``valid`` (lesion, z, y, x), on dask arrays; along the lesion axis
            columns of the lesion table, with boxes in voxels of the volume, and ``origin`` and ``step`` (lesion, axis):
            voxel ``i`` of an image lies at ``origin + i * step`` in its volume, (z, y, x).

        Raises
        ------
        NotFoundError, GeometryError
            As `to_dask`.
        """
        from lesionzarr.readers._dask import lazy_images
        from lesionzarr.readers._xarray import to_dataset

        found = find_lesions(self.catalog, lesions)
        requests = self._requests(found, batch_size)
        image, valid = lazy_images(self.catalog.location, requests, self.image_dtype, batch_size)
        origins = map(self.origin, found, requests)
        places = list(zip(origins, map(self.step, found), strict=True))
        return to_dataset(image, valid, found, self._channel_names(), places)

    @overload
    def to_torch(
        self,
        lesions: LesionsLike | None = None,
        *,
        iterable: Literal[False] = False,
        prefetch: int = ...,
        threads: int | None = ...,
        **order: Unpack[Ordering],
    ) -> LesionDataset: ...
    @overload
    def to_torch(
        self,
        lesions: LesionsLike | None = None,
        *,
        iterable: Literal[True],
        prefetch: int = ...,
        threads: int | None = ...,
        **order: Unpack[Ordering],
    ) -> LesionBatches: ...
    def to_torch(
        self,
        lesions: LesionsLike | None = None,
        *,
        iterable: bool = False,
        prefetch: int = PREFETCH,
        threads: int | None = None,
        **order: Unpack[Ordering],
    ) -> LesionDataset | LesionBatches:
        """Give the images as a dataset of PyTorch, for a DataLoader with any number of workers.

        Parameters
        ----------
        lesions
            Ids, lesions, or rows of ``catalog.lesions``; None for all.
        iterable
            Whole batches, for ``DataLoader(dataset, batch_size=None)``; else one item per lesion, for
            ``DataLoader(dataset, batch_size=n)``.
        prefetch
            Most batches that an iterable dataset reads ahead without workers; workers leave that to the loader.
        threads
            Most threads per process; None for one a core, shared among the workers.
        **order
            `batch_size`, `seed`, `epoch`, `split`, `drop_noisy`, `balance`, `rank`, `ranks`, `start_batch` and
            `drop_last`, as `batches`. ``set_epoch`` of the dataset goes to another epoch.

        Returns
        -------
        torch.utils.data.Dataset or torch.utils.data.IterableDataset
            Of dicts with ``image``, ``valid``, ``box`` (z0, y0, x0, z1, y1, x1 in voxels of the image), ``lesion_id``
            and ``index`` (number among the lesions given); its ``collate`` stacks items.

        Raises
        ------
        MissingExtraError
            torch cannot be imported.
        SettingError, NotFoundError
            As `batches`.
        """
        try:
            from lesionzarr.readers._torch import LesionBatches, LesionDataset
        except ImportError as error:
            raise MissingExtraError(f"to_torch needs torch ({error}): pip install 'lesionzarr[torch]'") from error

        asked = Order(**order)
        _check_reading(prefetch, threads)
        found = self._found(lesions)
        if iterable:
            return LesionBatches(self, found, asked, threads, prefetch)
        return LesionDataset(self, found, asked, threads)

    def _found(self, lesions: LesionsLike | None) -> list[Lesion]:
        return find_lesions(self.catalog, self.catalog.lesions if lesions is None else lesions)

    def _windows(self) -> list[WindowLike]:
        window = self.window
        if window is None:
            return []
        if isinstance(window, (str, Window)):
            return [window]
        if not isinstance(window, Sequence) or not window:
            raise SettingError(f"window {window!r}: a preset name, 'dicom', (low, high) in HU or a list of these")
        if is_pair(window):
            return [cast("tuple[float, float]", window)]
        return list(cast("Sequence[WindowLike]", window))

    def _channel_names(self) -> list[str]:
        names = [window if isinstance(window, str) else _name(resolve_window(window)) for window in self._windows()]
        return names or ["HU"]

    def _resolved(self, lesion: Lesion) -> tuple[Window, ...]:
        return tuple(resolve_window(window, lesion.window) for window in self._windows())

    def _stored(self, volume_id: str) -> dict[str, Any]:
        stored = self.catalog.array(volume_id)
        found = {"array": stored.layout, "fill_value": stored.fill_value, "modality": stored.modality}
        return found if stored.modality == "CT" else {**found, "scale": suv_factor(volume_id, stored.tags)}

    def _requests(self, lesions: list[Lesion], batch_size: int = 1) -> list[Request]:
        if not lesions:
            raise SettingError("no lesions to read")
        if batch_size < 1:
            raise SettingError(f"a batch size of {batch_size}: at least 1 is needed")
        requests = [self.request(lesion) for lesion in lesions]
        # presets and the source's own windows are in HU
        if not self._windows() or any(isinstance(window, str) for window in self._windows()):
            for request in requests:
                if request.modality != "CT":
                    text = f"volume {request.volume_id} holds PET, which has no HU"
                    raise SettingError(f"{text}: give a window as (low, high) in SUV")
        shapes = {(len(request.z), *request.size) for request in requests}
        if len(shapes) > 1:
            raise GeometryError(f"images of different shapes {sorted(shapes)} make no batch; give a size")
        return requests

    def _crop(self, lesion: Lesion, request: Request, image: NDArray[Any], plan: Plan) -> Crop:
        origin = self.origin(lesion, request)
        grid = self.catalog.grid(lesion.volume_id)
        return self.kind(image, plan, lesion, request.windows, grid, origin, self.step(lesion))


def _check_reading(prefetch: int, threads: int | None) -> None:
    check_whole(prefetch, "prefetch", 0)
    if threads is not None:
        check_whole(threads, "threads", 1)


def _name(window: Window) -> str:
    return f"{window.low:g}..{window.high:g} HU"
