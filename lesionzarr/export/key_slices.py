"""Key slices: the images of the detection formats, each with the lesions that were marked on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lesionzarr.errors import GeometryError, IntegrityError, SettingError
from lesionzarr.export.pictures import FALLBACK
from lesionzarr.geometry import Box, Region
from lesionzarr.readers._zarr import read_region
from lesionzarr.readers.stack import StackReader
from lesionzarr.report import Issue
from lesionzarr.store.layout import MASK, MASK_ARRAY
from lesionzarr.window import OWN, apply_window, resolve_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike

GREY, STORED = "uint8", "uint16"
DEPTHS = (GREY, STORED)
"""Pictures are grey levels of a window; or HU + 32768, as DeepLesion's own."""
OFFSET_HU = 32768

LESION, TYPE = "lesion", "type"
CLASSES = (LESION, TYPE)
"""What the classes of a detector are: one for all lesions, or one for each type."""
UNKNOWN = "unknown"
PLAIN = (
    *("modality", "series_id", "slices", "rows", "columns", "first_slice", "last_slice"),
    *("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"),
)
"""Columns of volumes that key slices need."""
UNSPLIT = "unsplit"
"""Folder or file of what the source puts into no split."""


@dataclass(frozen=True)
class Finding:
    """A lesion on its key slice."""

    lesion: Lesion
    box: Box
    """In the plane: the box that was drawn on this slice, else that of the mask on it, else that of the lesion. It may
    reach past the border of the image."""
    order: int
    """Its place among the lesions, in the order of the source's table."""


@dataclass(frozen=True)
class KeySlice:
    """A slice that lesions were marked on."""

    volume_id: str
    z: int
    folder: str
    """Series, where the volume is named by its slices as those of DeepLesion are; else volume."""
    number: int
    """The source's own number of the slice in that series; else its row in the volume."""
    shape: tuple[int, int]
    """Rows and columns."""
    spacing_mm: tuple[float | None, float, float]
    findings: tuple[Finding, ...]

    @property
    def stem(self) -> str:
        """Name without folders, such as ``000001_01_01_109``."""
        return f"{self.folder}_{self.number:03d}"

    @property
    def path(self) -> str:
        """Name of its picture in the layout of DeepLesion, such as ``000001_01_01/109.png``."""
        return f"{self.folder}/{self.number:03d}.png"

    @property
    def split(self) -> str:
        """``train``, ``val``, ``test``, or ``unsplit`` where the source has none."""
        return self.findings[0].lesion.split or UNSPLIT

    @property
    def windowed(self) -> Lesion:
        """The first of its lesions that has a window, else the first."""
        return next((found.lesion for found in self.findings if found.lesion.window), self.findings[0].lesion)


def find_key_slices(catalog: Catalog, lesions: Iterable[Lesion]) -> tuple[list[KeySlice], list[Issue]]:
    """Find the slices that lesions were marked on; of the voxels only masks are read, on these slices.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store. One with a box but no key slice, as a 3D box, is on the middle slice of its box.

    Returns
    -------
    list of KeySlice
        In the order of the source's table.
    list of Issue
        Lesions without a position, outside of their image, or on PET; or in damaged volumes.
    """
    volumes = _volumes(catalog)
    ordered = sorted(lesions, key=lambda lesion: (lesion.source_row is None, lesion.source_row or 0))
    found: dict[tuple[str, int], list[Finding]] = {}
    failed = []
    for order, lesion in enumerate(ordered):
        try:
            z, box = _place(catalog, lesion, volumes[lesion.volume_id])
        except (GeometryError, SettingError, IntegrityError) as error:
            failed.append(lesion_issue(lesion, error))
            continue
        found.setdefault((lesion.volume_id, z), []).append(Finding(lesion, box, order))
    return [_key_slice(volumes[place[0]], *place, tuple(findings)) for place, findings in found.items()], failed


def lesion_issue(lesion: Lesion, reason: object) -> Issue:
    """Say why a lesion is left out."""
    message = f"{lesion.lesion_id}: {reason}"
    return Issue("not-exported", lesion.lesion_id, "", message, (lesion.lesion_id,))


def clip_box(box: Box, shape: tuple[int, int]) -> Box:
    """Cut off what lies outside of an image of so many rows and columns; GeometryError where nothing is left."""
    rows, columns = shape
    if box.x1 < 0 or box.y1 < 0 or box.x0 > columns - 1 or box.y0 > rows - 1:
        raise GeometryError(f"its box lies outside of the image of {rows} x {columns} pixels")
    return Box(box.z0, max(box.y0, 0.0), max(box.x0, 0.0), box.z1, min(box.y1, rows - 1.0), min(box.x1, columns - 1.0))


def class_names(lesions: Iterable[Lesion], classes: str) -> tuple[str, ...]:
    """List the classes of lesions.

    Parameters
    ----------
    lesions
        Those that are exported.
    classes
        ``"lesion"`` or ``"type"``.

    Returns
    -------
    tuple of str
        ``("lesion",)``; or the types in alphabetical order, then ``"unknown"`` where there is a lesion without one.

    Raises
    ------
    SettingError
        Another word.
    """
    if classes not in CLASSES:
        raise SettingError(f"classes {classes!r}: 'lesion' or 'type' is needed")
    if classes == LESION:
        return (LESION,)
    types = {lesion.type for lesion in lesions}
    return (*sorted(name for name in types if name), *((UNKNOWN,) if None in types else ()))


def class_index(lesion: Lesion, names: Sequence[str]) -> int:
    """Give the place of a lesion's class in what `class_names` gives."""
    return 0 if tuple(names) == (LESION,) else names.index(lesion.type or UNKNOWN)


def read_mask(catalog: Catalog, lesion: Lesion, z: int) -> NDArray[np.bool_] | None:
    """Read the mask of a lesion on one slice.

    Parameters
    ----------
    catalog
        The store.
    lesion
        Of the store.
    z
        Row of the slice.

    Returns
    -------
    ndarray
        bool (y, x), of the whole slice; None where the lesion has no mask, or none on this slice.

    Raises
    ------
    IntegrityError
        The mask is damaged.
    """
    if lesion.mask_label is None or catalog.mask_array(lesion.volume_id) is None:
        return None
    _, rows, columns = catalog.grid(lesion.volume_id).shape
    whole = Region((z, 0, 0), (z + 1, rows, columns))
    values = read_region(catalog.location, f"{lesion.volume_id}/{MASK}", whole, MASK_ARRAY)[0]
    mask: NDArray[np.bool_] = values == lesion.mask_label
    return mask if mask.any() else None


def write_key_slices(
    catalog: Catalog,
    slices: Iterable[KeySlice],
    path_of: Callable[[KeySlice], Path],
    *,
    depth: str = GREY,
    window: WindowLike | None = None,
) -> tuple[list[KeySlice], list[Path], list[Issue]]:
    """Write key slices as PNG, one in memory at a time.

    Parameters
    ----------
    catalog
        The store.
    slices
        Of `find_key_slices`.
    path_of
        Gives the file of a slice.
    depth
        ``"uint8"``: grey levels; ``"uint16"``: HU + 32768, as DeepLesion's own.
    window
        Of grey levels: a preset, (low, high) in HU, ``"dicom"``, or None for the window of the lesions on the slice,
        and soft tissue where they have none.

    Returns
    -------
    list of KeySlice
        Those that were written.
    list of Path
        Their files.
    list of Issue
        Lesions of those that were not.

    Raises
    ------
    NotFoundError
        No preset of that name.
    SettingError
        Another depth, or a window that is none.
    """
    if depth not in DEPTHS:
        raise SettingError(f"pictures of {depth!r}: one of {', '.join(DEPTHS)} is needed")
    if window is not None and window != OWN:
        resolve_window(window)
    reader = StackReader(catalog, slices=1, window=None)
    kept, paths, failed = [], [], []
    for each in slices:
        try:
            hu = reader.read(each.findings[0].lesion).image[0, 0]
            pixels = _stored(hu) if depth == STORED else _grey(hu, each.windowed, window)
        except (GeometryError, SettingError, IntegrityError) as error:
            failed += [lesion_issue(found.lesion, error) for found in each.findings]
            continue
        path = path_of(each)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, format="PNG")
        kept.append(each)
        paths.append(path)
    return kept, paths, failed


def _stored(hu: NDArray[Any]) -> NDArray[np.uint16]:
    return (hu.astype(np.int32) + OFFSET_HU).astype(np.uint16)


def _grey(hu: NDArray[Any], lesion: Lesion, window: WindowLike | None) -> NDArray[np.uint8]:
    if window is None:
        window = OWN if lesion.window else FALLBACK
    return apply_window(hu, resolve_window(window, lesion.window))


def _volumes(catalog: Catalog) -> dict[str, dict[str, Any]]:
    """Give rows of the table of volumes as plain values: cell by cell pandas takes minutes for a large store."""
    table = catalog.volumes[[*PLAIN]].astype(object)
    rows: dict[Any, Any] = table.where(table.notna(), None).to_dict("index")
    return rows


def _place(catalog: Catalog, lesion: Lesion, volume: dict[str, Any]) -> tuple[int, Box]:
    """Give the row of a lesion's key slice, and its box there."""
    box = lesion.box
    if box is None:
        raise GeometryError("its key slice is not in the store, so it has no position")
    if volume["modality"] != "CT":
        raise SettingError("it is on PET, of which no picture in HU can be made")
    slices, rows, columns = volume["slices"], volume["rows"], volume["columns"]
    z = round(box.centre[0]) if lesion.key_z is None else lesion.key_z
    if not 0 <= z < slices:
        raise GeometryError(f"its key slice {z} is not among the {slices} of its volume")
    drawn = [ends for row, *ends in lesion.extras.get("slice_boxes", ()) if row == z]
    mask = None if drawn else read_mask(catalog, lesion, z)
    if drawn:
        x0, y0, x1, y1 = drawn[0]
        box = Box(z, y0, x0, z, y1, x1)
    elif mask is not None:
        across, along = (np.flatnonzero(mask.any(axis=axis)).tolist() for axis in (1, 0))
        box = Box(z, across[0], along[0], z, across[-1], along[-1])
    clip_box(box, (rows, columns))
    return z, box


def _key_slice(volume: dict[str, Any], volume_id: str, z: int, findings: tuple[Finding, ...]) -> KeySlice:
    series, first = volume["series_id"], volume["first_slice"]
    numbered = volume_id == f"{series}_{first:03d}-{volume['last_slice']:03d}"
    folder, number = (series, first + z) if numbered else (volume_id, z)
    z_mm, y_mm, x_mm = (volume[f"spacing_{axis}_mm"] for axis in "zyx")
    return KeySlice(volume_id, z, folder, number, (volume["rows"], volume["columns"]), (z_mm, y_mm, x_mm), findings)
