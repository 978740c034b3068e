"""Packing: chosen lesions of a store as one array, a chunk each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.readers._checks import check_size
from lesionzarr.readers.crop import CropReader
from lesionzarr.store.layout import check_profile
from lesionzarr.store.location import open_location
from lesionzarr.store.packs import FILL_HU, SHARD_LESIONS, Block, write_pack

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog


def pack(
    catalog: Catalog,
    destination: str | os.PathLike[str],
    *,
    size: tuple[int, int, int] = (9, 128, 128),
    margin: tuple[int, int, int] = (0, 0, 0),
    spacing_mm: float | tuple[float | None, float | None, float | None] | None = None,
    lesions: Sequence[str] | None = None,
    profile: str = "portable",
    storage_options: Mapping[str, Any] | None = None,
) -> int:
    """Write lesions as one array (lesion, z, y, x), in HU.

    Peak memory: 64 blocks of `size` and twice `margin`, and their encoded form.

    Parameters
    ----------
    catalog
        The store.
    destination
        Path or URL; nothing may be there.
    size
        Voxels of an image, (z, y, x).
    margin
        Voxels on both sides that are packed too, for random shifts.
    spacing_mm
        Distance of voxels to resample to, as in `CropReader`; None for the voxels of each volume as they are.
    lesions
        Ids; None for all that have a position.
    profile
        Codecs, by name.
    storage_options
        Options of the object store, where `destination` is a URL.

    Returns
    -------
    int
        Number of lesions that were written.

    Raises
    ------
    SettingError
        A size or margin that means nothing, or no lesion with a position.
    GeometryError
        A lesion that was asked for has no position.
    StoreError
        Something is at the destination already, or it cannot be written.
    """
    check_profile(profile)
    check_size(size, "zyx")
    if (
        not isinstance(margin, Sequence)
        or len(margin) != 3
        or not all(isinstance(part, int) and part >= 0 for part in margin)
    ):
        raise SettingError(f"margin {margin!r}: whole numbers of at least 0 are needed, (z, y, x)")
    block = tuple(n + 2 * m for n, m in zip(size, margin, strict=True))
    reader = CropReader(catalog, size=(block[0], block[1], block[2]), spacing_mm=spacing_mm, padding=FILL_HU)
    chosen = catalog.find_lesions(list(catalog.lesions.index) if lesions is None else lesions)
    if lesions is None:
        chosen = [lesion for lesion in chosen if lesion.box is not None]
    if not chosen:
        raise SettingError("no lesion to pack has a position")
    settings = {"size": list(size), "margin": list(margin), "spacing_mm": spacing_mm}
    location = open_location(destination, storage_options)
    return write_pack(location, catalog, _blocks(reader, chosen), settings, profile)


def _blocks(reader: CropReader, lesions: list[Lesion]) -> Iterator[Block]:
    for start in range(0, len(lesions), SHARD_LESIONS):
        batch = reader.read_batch(lesions[start : start + SHARD_LESIONS])
        for crop in batch.crops:
            inside = [np.flatnonzero(axis.inside) for axis in (crop.plan.z, crop.plan.y, crop.plan.x)]
            first = [int(part[0]) if len(part) else 0 for part in inside]
            last = [int(part[-1]) + 1 if len(part) else 0 for part in inside]
            yield Block(
                lesion_id=crop.lesion.lesion_id,
                voxels=crop.image[0],
                origin=crop.origin,
                step=crop.step,
                first=(first[0], first[1], first[2]),
                last=(last[0], last[1], last[2]),
            )
