"""What all readers share: settings, and the verbs that deliver. A reader adds how a lesion becomes a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast

from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.lesion import Lesion
from lesionzarr.readers._checks import check_interpolation, check_padding, is_pair
from lesionzarr.readers._fetch import fetcher_of
from lesionzarr.readers._images import read_images
from lesionzarr.readers._request import LINEAR, find_lesions
from lesionzarr.readers.batch import Batch, Crop
from lesionzarr.window import GREY_DTYPES, OWN, Window, WindowLike, resolve_window

if TYPE_CHECKING:
    import dask.array as da
    import xarray as xr
    from numpy.typing import NDArray

    from lesionzarr.readers._plan import Plan
    from lesionzarr.readers._request import LesionsLike, Request
    from lesionzarr.store.catalog import Catalog

BATCH = 64
"""Lesions per dask task."""


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
        image, plans = read_images(fetcher_of(self.catalog), requests, self.image_dtype, out=out, threads=threads)
        crops = tuple(map(self._crop, found, requests, image, plans))
        return Batch(image, crops)

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
        names = [window if isinstance(window, str) else _name(resolve_window(window)) for window in self._windows()]
        places = list(zip([request.origin for request in requests], map(self.step, found), strict=True))
        return to_dataset(image, valid, found, names or ["HU"], places)

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

    def _resolved(self, lesion: Lesion) -> tuple[Window, ...]:
        return tuple(resolve_window(window, lesion.window) for window in self._windows())

    def _stored(self, volume_id: str) -> dict[str, Any]:
        array = self.catalog.array(volume_id)
        return {"array": array.layout, "fill_value": array.fill_value}

    def _requests(self, lesions: list[Lesion], batch_size: int = 1) -> list[Request]:
        if not lesions:
            raise SettingError("no lesions to read")
        if batch_size < 1:
            raise SettingError(f"a batch size of {batch_size}: at least 1 is needed")
        requests = [self.request(lesion) for lesion in lesions]
        shapes = {(len(request.z), *request.size) for request in requests}
        if len(shapes) > 1:
            raise GeometryError(f"images of different shapes {sorted(shapes)} make no batch; give a size")
        return requests

    def _crop(self, lesion: Lesion, request: Request, image: NDArray[Any], plan: Plan) -> Crop:
        grid = self.catalog.grid(lesion.volume_id)
        return self.kind(image, plan, lesion, request.windows, grid, request.origin, self.step(lesion))


def _name(window: Window) -> str:
    return f"{window.low:g}..{window.high:g} HU"
