"""Whether a volume is still what the catalog told when it was opened, which is looked up where its bytes are not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import StoreError
from lesionzarr.store import layout
from lesionzarr.store.arrays import parse_layout
from lesionzarr.store.writer import read_attributes

if TYPE_CHECKING:
    from lesionzarr.store.arrays import ArrayLayout
    from lesionzarr.store.location import Location


def check_unchanged(location: Location, volume_id: str, array: ArrayLayout) -> None:
    """Refuse to read on in a volume that was written anew with other voxels, or in another form.

    Parameters
    ----------
    location
        The store.
    volume_id
        Which volume, or the group in it that holds the array.
    array
        What the catalog told of the array.

    Raises
    ------
    StoreError
        The array is another now, or is just being written.
    """
    key = f"{layout.volume_key(volume_id)}/{array.name}/{layout.GROUP_FILE}"
    volume = volume_id.partition("/")[0]
    metadata = _parsed(location.read(key))
    if metadata and not _is_alike(metadata, array):
        raise StoreError(f"{location.name}: volume {volume} was written anew in another form; open the store again")
    if not array.version:
        return
    own = read_attributes(location, volume)
    if own is None:
        raise StoreError(f"{location.name}: volume {volume} is gone or is being written anew; open the store again")
    checksum = own.get("provenance", {}).get("mask" if array.name == layout.MASK_ARRAY else "voxels")
    if checksum is not None and checksum != array.version.partition(" ")[0]:
        raise StoreError(f"{location.name}: volume {volume} was written anew with other voxels; open the store again")


def _parsed(data: bytes | None) -> dict[str, Any]:
    """Read a ``zarr.json``; one that is missing or damaged tells nothing."""
    try:
        found = json.loads(data or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_alike(metadata: dict[str, Any], array: ArrayLayout) -> bool:
    """Tell whether an array is read in the way that the catalog told."""
    try:
        found = parse_layout(metadata, array.name)
    except (KeyError, IndexError, TypeError, ValueError):
        return True
    if found is None:
        return False
    for _ in range(array.merged_axes):
        found = found.merge_first_axes()
    # how much of a chunk is decoded at once its own header tells
    return replace(found, block_bytes=0) == replace(array, objects=(), version="", block_bytes=0)
