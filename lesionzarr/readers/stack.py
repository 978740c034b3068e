"""Context stacks: the key slice and its neighbours at a fixed distance in mm.

The input of 3DCE (Yan et al., 3D Context Enhanced Region-based Convolutional Neural Network, MICCAI 2018), MULAN and
LesaNet, with the weights of each neighbour; the published code reuses those of the first for all, and so does this on
request.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, ClassVar

from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.geometry import crop_start
from lesionzarr.readers._checks import check_length, check_size, spacing_of
from lesionzarr.readers._plan import sample_positions, stack_positions, upstream_mixes, whole_positions
from lesionzarr.readers._reader import Reader
from lesionzarr.readers._request import NEAREST, Request
from lesionzarr.readers.batch import ContextStack

if TYPE_CHECKING:
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Crop

EXACT, UPSTREAM = "exact", "upstream"
WEIGHTS = (EXACT, UPSTREAM)


@dataclass(frozen=True, eq=False)
class StackReader(Reader):
    """Reads slices round the key slice at a fixed distance in mm, interpolated in HU.

    Past an end of the volume the nearest slice stands, marked invalid. Where the slice interval of the volume is
    unknown the key slice stands for all, and only its own position is valid.

    Slices with a spacing are resampled in the plane. A stack of a size lies round the centre of the lesion's box, which
    is then not rounded: pixel ``i`` of n lies ``(i - n // 2) * spacing`` mm from it. Whole slices keep what they show,
    from edge to edge, as 3DCE's do: their first pixel lies half a pixel of the image from the edge. The outermost
    pixels of a slice reach half a pixel past their centres, and count as the volume that far.
    """

    _: KW_ONLY
    slices: int = 9
    """Number of slices; of an even number the extra one comes before the key slice."""
    interval_mm: float = 2.0
    """Distance of neighbouring slices of the stack."""
    size: tuple[int, int] | None = None
    """Rows and columns of the image, round the centre of the lesion's box; None for whole slices."""
    spacing_mm: float | tuple[float | None, float | None] | None = None
    """Distance of neighbouring pixels of the image in mm, such as 0.8 for 3DCE and MULAN or 1 for LesaNet: one number,
    or one for each of (y, x); None leaves the pixels of the volume as they are."""
    weights: str = EXACT
    """Of the two rows that a slice is mixed from: ``"exact"``, by their distance from it; or ``"upstream"``, those that
    3DCE's published code takes. It computes them for the first neighbour and uses them for all (rsummers11/CADLab,
    ``lesion_detector_3DCE/rcnn/fio/load_ct_img.py``): slices 5 mm apart, at 2 mm, are mixed 0.6 to 0.4 at 4 mm too,
    where 0.2 to 0.8 is right. Both agree on stacks of three slices, and where no slices need be mixed. Where a
    neighbour is not in the volume the nearest slice that is stands, one by one for both rows of the mix, as upstream;
    but upstream looks for it beyond a gap of the series too."""

    kind: ClassVar[type[Crop]] = ContextStack

    def __post_init__(self) -> None:
        super().__post_init__()
        check_size((self.slices,), "z")
        check_length(self.interval_mm, "interval_mm")
        if self.size is not None:
            check_size(self.size, "yx")
        spacing_of(self.spacing_mm, "yx")
        if self.weights not in WEIGHTS:
            raise SettingError(f"weights {self.weights!r}: 'exact' or 'upstream' is needed")
        if self.weights == UPSTREAM and self.interpolation == NEAREST:
            raise SettingError("weights 'upstream' mix slices; with interpolation 'nearest' none are mixed")

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the stack of a lesion; GeometryError for a lesion without a key slice."""
        box = lesion.box
        if box is None:
            text = "its key slice is not in the store, or its source gives none, so it has no stack"
            raise GeometryError(f"lesion {lesion.lesion_id}: {text}")
        # a box without a key slice, such as a 3D box that no mark belongs to, has its middle slice for one
        key_z = round(box.centre[0]) if lesion.key_z is None else lesion.key_z
        grid = self.catalog.grid(lesion.volume_id)
        steps = self.step(lesion)
        along_y, along_x = (self._pixels(n - 1, grid.shape[n], box.centre[n], steps[n]) for n in (1, 2))
        spacing = grid.spacing_mm[0]
        rows = key_z, self.slices, self.interval_mm, spacing or self.interval_mm
        return Request(
            volume_id=lesion.volume_id,
            shape=grid.shape,
            z=stack_positions(*rows),
            y=along_y[0],
            x=along_x[0],
            size=(along_y[1], along_x[1]),
            windows=self._resolved(lesion),
            padding=self.padding,
            **self._stored(lesion.volume_id),
            nearest_slice=True,
            repeat=key_z if spacing is None else None,
            interpolation=self.interpolation,
            mixes=upstream_mixes(*rows) if self.weights == UPSTREAM else None,
        )

    def step(self, lesion: Lesion) -> tuple[float, float, float]:
        """Give the distance of neighbouring voxels of the stack, in voxels of the volume, (z, y, x)."""
        grid = self.catalog.grid(lesion.volume_id)
        spacing = grid.spacing_mm[0]
        along_z = 1.0 if spacing is None else self.interval_mm / spacing
        if self.spacing_mm is None:
            return along_z, 1.0, 1.0
        y, x = (
            1.0 if wanted is None else wanted / own
            for wanted, own in zip(spacing_of(self.spacing_mm, "yx"), grid.spacing_mm[1:], strict=True)
        )
        return along_z, y, x

    def _pixels(self, axis: int, extent: int, centre: float, step: float) -> tuple[int | tuple[float, ...], int]:
        """Give the first pixel, or the positions, along an axis of the plane (0 is y), and their number."""
        size = None if self.size is None else self.size[axis]
        if self.spacing_mm is None or spacing_of(self.spacing_mm, "yx")[axis] is None:
            return (0, extent) if size is None else (crop_start(centre, size), size)
        positions = whole_positions(extent, step) if size is None else sample_positions(centre, size, step)
        return positions, len(positions)
