"""Packs: all chosen lesions as one array, a chunk each, for training loops that read every one of them.

::

    <name>.zarr/
      zarr.json                  group; attributes.lesionzarr = {format, kind: "pack", source, title, licence, citation,
                                 tool, created, size, margin, spacing_mm}
      catalog/lesions.parquet    the lesion table of the store that it was made from, chosen rows in order
      catalog/volumes.parquet    the volume table of that store
      catalog/places.parquet     one row per lesion: where its block lies in its volume, and which part of it is voxels
      volumes/lesions/hu         int16 (lesion, z, y, x), HU; one chunk a lesion, shards of 64 lesions

A block is `size` and `margin` on both sides of it, in voxels of `spacing_mm` (null: of each volume). Codecs and
checksums are those of a store. The root group is written last: a pack exists exactly when it does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lesionzarr._lazy import cached_property
from lesionzarr.errors import NotFoundError, SettingError, StoreError
from lesionzarr.store import layout
from lesionzarr.store.arrays import ArrayLayout, parse_layout
from lesionzarr.store.catalog import Catalog, check_cache
from lesionzarr.store.index import LESIONS, VOLUMES
from lesionzarr.store.location import open_location
from lesionzarr.store.shards import encode_shard
from lesionzarr.store.tables import read_table, write_frame, write_table
from lesionzarr.store.writer import TOOL, read_root

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

    import pandas as pd
    from numpy.typing import NDArray

    from lesionzarr.store.location import Location

ARRAY = layout.KINDS["CT"].array
ARRAY_ID = "lesions"
PLACES_TABLE = "catalog/places.parquet"
SHARD_LESIONS = 64
FILL_HU = -1024

PLACES = pa.schema(
    [
        ("lesion_id", pa.string()),
        *((f"origin_{axis}", pa.float64()) for axis in "zyx"),
        *((f"step_{axis}", pa.float64()) for axis in "zyx"),
        *((f"first_{axis}", pa.int64()) for axis in "zyx"),
        *((f"last_{axis}", pa.int64()) for axis in "zyx"),
    ]
)
"""Position in the volume of a block's first voxel, and distance there of its voxels; first and last voxel of the block,
half-open, that lie in the volume."""


@dataclass(frozen=True)
class Block:
    """One lesion of a pack."""

    lesion_id: str
    voxels: NDArray[np.int16]
    """(z, y, x), HU; -1024 outside of the volume."""
    origin: tuple[float, float, float]
    step: tuple[float, float, float]
    first: tuple[int, int, int]
    last: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Pack(Catalog):
    """An opened pack: its lesions, and no voxels."""

    places: pd.DataFrame = field(kw_only=True, repr=False)
    """One row per lesion, indexed by lesion_id, in the order of the array."""
    layout: ArrayLayout = field(kw_only=True, repr=False)
    """Of the array, with lesions and slices as one axis."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self.location, self.cache_bytes)

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Give `places` as arrays, which are quicker to look up."""
        return {str(name): self.places[name].to_numpy() for name in self.places}

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels of an image, (z, y, x)."""
        z, y, x = self.info["size"]
        return z, y, x

    @property
    def margin(self) -> tuple[int, int, int]:
        """Voxels on both sides of it that are there for shifts, (z, y, x)."""
        z, y, x = self.info["margin"]
        return z, y, x


def write_pack(
    location: Location, catalog: Catalog, blocks: Iterator[Block], settings: dict[str, Any], profile: str
) -> int:
    """Write a pack.

    Parameters
    ----------
    location
        Where; nothing may be there.
    catalog
        The store that the lesions are of.
    blocks
        All of one shape; held 64 at a time.
    settings
        ``size``, ``margin`` and ``spacing_mm``.
    profile
        Codecs, by name.

    Returns
    -------
    int
        Number of lesions.

    Raises
    ------
    StoreError
        Something is there already, or the destination cannot be written.
    """
    if location.read(layout.GROUP_FILE) is not None:
        raise StoreError(f"{location.name}: there is something already; name another destination")
    key = f"{layout.volume_key(ARRAY_ID)}/{ARRAY}"
    rows: list[dict[str, Any]] = []
    shape: tuple[int, ...] = ()
    for number, group in enumerate(_grouped(blocks)):
        voxels = np.stack([block.voxels for block in group])
        shape = voxels.shape[1:]
        codecs = layout.pack_codecs(profile, shape)
        shard = encode_shard(voxels, (SHARD_LESIONS, *shape), (1, *shape), FILL_HU, codecs).data
        location.write(f"{key}/c/{number}/0/0/0", shard)
        rows += [_place(block) for block in group]
    metadata = layout.pack_metadata(len(rows), shape, SHARD_LESIONS, FILL_HU, profile)
    location.write(f"{key}/{layout.GROUP_FILE}", json.dumps(metadata).encode())
    location.write(PLACES_TABLE, write_table(rows, PLACES))
    chosen = [lesion.to_row() for lesion in catalog.find_lesions([row["lesion_id"] for row in rows])]
    location.write(layout.LESIONS_TABLE, write_table(chosen, LESIONS))
    location.write(layout.VOLUMES_TABLE, write_frame(catalog.volumes.reset_index(), VOLUMES))
    info = {name: catalog.info[name] for name in ("source", "title", "licence", "citation")}
    made = {"tool": TOOL, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    root = layout.group_metadata({"lesionzarr": {"format": layout.FORMAT, "kind": "pack", **info, **made, **settings}})
    location.write(layout.GROUP_FILE, json.dumps(root).encode())
    return len(rows)


def open_pack(
    url: str | os.PathLike[str], storage_options: Mapping[str, Any] | None = None, *, cache_bytes: int = 0
) -> Pack:
    """Open a pack.

    Parameters
    ----------
    url
        Path or URL.
    storage_options
        Options of the object store, where `url` is a URL.
    cache_bytes
        As in `lesionzarr.open`.

    Returns
    -------
    Pack

    Raises
    ------
    NotFoundError
        Nothing is there.
    SettingError
        Something else than a pack is there.
    StoreError
        It cannot be reached, or is damaged.
    """
    check_cache(cache_bytes)
    return _open(open_location(url, storage_options), cache_bytes)


def _open(location: Location, cache_bytes: int) -> Pack:
    info = read_root(location)
    if info is None:
        raise NotFoundError(f"no pack at {location.name}: no zarr.json in it")
    if info.get("kind") != "pack":
        raise SettingError(f"{location.name}: a store, but no pack; open it with lesionzarr.open")
    key = f"{layout.volume_key(ARRAY_ID)}/{ARRAY}/{layout.GROUP_FILE}"
    array = parse_layout(json.loads(location.read(key) or b"{}"))
    if array is None:
        raise StoreError(f"{location.name}/{key}: missing, or of another kind; pack the lesions again")
    return Pack(
        location,
        info,
        read_table(location, layout.LESIONS_TABLE, "lesion_id"),
        read_table(location, layout.VOLUMES_TABLE, "volume_id"),
        cache_bytes,
        places=read_table(location, PLACES_TABLE, "lesion_id"),
        layout=array.merge_first_axes(),
    )


def _grouped(blocks: Iterator[Block]) -> Iterator[list[Block]]:
    group: list[Block] = []
    for block in blocks:
        group.append(block)
        if len(group) == SHARD_LESIONS:
            yield group
            group = []
    if group:
        yield group


def _place(block: Block) -> dict[str, Any]:
    parts = {"origin": block.origin, "step": block.step, "first": block.first, "last": block.last}
    values = {f"{name}_{axis}": value for name, part in parts.items() for axis, value in zip("zyx", part, strict=True)}
    return {"lesion_id": block.lesion_id, **values}
