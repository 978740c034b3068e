"""Blocks of voxels of any shape, of several volumes; each chunk that they share is decoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.readers._fetch import Regions, fetcher_of
from lesionzarr.readers._threads import cores
from lesionzarr.readers._zarr import read_region
from lesionzarr.store.layout import KINDS, MASK, MASK_ARRAY, MASK_DTYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from lesionzarr.geometry import Region
    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.catalog import Catalog


def read_blocks(
    catalog: Catalog, wanted: Sequence[tuple[str, Region]], *, mask: bool = False, threads: int | None = None
) -> list[NDArray[Any]]:
    """Read regions of volumes.

    Parameters
    ----------
    catalog
        The store.
    wanted
        Id of the volume and a region inside it, of at least one voxel, each.
    mask
        Of the masks of the volumes instead, which they have to have.
    threads
        Most threads; None for one a core.

    Returns
    -------
    list of ndarray
        (z, y, x) in the order given: the dtype of the volume, or uint16 of masks.

    Raises
    ------
    NotFoundError, IntegrityError, StoreError
        As `lesionzarr.CropReader.read_batch`.
    """
    layouts = {volume_id: _layout(catalog, volume_id, mask=mask) for volume_id, _ in wanted}
    dtypes = {volume_id: MASK_DTYPES[-1] if mask else _kind(catalog, volume_id).dtype for volume_id in layouts}
    blocks = [np.empty(region.shape, dtype=dtypes[volume_id]) for volume_id, region in wanted]
    known = [number for number, (volume_id, _) in enumerate(wanted) if layouts[volume_id] is not None]
    if known:
        own = {volume_id: layout for volume_id, layout in layouts.items() if layout is not None}
        numbers = {volume_id: number for number, volume_id in enumerate(own)}
        regions = Regions(
            volumes=[_path(volume_id, mask=mask) for volume_id in own],
            layouts=list(own.values()),
            volume=np.array([numbers[wanted[i][0]] for i in known]),
            start=np.array([wanted[i][1].start for i in known]),
            stop=np.array([wanted[i][1].stop for i in known]),
        )
        fetcher_of(catalog).read(regions, lambda i: blocks[known[i]], lambda _: None, threads or cores())
    for number, (volume_id, region) in enumerate(wanted):
        if layouts[volume_id] is None:
            name = MASK_ARRAY if mask else _kind(catalog, volume_id).array
            blocks[number][...] = read_region(catalog.location, _path(volume_id, mask=mask), region, name)
    return blocks


def _layout(catalog: Catalog, volume_id: str, *, mask: bool) -> ArrayLayout | None:
    return catalog.mask_layout(volume_id) if mask else catalog.array(volume_id).layout


def _path(volume_id: str, *, mask: bool) -> str:
    return f"{volume_id}/{MASK}" if mask else volume_id


def _kind(catalog: Catalog, volume_id: str) -> Any:
    return KINDS[catalog.array(volume_id).modality]
