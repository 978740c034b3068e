"""Crops of a pack, with random shifts inside its margin."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.errors import SettingError, not_found
from lesionzarr.readers._checks import check_whole
from lesionzarr.readers._reader import Reader
from lesionzarr.readers._request import EDGE, Request
from lesionzarr.store.packs import ARRAY_ID, Pack

if TYPE_CHECKING:
    from lesionzarr.lesion import Lesion

Shift = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class PackReader(Reader):
    """Reads the lesions of a pack: one chunk each, of the size that was packed.

    Its images are those of a `CropReader` of that size on the store that the pack was made from; with a spacing the HU
    are those, rounded to whole numbers, and so the grey levels but for that.
    """

    catalog: Pack
    """The opened pack."""
    _: KW_ONLY
    seed: int | None = None
    """Of the random shifts, each axis by up to the margin to both sides; None for no shifts."""
    epoch: int = 0
    """Shifts differ between epochs; `batches` and `to_torch` take that of their own."""
    _rows: dict[str, int] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.catalog, Pack):
            raise SettingError("a PackReader reads what lesionzarr.open_pack opens; a CropReader reads a store")
        if self.seed is not None:
            check_whole(self.seed, "seed", 0)
        check_whole(self.epoch, "epoch", 0)
        if self.padding == EDGE and self.catalog.info["spacing_mm"] is not None:
            raise SettingError("padding 'edge': a resampled pack does not hold the edge voxels of its volumes")
        self._rows.update((lesion_id, row) for row, lesion_id in enumerate(self.catalog.places.index))

    def at_epoch(self, epoch: int) -> PackReader:
        """Give the reader with the shifts of another epoch."""
        return self if self.seed is None else replace(self, epoch=epoch)

    def shift(self, row: int) -> Shift:
        """Give by how many voxels the image of a lesion is moved, (z, y, x)."""
        if self.seed is None:
            return 0, 0, 0
        margin = np.array(self.catalog.margin)
        z, y, x = np.random.default_rng((self.seed, self.epoch, row)).integers(-margin, margin + 1).tolist()
        return z, y, x

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the image of a lesion."""
        row = self._row(lesion)
        first, last = self._place(row, "first"), self._place(row, "last")
        start = [m + s for m, s in zip(self.catalog.margin, self.shift(row), strict=True)]
        z, y, x = (int(a - b) for a, b in zip(start, first, strict=True))
        size = self.catalog.size
        block_slices = self.catalog.layout.chunk[0]
        extent = [int(b - a) for a, b in zip(first, last, strict=True)]
        return Request(
            volume_id=ARRAY_ID,
            shape=(extent[0], extent[1], extent[2]),
            z=tuple(float(number) for number in range(z, z + size[0])),
            y=y,
            x=x,
            size=(size[1], size[2]),
            windows=self._resolved(lesion),
            padding=self.padding,
            array=self.catalog.layout,
            fill_value=self.catalog.array(lesion.volume_id).fill_value,
            offset=(row * block_slices + int(first[0]), int(first[1]), int(first[2])),
        )

    def step(self, lesion: Lesion) -> tuple[float, float, float]:
        """Give the distance of neighbouring voxels of the image, in voxels of the volume, (z, y, x)."""
        return self._place(self._row(lesion), "step")

    def origin(self, lesion: Lesion, request: Request) -> tuple[float, float, float]:  # noqa: ARG002 - of the block
        """Give the position in the volume of the first voxel of the image, (z, y, x)."""
        row = self._row(lesion)
        places = zip(
            self._place(row, "origin"), self._place(row, "step"), self.catalog.margin, self.shift(row), strict=True
        )
        z, y, x = (origin + step * (margin + shift) for origin, step, margin, shift in places)
        return z, y, x

    def _row(self, lesion: Lesion) -> int:
        row = self._rows.get(lesion.lesion_id)
        if row is None:
            raise not_found("lesion", lesion.lesion_id, self._rows)
        return row

    def _place(self, row: int, name: str) -> tuple[float, float, float]:
        z, y, x = (float(self.catalog.columns[f"{name}_{axis}"][row]) for axis in "zyx")
        return z, y, x
