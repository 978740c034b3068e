"""Crops: a block of voxels of fixed size round each lesion."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from lesionzarr.errors import GeometryError
from lesionzarr.geometry import crop_start
from lesionzarr.readers._checks import check_size
from lesionzarr.readers._reader import Reader
from lesionzarr.readers._request import Request

if TYPE_CHECKING:
    from lesionzarr.lesion import Lesion


@dataclass(frozen=True, eq=False)
class CropReader(Reader):
    """Reads a block of voxels round each lesion.

    The block's centre is the centre of the lesion's box (on the key slice, where the source gives no extent along z),
    rounded half to even; an even size has its extra voxel before the centre.

    Examples
    --------
    >>> catalog = lesionzarr.open("deeplesion.zarr")  # doctest: +SKIP
    >>> crops = CropReader(catalog, size=(9, 128, 128), window="lung")  # doctest: +SKIP
    >>> crops.read("000001_01_01_109_1").image.shape  # doctest: +SKIP
    (1, 9, 128, 128)
    """

    _: KW_ONLY
    size: tuple[int, int, int] = (9, 128, 128)
    """Voxels along (z, y, x)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size(self.size, "zyx")

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the crop of a lesion; GeometryError for a lesion without a position."""
        box = lesion.box
        if box is None:
            raise GeometryError(f"lesion {lesion.lesion_id}: its key slice is not in the store, so it has no position")
        z, y, x = (crop_start(centre, size) for centre, size in zip(box.centre, self.size, strict=True))
        return Request(
            volume_id=lesion.volume_id,
            shape=self.catalog.grid(lesion.volume_id).shape,
            z=tuple(float(row) for row in range(z, z + self.size[0])),
            y=y,
            x=x,
            size=(self.size[1], self.size[2]),
            windows=self._resolved(lesion),
            padding=self.padding,
            **self._stored(lesion.volume_id),
        )

    def step(self, lesion: Lesion) -> tuple[float, float, float]:  # noqa: ARG002 - the same for every lesion
        """Give (1, 1, 1): a crop has the voxels of its volume."""
        return 1.0, 1.0, 1.0
