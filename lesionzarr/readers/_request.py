"""What a reader is asked for: voxels at positions of one volume. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.lesion import Lesion

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import Window

    LesionsLike: TypeAlias = str | Lesion | pd.DataFrame | Iterable[str | Lesion]

EDGE = "edge"
LINEAR, NEAREST = "linear", "nearest"
INTERPOLATIONS = (LINEAR, NEAREST)


class Mix(NamedTuple):
    """Two rows of the volume that make one slice; a row that lies outside stands for the nearest one."""

    below: int
    above: int
    """At or past `below`."""
    weight: float
    """Share of the row above, 0..1."""


@dataclass(frozen=True)
class Request:
    """One image to deliver. Positions may lie outside of the volume."""

    volume_id: str
    shape: tuple[int, int, int]
    """Of the whole volume, (z, y, x)."""
    z: tuple[float, ...]
    """Row of the volume of each slice of the image; between two rows the slice is interpolated."""
    y: int | tuple[float, ...]
    """First of consecutive rows of pixels; or the position of each row of the image, where it is resampled."""
    x: int | tuple[float, ...]
    """First of consecutive columns of pixels; or the position of each column of the image."""
    size: tuple[int, int]
    """Rows and columns of pixels of the image."""
    windows: tuple[Window, ...]
    """One channel each; none means HU."""
    padding: float | str | None
    """What stands outside of the volume: a value in HU, ``"edge"`` for the nearest voxel, None for each window's low
    end (the volume's own padding value where there is no window)."""
    nearest_slice: bool = False
    """Past either end of the volume, repeat the nearest slice instead of padding."""
    array: ArrayLayout | None = None
    """How the voxels are stored; None for an array that is left to zarr-python."""
    offset: tuple[int, int, int] = (0, 0, 0)
    """Where the volume begins in its array, (z, y, x): a block of a pack is a part of a larger one."""
    fill_value: float = -1024
    """The volume's own padding value in HU."""
    repeat: int | None = None
    """Row that stands for all, where the distance of the rows is unknown; only its own position is valid."""
    interpolation: str = LINEAR
    """Between two voxels: ``"linear"``, or ``"nearest"`` for the voxel that is closer (of two as close, the even)."""
    mixes: tuple[Mix, ...] | None = None
    """What each slice is mixed from, where that does not follow from `z`."""
    modality: str = "CT"
    """Of the volume, which says what its voxels are."""
    scale: float = 1.0
    """What voxels are multiplied with before the window: the SUV factor of PET."""
    overlays: tuple[Request, ...] = ()
    """Requests of as many voxels to other volumes, whose channels follow."""

    @property
    def channels(self) -> int:
        """Number of channels, without those of overlays."""
        return max(1, len(self.windows))

    @property
    def all_channels(self) -> int:
        """Number of channels, with those of overlays."""
        return self.channels + sum(overlay.channels for overlay in self.overlays)

    @property
    def origin(self) -> tuple[float, float, float]:
        """Position in the volume of the first voxel of the image, (z, y, x)."""
        y, x = (float(rows if isinstance(rows, int) else rows[0]) for rows in (self.y, self.x))
        return self.z[0], y, x


def find_lesions(catalog: Catalog, lesions: LesionsLike) -> list[Lesion]:
    """Turn what a user passes into lesions.

    Parameters
    ----------
    catalog
        The store.
    lesions
        An id or a lesion, several of them, or rows of ``catalog.lesions``.

    Returns
    -------
    list of Lesion
        In the order given.

    Raises
    ------
    NotFoundError
        An id that the store does not hold.
    SettingError
        Something that is none of these.
    """
    if isinstance(lesions, (str, Lesion)):
        lesions = [lesions]
    items = list(lesions.get("lesion_id", lesions.index) if isinstance(lesions, pd.DataFrame) else lesions)
    wrong = next((item for item in items if not isinstance(item, (str, Lesion))), None)
    if wrong is not None:
        raise SettingError(f"lesion {wrong!r}: an id, a Lesion or rows of catalog.lesions are needed")
    # a Lesion is taken as it is: its box may have been moved
    found = iter(catalog.find_lesions([item for item in items if isinstance(item, str)]))
    return [item if isinstance(item, Lesion) else next(found) for item in items]
