"""Regions of volumes read by zarr-python: for arrays that the reader of shards does not know, and to test it against.

zarr-python gives the fill value for a shard that is missing, and zarr 3.1 for one that is empty; here both are damage,
so every shard that a region touches is looked at first.
"""

from __future__ import annotations

import itertools
import json
import math
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr

from lesionzarr.errors import IntegrityError, NotFoundError
from lesionzarr.readers._chunks import plan_chunks
from lesionzarr.readers._shards import Shard, Shards
from lesionzarr.store import layout
from lesionzarr.store.arrays import parse_layout

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
    _check_index(array, location, volume_id, region)
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


def _check_index(array: zarr.Array[Any], location: Location, volume_id: str, region: Region) -> None:
    """Refuse chunks that the index of their shard calls absent: zarr-python would give padding for them."""
    metadata = json.loads(location.read(f"{array.path}/{layout.GROUP_FILE}") or b"{}")
    codec = metadata["codecs"][0]
    if codec["name"] != "sharding_indexed":
        return
    # which codecs a chunk has does not matter to the index
    plain = {**codec["configuration"], "codecs": [layout.LITTLE_ENDIAN]}
    known = parse_layout({**metadata, "codecs": [{**codec, "configuration": plain}]}, PurePosixPath(array.path).name)
    if known is None:
        return
    plan = plan_chunks([known], np.zeros(1, np.int64), np.array([region.start]), np.array([region.stop]))
    shards = Shards(location)
    for number in np.unique(plan.shard).tolist():
        shards.entries(Shard(volume_id, known, number), plan.inner[plan.shard == number])
