"""Features of all lesions of a store: first-order, shape and texture by the definitions of IBSI, and RECIST-like sizes.

Lesions of the same volumes are read together, so that each chunk is decoded once, and measured together.

The names of pyradiomics and ours are side by side in `lesionzarr.features.firstorder`, `lesionzarr.features.shape` and
`lesionzarr.features.texture`.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import IntegrityError, LesionzarrError, SettingError, StoreError, not_found
from lesionzarr.features._bulk import Part, make_bulk
from lesionzarr.features._units import AGAIN, FAULT, Output, index_of, plan_units, run_units
from lesionzarr.features.discretise import Bins, discretise, make_bins
from lesionzarr.features.firstorder import FIRST_ORDER, first_order
from lesionzarr.features.measure import measure_mask
from lesionzarr.features.regions import BOX, ELLIPSE, MASK, REGIONS, find_region, has_region, plan_region
from lesionzarr.features.shape import SHAPE, shape
from lesionzarr.features.store import features_of_store, read_stored
from lesionzarr.features.texture import TEXTURE, texture
from lesionzarr.readers._blocks import read_blocks
from lesionzarr.readers._request import find_lesions

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from lesionzarr.features.statistics import Measure
    from lesionzarr.features.store import ReadRegion
    from lesionzarr.geometry import Region
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._request import LesionsLike
    from lesionzarr.store.catalog import Catalog

    Planned = dict[str, Region | None]

SETS = ("shape", "firstorder", "texture", "recist")
"""``shape``: `lesionzarr.features.shape`. ``firstorder``: `lesionzarr.features.firstorder`. ``texture``:
`lesionzarr.features.texture`. ``recist``: `lesionzarr.features.measure`, of masks alone."""

VERSION = 1
"""Counts up when a feature changes, so that files of both are not mixed."""

UNIT = 128
"""Lesions that are read together."""

READ_VOXELS = 16 * 1024 * 1024
"""Voxels that are held at a time, unless a single lesion has more: 32 MB, and as much of a mask."""

BULK_VOXELS = 65_536
"""Voxels of regions that are measured together, or of a single larger one: of texture each takes some 2 kB."""


@dataclass(frozen=True)
class Extraction:
    """What is measured, and where."""

    sets: tuple[str, ...] = ("shape", "firstorder")
    """Some of `SETS`."""
    region: str = MASK
    """One of `lesionzarr.features.regions.REGIONS`."""
    bins: Bins = field(default_factory=Bins)
    """Grey levels of texture, entropy and uniformity."""
    measure: Measure = measure_mask
    """Of the set ``recist``, as of `lesionzarr.features.store.features_of_store`."""

    def __post_init__(self) -> None:
        if not self.sets:
            raise SettingError(f"no set of features; there are {', '.join(SETS)}")
        for name in self.sets:
            if name not in SETS:
                raise not_found("set of features", name, SETS)
        if self.region not in REGIONS:
            raise not_found("region", self.region, REGIONS)
        if "recist" in self.sets and self.region != MASK:
            raise SettingError(f"the set recist measures masks, not a {self.region}: leave it out, or take region mask")

    def describe(self) -> dict[str, Any]:
        """Give plain values that tell these settings from others."""
        measure = self.measure
        how = [measure.func, measure.keywords] if isinstance(measure, partial) else [measure, {}]
        return {
            "version": VERSION,
            "sets": [name for name in SETS if name in self.sets],
            "region": self.region,
            "bins": asdict(self.bins),
            "measure": [getattr(how[0], "__qualname__", str(how[0])), how[1]] if "recist" in self.sets else None,
        }


def extract_features(  # noqa: PLR0913 - keywords, of which most calls need none
    catalog: Catalog,
    lesions: LesionsLike | None = None,
    *,
    sets: str | Sequence[str] = ("shape", "firstorder"),
    region: str = MASK,
    bin_size: float | None = None,
    bin_number: int | None = None,
    measure: Measure = measure_mask,
    workers: int = 1,
    scheduler: str | None = None,
    output: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Measure lesions; each chunk of the store is decoded once for all lesions in it.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Ids, lesions, or rows of ``catalog.lesions``; None for all. Those without such a region are left out.
    sets
        Some of ``"shape"``, ``"firstorder"``, ``"texture"`` and ``"recist"``; or a text with one of them, or several
        with commas between. The command line has another default: ``recist``, the table of sizes of upstream.
    region
        ``"mask"``, ``"box"`` or ``"ellipse"``, see `lesionzarr.features.regions`. Of a region of one slice, features of
        shape that need a volume are null.
    bin_size, bin_number
        Grey levels of texture, entropy and uniformity: HU of a bin (IBSI: fixed bin size), or bins of every region
        (fixed bin number). One of both; without, bins of 25 HU.
    measure
        How the set ``recist`` measures axes, as of `lesionzarr.features.store.features_of_store`.
    workers, scheduler
        Processes that measure, as of `lesionzarr.convert`. The values are the same for any number.
    output
        Folder for a Parquet dataset partitioned by split, ``split=train/part-00000.parquet`` and so on. What is there
        from an earlier run of the same lesions, voxels and settings is kept.
    progress
        Called with the lesions that are done and all of them.

    Returns
    -------
    pandas.DataFrame
        Indexed by lesion_id, in the order given: ``volume_id``, ``split``, ``voxels`` and ``slices`` of the region,
        the features (float64, null where there is none), and ``fault``: why a lesion was not measured, or null.

    Raises
    ------
    SettingError
        A setting that means nothing, no lesion with such a region, or an output of something else.
    NotFoundError
        No such lesion, set or region.
    StoreError
        The store cannot be reached, or the output not be written. Damage costs the lesions in it alone.
    """
    names = tuple(sets.split(",") if isinstance(sets, str) else sets)
    settings = Extraction(names, region, make_bins(bin_size, bin_number), measure)
    found = find_lesions(catalog, catalog.lesions if lesions is None else lesions)
    chosen = list({lesion.lesion_id: lesion for lesion in found if has_region(lesion, region)}.values())
    if not chosen:
        raise SettingError(f"{catalog.location.name}: no lesion has {_needs(region)}")
    kept = None if output is None else Output(Path(output), catalog, settings.describe())
    frame = run_units(
        plan_units(chosen, UNIT),
        partial(measure_lesions, catalog, settings),
        output=kept,
        workers=workers,
        scheduler=scheduler,
        progress=progress,
    )
    return _ordered(frame).loc[index_of(chosen)]


def measure_lesions(catalog: Catalog, settings: Extraction, lesions: Sequence[Lesion]) -> pd.DataFrame:
    """Measure the lesions of one unit: what a worker does."""
    planned = {lesion.lesion_id: _planned(catalog, settings.region, lesion) for lesion in lesions}
    return pd.concat([_measure_some(catalog, settings, some, planned) for some in _reads(lesions, planned)])


def _measure_some(catalog: Catalog, settings: Extraction, lesions: Sequence[Lesion], planned: Planned) -> pd.DataFrame:
    read = _read_together(catalog, settings.region, lesions, planned)
    parts: dict[str, Part] = {}
    faults: dict[str, LesionzarrError] = {}
    for lesion in lesions:
        try:
            grid = catalog.grid(lesion.volume_id)
            mask, hu, _ = find_region(lesion, grid, settings.region, read, planned[lesion.lesion_id])
            parts[lesion.lesion_id] = _cut(mask, hu, grid.spacing_mm)
        except LesionzarrError as error:
            if isinstance(error, StoreError) and not isinstance(error, IntegrityError):
                raise
            faults[lesion.lesion_id] = error
    ids = [lesion.lesion_id for lesion in lesions]
    frame = _features(parts, ids, settings).set_axis(index_of(lesions))
    frame.insert(0, "volume_id", [lesion.volume_id for lesion in lesions])
    if "recist" in settings.sets:
        sizes = features_of_store(catalog, lesions=ids, read=read, measure=settings.measure)
        frame = frame.join(sizes.drop(columns=FAULT))
    texts = {name: str(error) if name in str(error) else f"{name}: {error}" for name, error in faults.items()}
    frame[FAULT] = pd.array([texts.get(name) for name in ids], dtype="string")
    frame[AGAIN] = [isinstance(faults.get(name), IntegrityError) for name in ids]
    return frame


def _cut(mask: NDArray[np.bool_], hu: NDArray[Any], spacing_mm: tuple[float | None, float, float]) -> Part:
    """Keep what lies round the voxels of a region, so that a mask of a whole volume is not held for long."""
    extents = [np.flatnonzero(mask.any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    box = tuple(slice(int(extent[0]), int(extent[-1]) + 1) for extent in extents)
    return Part(hu[box].copy(), mask[box].copy(), spacing_mm)


def columns(sets: Sequence[str]) -> list[str]:
    """Give the names of the features of sets, ``recist`` left out."""
    names: list[str] = []
    if "shape" in sets:
        names += SHAPE
    if "firstorder" in sets:
        names += FIRST_ORDER
    if "texture" in sets:
        names += TEXTURE
    return names


def _features(parts: dict[str, Part], ids: list[str], settings: Extraction) -> pd.DataFrame:
    """Measure regions; a row of nulls for each lesion without one."""
    names = columns(settings.sets)
    values = np.full((len(ids), 2 + len(names)), np.nan)
    if parts:
        values[[ids.index(name) for name in parts]] = measure_parts(list(parts.values()), settings)
    counts = pd.DataFrame(values[:, :2], columns=["voxels", "slices"]).astype("Int64")
    return pd.concat([counts, pd.DataFrame(values[:, 2:], columns=names)], axis=1)


def measure_parts(parts: Sequence[Part], settings: Extraction) -> NDArray[np.float64]:
    """Measure regions.

    Parameters
    ----------
    parts
        The regions.
    settings
        Which sets, and the bins.

    Returns
    -------
    ndarray
        float64 (lesion, value): voxels, slices, then the features in the order of `columns`.
    """
    values = np.full((len(parts), 2 + len(columns(settings.sets))), np.nan)
    for group in _groups(parts):
        values[group] = _measure([parts[number] for number in group], settings)
    return values


def _groups(parts: Sequence[Part]) -> list[list[int]]:
    """Cut regions into groups of so many voxels; those of one slice apart, which have fewer neighbours to look for."""
    groups: list[list[int]] = []
    for plane in (True, False):
        room = 0
        for number, part in enumerate(parts):
            if (len(part.mask) == 1) != plane:
                continue
            voxels = int(np.count_nonzero(part.mask))
            if voxels > room:
                groups.append([])
                room = BULK_VOXELS
            groups[-1].append(number)
            room -= voxels
    return groups


def _measure(parts: Sequence[Part], settings: Extraction) -> NDArray[np.float64]:
    """Give voxels, slices and features, (lesion, value)."""
    bulk = make_bulk(parts)
    levels = discretise(bulk, settings.bins)
    found: dict[str, NDArray[Any]] = {}
    if "shape" in settings.sets:
        found |= shape(bulk)
    if "firstorder" in settings.sets:
        found |= first_order(bulk, levels)
    if "texture" in settings.sets:
        found |= texture(bulk, levels)
    return np.stack([bulk.counts, bulk.slices, *(found[name] for name in columns(settings.sets))], axis=1)


def _reads(lesions: Sequence[Lesion], planned: Planned) -> list[list[Lesion]]:
    """Cut lesions into those that are read together."""
    reads: list[list[Lesion]] = []
    room = 0
    for lesion in lesions:
        region = planned[lesion.lesion_id]
        voxels = 0 if region is None else math.prod(region.shape)
        if voxels > room or not reads:
            reads.append([])
            room = READ_VOXELS
        reads[-1].append(lesion)
        room -= voxels
    return reads


def _planned(catalog: Catalog, kind: str, lesion: Lesion) -> Region | None:
    """Give the region of a lesion; None where there is none, which is told where it is measured."""
    try:
        if catalog.array(lesion.volume_id).modality != "CT":
            return None
        return plan_region(lesion, catalog.grid(lesion.volume_id), kind)
    except LesionzarrError:
        return None


def _read_together(catalog: Catalog, kind: str, lesions: Sequence[Lesion], planned: Planned) -> ReadRegion:
    """Read the regions of lesions at once; gives what reads one of them, or any other."""
    places = ((lesion.volume_id, planned[lesion.lesion_id]) for lesion in lesions)
    keys = list(dict.fromkeys((volume_id, region) for volume_id, region in places if region is not None))
    masked = [key for key in keys if kind == MASK and catalog.mask_array(key[0]) is not None]
    blocks: dict[tuple[str, Region], NDArray[Any]] = {}
    labels: dict[tuple[str, Region], NDArray[Any]] = {}
    try:
        if keys:
            blocks = dict(zip(keys, read_blocks(catalog, keys), strict=True))
        if masked:
            labels = dict(zip(masked, read_blocks(catalog, masked, mask=True), strict=True))
    except IntegrityError:
        # one by one, so that damage costs no other lesion
        blocks = {}

    def read(volume_id: str, region: Region) -> tuple[NDArray[Any], NDArray[Any]]:
        key = volume_id, region
        modality = catalog.array(volume_id).modality
        if modality != "CT":
            raise SettingError(f"volume {volume_id} holds {modality}, which has no HU; choose lesions of CT")
        if kind != MASK:
            return np.empty(0), blocks[key] if key in blocks else read_blocks(catalog, [key])[0]
        if key in blocks and key in labels:
            return labels[key], blocks[key]
        return read_stored(catalog, volume_id, region)

    return read


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    """Put the columns of all lesions first and the fault last."""
    first = ["volume_id", "split"]
    return frame[[*first, *(name for name in frame if name not in {*first, FAULT}), FAULT]]


def _needs(region: str) -> str:
    if region == MASK:
        return "a mask, on which features are measured; region box or ellipse needs none"
    return {BOX: "a box", ELLIPSE: "RECIST axes on a slice of the store"}[region]
