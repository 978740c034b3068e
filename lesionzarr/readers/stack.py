"""Context stacks: the key slice and its neighbours at a fixed distance in mm.

The input of 3DCE (Yan et al., 3D Context Enhanced Region-based Convolutional Neural Network, MICCAI 2018), MULAN and
LesaNet, with the weights of each neighbour (the published code reuses those of the first for all).
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from lesionzarr.errors import GeometryError
from lesionzarr.geometry import crop_start
from lesionzarr.readers._checks import check_length, check_size
from lesionzarr.readers._plan import stack_positions
from lesionzarr.readers._reader import Reader
from lesionzarr.readers._request import Request
from lesionzarr.readers.batch import ContextStack

if TYPE_CHECKING:
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Crop


@dataclass(frozen=True, eq=False)
class StackReader(Reader):
    """Reads slices round the key slice at a fixed distance in mm, linearly interpolated in HU.

    Past an end of the volume the nearest slice stands, marked invalid. Where the slice interval of the volume is
    unknown the key slice stands for all, and only its own position is valid.
    """

    _: KW_ONLY
    slices: int = 9
    """Number of slices; of an even number the extra one comes before the key slice."""
    interval_mm: float = 2.0
    """Distance of neighbouring slices of the stack."""
    size: tuple[int, int] | None = None
    """Rows and columns round the centre of the lesion's box; None for whole slices."""

    kind: ClassVar[type[Crop]] = ContextStack

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size((self.slices,), "z")
        check_length(self.interval_mm, "interval_mm")
        if self.size is not None:
            check_size(self.size, "yx")

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the stack of a lesion; GeometryError for a lesion without a key slice."""
        box = lesion.box
        if box is None:
            raise GeometryError(f"lesion {lesion.lesion_id}: its key slice is not in the store, so it has no stack")
        # a box without a key slice, such as a 3D box that no mark belongs to, has its middle slice for one
        key_z = round(box.centre[0]) if lesion.key_z is None else lesion.key_z
        grid = self.catalog.grid(lesion.volume_id)
        size = self.size or grid.shape[1:]
        y, x = (crop_start(c, n) for c, n in zip(box.centre[1:], size, strict=True)) if self.size else (0, 0)
        spacing = grid.spacing_mm[0]
        return Request(
            volume_id=lesion.volume_id,
            shape=grid.shape,
            z=stack_positions(key_z, self.slices, self.interval_mm, spacing or self.interval_mm),
            y=y,
            x=x,
            size=size,
            windows=self._resolved(lesion),
            padding=self.padding,
            **self._stored(lesion.volume_id),
            nearest_slice=True,
            repeat=key_z if spacing is None else None,
        )

    def step(self, lesion: Lesion) -> tuple[float, float, float]:
        """Give the distance of neighbouring voxels of the stack, in voxels of the volume, (z, y, x)."""
        spacing = self.catalog.grid(lesion.volume_id).spacing_mm[0]
        return (1.0 if spacing is None else self.interval_mm / spacing), 1.0, 1.0
