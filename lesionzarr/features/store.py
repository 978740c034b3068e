"""Lesions of a store measured on the masks stored with their volumes, box by box, and densities of whole volumes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import GeometryError, LesionzarrError, SettingError
from lesionzarr.features.intensities import Intensities, count_intensities
from lesionzarr.features.measure import measure_mask
from lesionzarr.features.statistics import COLUMNS, feature_row
from lesionzarr.geometry import Region
from lesionzarr.readers._zarr import read_region
from lesionzarr.store.layout import MASK, MASK_ARRAY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lesionzarr.features.measure import Measurement
    from lesionzarr.features.statistics import Measure
    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog

    ReadRegion = Callable[[str, Region], tuple[NDArray[Any], NDArray[Any]]]

BLOCK = 32
"""Slices that are read at a time: whole chunks, so that none is decoded twice."""
PLACE = ("x0", "y0", "x1", "y1", "z0", "z1", "recist")
"""Columns for what was measured besides those of a table of features: box and axes, as in the lesion table."""


def features_of_store(
    catalog: Catalog,
    *,
    lesions: Sequence[str] | None = None,
    read: ReadRegion | None = None,
    measure: Measure = measure_mask,
) -> pd.DataFrame:
    """Measure every lesion of a store that has a value in a mask.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Ids of those to measure; None for all.
    read
        Gives values of the mask and densities in HU of a region of a volume, by the volume's id; None reads both
        from the store.
    measure
        As of `lesionzarr.features.statistics.measure_labels`.

    Returns
    -------
    pandas.DataFrame
        Indexed by lesion_id: the columns of `lesionzarr.features.statistics.COLUMNS`, where ``filename`` is the id of
        the volume and ``major_axis_slice_idx`` its row along z; then box and axes as in the lesion table, but measured
        on the mask; then ``fault``: why a lesion was not measured, whose other values are null, or null.

    Raises
    ------
    NotFoundError
        No lesion of one of the ids.
    """
    read = read or (lambda volume_id, region: read_stored(catalog, volume_id, region))
    ids = list(catalog.lesions.index) if lesions is None else list(lesions)
    wanted = [lesion for lesion in catalog.find_lesions(ids) if lesion.mask_label is not None]
    chosen = pd.Index([lesion.lesion_id for lesion in wanted], name="lesion_id", dtype=object)
    rows = [_row(lesion, catalog, read, measure) for lesion in wanted]
    frame = pd.DataFrame(rows, columns=[*COLUMNS, *PLACE, "fault"], index=chosen)
    whole = {name: "Int64" for name, word in COLUMNS.items() if word == "int64"}
    decimal = {name: "float64" for name, word in COLUMNS.items() if word == "float64"} | dict.fromkeys(
        PLACE[:6], "float64"
    )
    text = dict.fromkeys((name for name, word in COLUMNS.items() if word == "str"), "string") | {"fault": "string"}
    return frame.astype(whole | decimal | text)


def measure_lesion(
    catalog: Catalog, lesion: Lesion, *, read: ReadRegion | None = None, measure: Measure = measure_mask
) -> Lesion:
    """Put what is measured on the mask of a lesion in place of what its source says.

    Parameters
    ----------
    catalog
        The store.
    lesion
        With a value in the mask of its volume.
    read, measure
        As of `features_of_store`.

    Returns
    -------
    Lesion
        With another key slice (the one that was measured on), box, axes and lengths; these are named in ``derived``.

    Raises
    ------
    GeometryError
        The lesion has no value in a mask, or the mask has no such value.
    IntegrityError
        The volume or its mask is damaged.
    """
    if lesion.mask_label is None or catalog.mask_array(lesion.volume_id) is None:
        raise GeometryError(f"lesion {lesion.lesion_id}: there is no mask of it to measure")
    read = read or (lambda volume_id, region: read_stored(catalog, volume_id, region))
    measured, start = _measure(lesion, catalog.grid(lesion.volume_id), read, measure)
    key_z = measured.key_z + start[0]
    values = {**_place(measured, start), "key_z": key_z, "long_mm": measured.long_mm, "short_mm": measured.short_mm}
    values["recist"] = values["recist"] and tuple(values["recist"])
    if key_z != lesion.key_z:
        values["key_slice"] = None
    return replace(lesion, **values, derived=tuple(dict.fromkeys([*lesion.derived, *values])))


def intensities_of_store(catalog: Catalog, volume_id: str) -> Intensities:
    """Count the densities of a volume of CT, some slices at a time.

    Parameters
    ----------
    catalog
        The store.
    volume_id
        Of a CT.

    Returns
    -------
    Intensities

    Raises
    ------
    NotFoundError
        No volume of that id; near ones are named.
    SettingError
        Another modality, which has no HU.
    IntegrityError
        A part of the volume is missing or damaged.
    """
    shape, modality = catalog.grid(volume_id).shape, catalog.array(volume_id).modality
    if modality != "CT":
        raise SettingError(f"volume {volume_id}: {modality} has no HU; choose a volume of CT")
    regions = (Region((z, 0, 0), (min(z + BLOCK, shape[0]), *shape[1:])) for z in range(0, shape[0], BLOCK))
    return count_intensities(read_region(catalog.location, volume_id, region) for region in regions)


def _row(lesion: Lesion, catalog: Catalog, read: ReadRegion, measure: Measure) -> dict[str, Any]:
    try:
        measured, start = _measure(lesion, catalog.grid(lesion.volume_id), read, measure)
    except LesionzarrError as error:
        return {"filename": lesion.volume_id, "label_value": lesion.mask_label, "fault": str(error)}
    description = lesion.extras.get("label") or lesion.type
    row = feature_row(
        measured,
        filename=lesion.volume_id,
        label_value=int(lesion.mask_label or 0),
        description=description,
        subset=lesion.split,
    )
    place = _place(measured, start)
    return {**row, "major_axis_slice_idx": measured.key_z + start[0], **place}


def _place(measured: Measurement, start: tuple[int, int, int]) -> dict[str, Any]:
    """Give box and axes in the volume, by `PLACE`."""
    box = measured.box.shift(*start)
    mark = measured.recist and measured.recist.shift(*start[1:])
    ends = None if mark is None else [end for axis in mark.axes for end in axis]
    return dict(zip(PLACE, (box.x0, box.y0, box.x1, box.y1, box.z0, box.z1, ends), strict=True))


def _measure(
    lesion: Lesion, grid: Grid, read: ReadRegion, measure: Measure
) -> tuple[Measurement, tuple[int, int, int]]:
    mask, hu, start = find_mask(lesion, grid, read)
    return measure(mask, hu, grid.spacing_mm), start


def find_mask(
    lesion: Lesion, grid: Grid, read: ReadRegion
) -> tuple[NDArray[np.bool_], NDArray[Any], tuple[int, int, int]]:
    """Give mask and densities in the region of a lesion's box, or of the volume where it reaches out of that."""
    whole = Region((0, 0, 0), grid.shape)
    region = mask_region(lesion, grid.shape) or whole
    labels, hu = read(lesion.volume_id, region)
    mask = labels == lesion.mask_label
    if region != whole and (not mask.any() or _reaches_out(mask, region, grid.shape)):
        region = whole
        labels, hu = read(lesion.volume_id, region)
        mask = labels == lesion.mask_label
    if not mask.any():
        raise GeometryError(f"lesion {lesion.lesion_id}: the mask has no value {lesion.mask_label}")
    return mask, hu, region.start


def mask_region(lesion: Lesion, shape: tuple[int, int, int]) -> Region | None:
    """Give the voxels of the lesion's box and one more on each side, as far as the volume goes."""
    box = lesion.box
    if box is None or lesion.z0 is None:
        return None
    first, last = (box.z0, box.y0, box.x0), (box.z1, box.y1, box.x1)
    start = [max(0, math.floor(low) - 1) for low in first]
    stop = [min(size, math.ceil(high) + 2) for high, size in zip(last, shape, strict=True)]
    region = Region((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))
    return region if min(region.shape) > 0 else None


def _reaches_out(mask: NDArray[np.bool_], region: Region, shape: tuple[int, int, int]) -> bool:
    """Tell whether a face of the region that is none of the volume holds a voxel of the lesion."""
    for axis, size in enumerate(shape):
        faces = np.moveaxis(mask, axis, 0)
        if (region.start[axis] > 0 and faces[0].any()) or (region.stop[axis] < size and faces[-1].any()):
            return True
    return False


def read_stored(catalog: Catalog, volume_id: str, region: Region) -> tuple[NDArray[Any], NDArray[Any]]:
    """Read mask and densities of a region."""
    labels = read_region(catalog.location, f"{volume_id}/{MASK}", region, MASK_ARRAY)
    return labels, read_region(catalog.location, volume_id, region)
