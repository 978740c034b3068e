"""CT and PET of one study, on the grid of the CT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lesionzarr._lazy import cached_property
from lesionzarr.errors import GeometryError, SettingError
from lesionzarr.readers._plan import plan_request
from lesionzarr.readers._request import EDGE, Request
from lesionzarr.readers._suv import UNITS, suv_factor
from lesionzarr.readers.batch import Crop
from lesionzarr.readers.crop import CropReader
from lesionzarr.window import Window, resolve_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._plan import Plan


LEAN_VOXELS = 0.05
"""How far the axes of CT and PET may lean against each other over the length of the CT, in voxels of the PET."""


@dataclass(frozen=True, eq=False)
class StudyCrop(Crop):
    """CT voxels round a lesion, and those of the PET at the same places."""

    pet_volume_id: str
    pet_plan: Plan = field(repr=False)

    @property
    def pet_valid(self) -> NDArray[np.bool_]:
        """(z, y, x): True where the voxel lies in the PET volume."""
        return self.pet_plan.valid


@dataclass(frozen=True, eq=False)
class StudyReader(CropReader):
    """Reads crops with one channel for each CT window, then one of the PET that belongs to the CT.

    The PET is that of the study with the same frame of reference, and with the longest overlap if there are several;
    it is interpolated at the places of the CT's voxels, by `interpolation`. Its voxels outside of the PET volume are
    the low end of `pet_window`.

    Examples
    --------
    >>> catalog = lesionzarr.open("lung.zarr")  # doctest: +SKIP
    >>> reader = StudyReader(catalog, size=(9, 128, 128), window="lung", pet_window=(0, 10))  # doctest: +SKIP
    >>> reader.read(catalog.lesions.index[0]).image.shape  # doctest: +SKIP
    (2, 9, 128, 128)
    """

    _: KW_ONLY
    pet_window: tuple[float, float] = (0.0, 10.0)
    """Low and high end, in `pet_unit`."""
    pet_unit: str = "suv_bw"
    """``"suv_bw"`` (SUV by body weight), ``"suv_lbm"`` (lean body mass), ``"suv_bsa"`` (body surface), ``"bqml"``."""

    kind: ClassVar[type[Crop]] = StudyCrop

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self._windows():
            raise SettingError("a study has channels of CT and PET: give the CT a window")
        if self.pet_unit not in UNITS:
            raise SettingError(f"pet_unit {self.pet_unit!r}: one of {', '.join(UNITS)} is needed")
        self._pet_window()

    def request(self, lesion: Lesion) -> Request:
        """Say which voxels make the crop of a lesion.

        Parameters
        ----------
        lesion
            Of a CT volume of the store.

        Returns
        -------
        Request
            With the PET as its overlay.

        Raises
        ------
        GeometryError
            As `CropReader.request`; also where no PET shares the frame of reference, or it lies oblique to the CT.
        SettingError
            The source does not say what the SUV needs.
        """
        asked = super().request(lesion)
        if asked.modality != "CT":
            raise GeometryError(f"lesion {lesion.lesion_id}: marked on {asked.modality}; a study is read from its CT")
        volume_id = self._pet_of(asked.volume_id)
        stored, grid = self.catalog.array(volume_id), self.catalog.grid(volume_id)
        z, y, x = _places(asked, _steps_between(self.catalog.grid(asked.volume_id), grid, asked.volume_id, volume_id))
        overlay = Request(
            volume_id=volume_id,
            shape=grid.shape,
            z=z,
            y=y,
            x=x,
            size=asked.size,
            windows=(self._pet_window(),),
            padding=EDGE if self.padding == EDGE else None,
            array=stored.layout,
            fill_value=stored.fill_value,
            interpolation=self.interpolation,
            modality=stored.modality,
            scale=suv_factor(volume_id, stored.tags, self.pet_unit),
        )
        return replace(asked, overlays=(overlay,))

    def _pet_window(self) -> Window:
        if isinstance(self.pet_window, (str, Window)) or not isinstance(self.pet_window, Sequence):
            raise SettingError(f"pet_window {self.pet_window!r}: (low, high) in {self.pet_unit} is needed")
        return resolve_window(self.pet_window)

    @cached_property
    def _pets(self) -> dict[str, str]:
        # the first of each CT has the longest overlap
        best = self.catalog.pairs.drop_duplicates("ct")
        return dict(zip(best["ct"], best["pet"], strict=True))

    def _pet_of(self, volume_id: str) -> str:
        found = self._pets.get(volume_id)
        if found is None:
            raise GeometryError(f"volume {volume_id}: no PET of its study shares its frame of reference")
        return found

    def _channel_names(self) -> list[str]:
        window = self._pet_window()
        return [*super()._channel_names(), f"PET {window.low:g}..{window.high:g} {self.pet_unit}"]

    def _crop(self, lesion: Lesion, request: Request, image: NDArray[Any], plan: Plan) -> StudyCrop:
        (overlay,) = request.overlays
        return StudyCrop(
            image,
            plan,
            lesion,
            request.windows,
            self.catalog.grid(lesion.volume_id),
            self.origin(lesion, request),
            self.step(lesion),
            overlay.volume_id,
            plan_request(overlay),
        )


def _steps_between(ct: Grid, pet: Grid, ct_id: str, pet_id: str) -> list[tuple[float, float]]:
    """Give for each axis what turns an index of the CT into one of the PET: step and start."""
    square = [np.vstack([np.asarray(grid.affine, dtype=np.float64), [0, 0, 0, 1]]) for grid in (ct, pet)]
    matrix = np.linalg.solve(square[1], square[0])
    steps = np.diagonal(matrix)[:3]
    # over all of the CT, so that the crop may lie anywhere in it
    lean = np.abs(matrix[:3, :3] - np.diag(steps)) * np.array(ct.shape)
    if (lean > LEAN_VOXELS).any():
        raise GeometryError(f"volumes {ct_id} and {pet_id}: their axes do not run the same way")
    return list(zip(steps.tolist(), matrix[:3, 3].tolist(), strict=True))


def _places(request: Request, steps: list[tuple[float, float]]) -> list[tuple[float, ...]]:
    """Give the positions in the PET of the slices, rows and columns of a CT image."""
    rows, columns = (
        range(first, first + size) if isinstance(first, int) else first
        for first, size in zip((request.y, request.x), request.size, strict=True)
    )
    return [
        tuple(round(start + step * place, 9) for place in places)
        for places, (step, start) in zip((request.z, rows, columns), steps, strict=True)
    ]
