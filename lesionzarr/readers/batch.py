"""What readers deliver: images with the lesion's marks in the image's own coordinates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr._lazy import cached_property
from lesionzarr._shown import ShownBatch, ShownCrop
from lesionzarr.geometry import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._plan import Plan
    from lesionzarr.recist import Recist
    from lesionzarr.window import Window

Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class Crop(ShownCrop):
    """Windowed voxels round a lesion."""

    image: NDArray[Any] = field(repr=False)
    """(window, z, y, x): one channel per window, uint8, float16 or float32; one of int16 HU without a window."""
    plan: Plan = field(repr=False)
    """How it was made."""
    lesion: Lesion
    windows: tuple[Window, ...]
    grid: Grid
    """Of the whole volume."""
    origin: Point
    """Position in the volume of the image's first voxel, (z, y, x)."""
    step: Point
    """Distance in the volume of neighbouring voxels of the image, (z, y, x); 1 along an axis that is not resampled."""
    mask: NDArray[np.uint16] | None = field(default=None, repr=False, kw_only=True)
    """(z, y, x): value of the source's mask at each voxel of the image, 0 for the background and outside of the volume;
    ``lesion.mask_label`` is that of the lesion. None where it was not asked for, or the volume has no mask."""

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(z, y, x): True where the voxel lies in the volume, False where it is padding."""
        return self.plan.valid

    @property
    def spacing_mm(self) -> tuple[float | None, float, float]:
        """Distance of neighbouring voxels of the image along (z, y, x) in mm; None where it is unknown."""
        (z_mm, y_mm, x_mm), (z, y, x) = self.grid.spacing_mm, self.step
        return None if z_mm is None else z * z_mm, y * y_mm, x * x_mm

    @property
    def box(self) -> Box | None:
        """The lesion's box in voxels of the image."""
        box = self.lesion.box
        if box is None:
            return None
        return Box(*self.from_volume((box.z0, box.y0, box.x0)), *self.from_volume((box.z1, box.y1, box.x1)))

    @property
    def recist(self) -> Recist | None:
        """The lesion's axes in pixels of the image."""
        mark = self.lesion.mark
        if mark is None:
            return None
        return mark.shift(-self.origin[1], -self.origin[2]).scale(1 / self.step[1], 1 / self.step[2])

    @property
    def key_index(self) -> int | None:
        """Slice of the image nearest to the key slice; None where that is not in the volume, or not in the image."""
        if self.lesion.key_z is None:
            return None
        index = round(self.from_volume((self.lesion.key_z, 0, 0))[0])
        return index if 0 <= index < self.image.shape[1] else None

    def to_volume(self, point: Point) -> Point:
        """Turn a position in the image into one in the volume, (z, y, x)."""
        z, y, x = (o + s * p for o, s, p in zip(self.origin, self.step, point, strict=True))
        return z, y, x

    def from_volume(self, point: Point) -> Point:
        """Turn a position in the volume into one in the image, (z, y, x)."""
        z, y, x = ((p - o) / s for o, s, p in zip(self.origin, self.step, point, strict=True))
        return z, y, x

    def to_mm(self, point: Point) -> Point:
        """Turn a position in the image into mm, (z, y, x) along the LPS axes, from the volume's first voxel."""
        z, y, x = (p * mm for p, mm in zip(self.to_volume(point), self.grid.steps_mm, strict=True))
        return z, y, x


class ContextStack(Crop):
    """Slices round the key slice at a fixed distance in mm, interpolated between the rows of the volume."""


@dataclass(frozen=True, eq=False)
class Batch(ShownBatch):
    """Several crops or stacks of one shape."""

    image: NDArray[Any] = field(repr=False)
    """(lesion, window, z, y, x)."""
    crops: tuple[Crop, ...] = field(repr=False)
    """One per lesion, as views into the images."""

    @cached_property
    def valid(self) -> NDArray[np.bool_]:
        """(lesion, z, y, x): True where the voxel lies in the volume, False where it is padding."""
        return np.stack([crop.valid for crop in self.crops])

    def __len__(self) -> int:
        return len(self.crops)
