"""Regions of volumes read by zarr-python: for arrays that the reader of shards does not know, and to test it against.

zarr-python gives the fill value for a shard that is missing, and zarr 3.1 for one that is empty; here both are damage,
so every shard that a region touches is looked at first.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from lesionzarr.errors import IntegrityError, NotFoundError
from lesionzarr.store import layout

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.geometry import Region
    from lesionzarr.store.location import Location


def read_region(location: Location, volume_id: str, region: Region, name: str = "hu") -> NDArray[Any]:
    """Read a region of a volume.

    Parameters
    ----------
    location
        The store.
    volume_id
        Which volume.
    region
        Inside it.
    name
        Of the array.

    Returns
    -------
    ndarray
        The voxels.

    Raises
    ------
    NotFoundError
        No such volume.
    IntegrityError
        A shard is missing, cut off or damaged.
    """
    array = _open(location.zarr_store(), location, volume_id, name)
    return _read(array, location, volume_id, region)


def _open(store: Any, location: Location, volume_id: str, name: str) -> zarr.Array[Any]:
    path = f"{layout.volume_key(volume_id)}/{name}"
    try:
        return zarr.open_array(store, path=path, mode="r", zarr_format=3)
    except FileNotFoundError as error:
        raise NotFoundError(f"{location.name}: no volume {volume_id}") from error


def _read(array: zarr.Array[Any], location: Location, volume_id: str, region: Region) -> NDArray[Any]:
    if 0 in region.shape:
        return np.empty(region.shape, dtype=array.dtype)
    _check_shards(array, location, volume_id, region)
    try:
        return np.asarray(array[region.slices])
    except (ValueError, RuntimeError) as error:
        raise IntegrityError(
            f"{location.name}: volume {volume_id}, {array.path}: damaged ({error}); convert it again"
        ) from error


def _check_shards(array: zarr.Array[Any], location: Location, volume_id: str, region: Region) -> None:
    shard = array.shards or array.chunks
    chunks = math.prod(-(-outer // inner) for outer, inner in zip(shard, array.chunks, strict=True))
    # an index without a checksum is the shortest that a shard may be; without shards anything goes
    least = 16 * chunks if array.shards else 1
    touched = (range(a // n, (b - 1) // n + 1) for a, b, n in zip(region.start, region.stop, shard, strict=True))
    for place in itertools.product(*touched):
        key = f"{array.path}/{array.metadata.encode_chunk_key(place)}"
        size = location.size(key)
        if size is None or size < least:
            fault = "missing" if size is None else f"cut off ({size} bytes)"
            raise IntegrityError(f"{location.name}: volume {volume_id}, {key}: {fault}; convert it again")
