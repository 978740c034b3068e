"""Crops: a block of voxels of fixed size round each lesion."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, replace
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.geometry import crop_start
from lesionzarr.readers._checks import check_size, check_size_mm, spacing_of
from lesionzarr.readers._fetch import fetcher_of
from lesionzarr.readers._images import read_images
from lesionzarr.readers._plan import sample_positions
from lesionzarr.readers._reader import Reader
from lesionzarr.readers._request import NEAREST, Request
from lesionzarr.store.layout import LESION_SIZE, MASK, MASK_DTYPES, SEGMENTATION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._request import LesionsLike
    from lesionzarr.readers.batch import Batch, Crop


@dataclass(frozen=True, eq=False)
class CropReader(Reader):
    """Reads a block of voxels round each lesion.

    The block's centre is the centre of the lesion's box (on the key slice, where the source gives no extent along z),
    rounded half to even; an even size has its extra voxel before the centre. Along an axis with a spacing the centre is
    not rounded: voxel ``i`` of n lies ``(i - n // 2) * spacing`` mm from it. In the plane the outermost pixels reach
    half a pixel past their centres, and count as the volume that far.

    Examples
    --------
    >>> catalog = lesionzarr.open("deeplesion.zarr")  # doctest: +SKIP
    >>> crops = CropReader(catalog, size=(9, 128, 128), window="lung")  # doctest: +SKIP
    >>> crops.read("000001_01_01_109_1").image.shape  # doctest: +SKIP
    (1, 9, 128, 128)
    >>> cubes = CropReader(catalog, size_mm=(32, 64, 64), spacing_mm=1)  # doctest: +SKIP
    >>> cubes.read("000001_01_01_109_1").image.shape  # doctest: +SKIP
    (1, 32, 64, 64)
    """

    _: KW_ONLY
    size: tuple[int, int, int] = LESION_SIZE
    """Voxels of the image along (z, y, x)."""
    size_mm: tuple[float, float, float] | None = None
    """Its extent in mm instead: so many voxels of the spacing, rounded half to even, but at least one. Along an axis
    without a spacing those are the volume's own, so crops of several volumes may differ in shape."""
    spacing_mm: float | tuple[float | None, float | None, float | None] | None = None
    """Distance of neighbouring voxels of the image in mm: one number, or one for each of (z, y, x); None, for all or
    for one of them, leaves the voxels of the volume as they are."""
    masks: bool = False
    """Read the mask of the volume at the voxels of the image too, each the nearest voxel: `Crop.mask`, of `read`,
    `read_batch` and `batches`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, "zyx")
        spacing_of(self.spacing_mm, "zyx")
        if self.size_mm is not None:
            check_size_mm(self.size_mm, "zyx")
            if tuple(self.size) != LESION_SIZE:
                raise SettingError(f"size {self.size!r} and size_mm {self.size_mm!r}: give one of them")

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the crop of a lesion.

        Parameters
        ----------
        lesion
            Of a volume of the store.

        Returns
        -------
        Request

        Raises
        ------
        GeometryError
            The lesion has no position; or the slice interval of its volume is unknown, and the crop has a spacing or a
            size in mm along z.
        """
        box = lesion.box
        if box is None:
            text = "its key slice is not in the store, or its source gives none, so it has no position"
            raise GeometryError(f"lesion {lesion.lesion_id}: {text}")
        size = self._size(lesion)
        starts = [crop_start(centre, count) for centre, count in zip(box.centre, size, strict=True)]
        sampled: list[tuple[float, ...] | None] = [None] * 3
        if self.spacing_mm is not None:
            sampled = [
                None if spacing is None else sample_positions(centre, count, step)
                for spacing, centre, count, step in zip(
                    self._spacing(), box.centre, size, self.step(lesion), strict=True
                )
            ]
        return Request(
            volume_id=lesion.volume_id,
            shape=self.catalog.grid(lesion.volume_id).shape,
            z=sampled[0] or tuple(float(row) for row in range(starts[0], starts[0] + size[0])),
            y=sampled[1] or starts[1],
            x=sampled[2] or starts[2],
            size=(size[1], size[2]),
            windows=self._resolved(lesion),
            padding=self.padding,
            **self._stored(lesion.volume_id),
            interpolation=self.interpolation,
        )

    def read_batch(self, lesions: LesionsLike, *, out: NDArray[Any] | None = None, threads: int | None = None) -> Batch:
        """Read several lesions; as `Reader.read_batch`, with `Crop.mask` where `masks` asks for it."""
        batch = super().read_batch(lesions, out=out, threads=threads)
        if not self.masks:
            return batch
        asked = [self._mask_request(crop) for crop in batch.crops]
        known = [request for request in asked if request is not None]
        if not known:
            return batch
        images, _ = read_images(fetcher_of(self.catalog), known, MASK_DTYPES[-1], threads=threads)
        found = iter(images[:, 0])
        crops = zip(batch.crops, asked, strict=True)
        return replace(
            batch, crops=tuple(replace(crop, mask=next(found)) if request else crop for crop, request in crops)
        )

    def _mask_request(self, crop: Crop) -> Request | None:
        """Say which voxels of the mask belong to a crop; None for a volume without a mask."""
        if self.catalog.mask_array(crop.lesion.volume_id) is None:
            return None
        return replace(
            self.request(crop.lesion),
            volume_id=f"{crop.lesion.volume_id}/{MASK}",
            windows=(),
            padding=None,
            interpolation=NEAREST,
            array=self.catalog.mask_layout(crop.lesion.volume_id),
            fill_value=0,
            modality=SEGMENTATION,
            scale=1.0,
            overlays=(),
        )

    def step(self, lesion: Lesion) -> tuple[float, float, float]:
        """Give the distance of neighbouring voxels of the crop, in voxels of the volume, (z, y, x).

        It is 1 along an axis without a spacing. GeometryError for a spacing along z in a volume whose slice interval is
        unknown.
        """
        if self.spacing_mm is None:
            return 1.0, 1.0, 1.0
        z, y, x = (
            1.0 if spacing is None else spacing / own
            for spacing, own in zip(self._spacing(), self._own(lesion, self._spacing()), strict=True)
        )
        return z, y, x

    def _spacing(self) -> tuple[float | None, ...]:
        return spacing_of(self.spacing_mm, "zyx")

    def _size(self, lesion: Lesion) -> tuple[int, ...]:
        if self.size_mm is None:
            return self.size
        mm = [spacing or own for spacing, own in zip(self._spacing(), self._own(lesion, self.size_mm), strict=True)]
        return tuple(max(1, round(length / each)) for length, each in zip(self.size_mm, mm, strict=True))

    def _own(self, lesion: Lesion, wanted: Sequence[float | None]) -> tuple[float, float, float]:
        """Give the spacing of the volume; 1 for a slice interval that is unknown and that nothing in mm needs."""
        z, y, x = self.catalog.grid(lesion.volume_id).spacing_mm
        if z is None and wanted[0] is not None:
            raise GeometryError(
                f"volume {lesion.volume_id}: its slice interval is unknown, so a crop has no length in mm along z; "
                "give the size in voxels, and a spacing of (None, y, x)"
            )
        return (1.0 if z is None else z), y, x
