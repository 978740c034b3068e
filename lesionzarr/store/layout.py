"""The store format, version 1. This docstring is its specification.

::

    <name>.zarr/
      zarr.json                     group; attributes.lesionzarr = {format, source, title, licence, citation, tool,
                                    created, checksum}
      catalog/tables.json           {revision, generation, volumes, lesions}: the keys of the two tables of the catalog,
                                    how many were written, and the checksum that both tables have in their metadata
      catalog/<revision>-<first 12 digits of the generation>/
        volumes.parquet             one row per volume, with array metadata and checksum; derived from the groups below
        lesions.parquet             one row per lesion; derived from the groups below
      catalog/report.json           what the last conversion converted, skipped and failed at, with reasons
      croissant.json                Croissant metadata, where somebody has exported them into the store
      volumes/zarr.json             group
      volumes/<volume_id>/          group, an OME-Zarr 0.5 image
        zarr.json                   written LAST: a volume exists exactly when this object exists
        hu/zarr.json                int16 (z, y, x), Hounsfield units; of PET ``activity``, float32, Bq/ml
        hu/c/<i>/0/0                one shard per 64 slices
        z, y, x                     float64, position in mm along the LPS axes
        labels/zarr.json            where the source has an instance mask: group that lists ``lesions``
        labels/lesions/zarr.json    group, an OME-Zarr 0.5 label image with the properties of every lesion
        labels/lesions/0            uint8 or uint16 (z, y, x), 0 for the background

Everything is Zarr v3. `hu` uses ``sharding_indexed``: inner chunks (8, 64, 64), each encoded by the profile's codecs,
with Blosc's blocks of four slices that decode on their own, and closed by ``crc32c``; the index stands at the end and
has its own ``crc32c``. First come the chunks of 9 x 128 x 128 voxels round each lesion, lesion by lesion, then the
others, both in lexicographic order. Every inner chunk of every shard is present: a missing shard or chunk is damage,
never padding. `fill_value` is the volume's own padding. A mask has the same chunks and shards; its codecs are those of
``portable`` where the profile is ``dense``.

``attributes.lesionzarr`` of a volume's group holds

- ``volume``: volume_id, series_id, study_id, patient_id, modality, shape, spacing_mm (z, y, x; null where unknown),
  orientation (RFC-4 words), affine (three rows: index (z, y, x, 1) to LPS (x, y, z) in mm; null where unknown),
  first_slice and last_slice (the source's own numbers), tags (what else is known of the series, by keywords of DICOM);
- ``lesions``: rows of the lesion table (`lesionzarr.lesion`), the canonical copy;
- ``provenance``: tool, converter, its settings (names of the files that were given), profile, fingerprint of
  the source files, their names and sizes, ``voxels``, the SHA-256 of the decoded voxels (little endian, C order),
  ``mask``, that of the mask where there is one, and ``headers`` where those of the source were asked for;
- ``checksum``: SHA-256 of all the others as JSON with sorted keys and without spaces; so in the root group. Stores of
  the first versions have none.

A catalog is replaced by the one request that writes ``tables.json``, which fails where another was written meanwhile;
the tables before it are kept until the next one. Stores without that object have ``catalog/volumes.parquet`` and
``catalog/lesions.parquet``, as packs do, until a catalog is written.

Ids are letters, digits, ``.``, ``_`` and ``-``, and begin with a letter or a digit. No attribute holds NaN, an absolute
path or the name of a machine.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lesionzarr.errors import SettingError, SourceError, not_found

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion

FORMAT = 1
VOLUMES = "volumes"
LABELS = "labels"
MASK = "labels/lesions"
"""Group of the mask, in that of its volume."""
MASK_ARRAY = "0"
MASK_DTYPES = ("uint8", "uint16")
GROUP_FILE = "zarr.json"
CATALOG = "catalog"
CATALOG_FILE = "catalog/tables.json"
VOLUMES_TABLE = "catalog/volumes.parquet"
LESIONS_TABLE = "catalog/lesions.parquet"
"""Names of the tables in packs, and in stores of the first versions."""
REPORT = "catalog/report.json"
CROISSANT = "croissant.json"

CHUNK = (8, 64, 64)
BLOCK_SLICES = 4
"""Slices of a chunk that decode on their own."""
SHARD_SLICES = 64
LESION_SIZE = (9, 128, 128)
"""Voxels round a lesion, (z, y, x), whose chunks lie together in a shard: those of a usual crop."""


class Kind(NamedTuple):
    """How the voxels of a modality are stored."""

    array: str
    """Name of the array in the volume's group."""
    dtype: str
    units: str
    long_name: str


KINDS = {
    "CT": Kind("hu", "int16", "HU", "CT number"),
    "PT": Kind("activity", "float32", "Bq/ml", "activity concentration"),
}
"""By DICOM's word for the modality."""

SEGMENTATION = "SEG"
"""DICOM's word for what a mask is; it is part of a volume, and none itself."""

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")

CHECKSUM = "checksum"
"""Name of the checksum of attributes, among them."""

CRC32C = {"name": "crc32c", "configuration": {}}
LITTLE_ENDIAN = {"name": "bytes", "configuration": {"endian": "little"}}


def _blosc(cname: str, clevel: int) -> list[dict[str, Any]]:
    settings = {"cname": cname, "clevel": clevel, "shuffle": "shuffle"}
    return [LITTLE_ENDIAN, {"name": "blosc", "configuration": settings}, CRC32C]


PROFILES: dict[str, list[dict[str, Any]]] = {
    "portable": _blosc("zstd", 5),
    "fast": _blosc("lz4", 5),
    "dense": [{"name": "numcodecs.pcodec", "configuration": {"level": 8}}, CRC32C],
}
"""Codecs of an inner chunk, but for the sizes of Blosc's items and blocks: read everywhere; quickest to decode;
smallest (zarr-python and zarrs only)."""


def check_profile(profile: str) -> None:
    """Raise NotFoundError unless `profile` is one of `PROFILES`."""
    if profile not in PROFILES:
        raise not_found("profile", profile, PROFILES)


def volume_codecs(profile: str, modality: str = "CT") -> list[dict[str, Any]]:
    """Give the codecs of an inner chunk of a volume, by the name of a profile."""
    return _codecs(profile, (BLOCK_SLICES, *CHUNK[1:]), KINDS[modality].dtype)


def mask_codecs(profile: str, dtype: str) -> list[dict[str, Any]]:
    """Give the codecs of an inner chunk of a mask."""
    # pcodec has no integers of 8 bits
    return _codecs("portable" if profile == "dense" else profile, (BLOCK_SLICES, *CHUNK[1:]), dtype)


def pack_codecs(profile: str, shape: tuple[int, ...]) -> list[dict[str, Any]]:
    """Give the codecs of a lesion of a pack, (z, y, x), which is decoded whole."""
    return _codecs(profile, shape, KINDS["CT"].dtype)


def check_ids(ids: list[str]) -> None:
    """Refuse volume ids that cannot be folder names everywhere.

    Raises
    ------
    SourceError
        An id with other characters than the format allows, or two that differ only in case.
    """
    seen: dict[str, str] = {}
    for name in ids:
        if not ID.fullmatch(name) or ".." in name:
            raise SourceError(f"volume id {name!r}: only letters, digits, '.', '_' and '-' are possible, and no '..'")
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise SourceError(f"volume ids {other!r} and {name!r} differ only in case, which some disks cannot hold")


def volume_key(volume_id: str) -> str:
    """Give the path of a volume's group inside the store."""
    return f"{VOLUMES}/{volume_id}"


def shard_shape(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Give the shape of a shard: up to 64 slices, whole rows and columns, rounded up to whole chunks."""
    depth, rows, columns = (-(-size // chunk) * chunk for size, chunk in zip(shape, CHUNK, strict=True))
    return min(depth, SHARD_SLICES), rows, columns


def object_keys(shape: tuple[int, int, int], modality: str, *, has_mask: bool = False) -> list[str]:
    """Give the keys of every object of a volume of that shape, below its group, but for the group's own."""
    arrays = [KINDS[modality].array, *([f"{MASK}/{MASK_ARRAY}"] if has_mask else [])]
    shards = [f"c/{number}/0/0" for number in range(-(-shape[0] // shard_shape(shape)[0]))]
    voxels = [f"{array}/{key}" for array in arrays for key in (GROUP_FILE, *shards)]
    coordinates = [f"{name}/{key}" for name in "zyx" for key in (GROUP_FILE, "c/0")]
    groups = [f"{LABELS}/{GROUP_FILE}", f"{MASK}/{GROUP_FILE}"] if has_mask else []
    return [*voxels, *coordinates, *groups]


def is_shard(key: str) -> bool:
    """Tell the shards of a volume from its metadata and its coordinates, which have one axis."""
    return "/c/" in key and not key.endswith("/c/0")


def voxel_metadata(
    shape: tuple[int, int, int], fill_value: float, profile: str, modality: str = "CT"
) -> dict[str, Any]:
    """Give the Zarr v3 metadata of the voxels.

    Parameters
    ----------
    shape
        Number of slices, rows and columns.
    fill_value
        The volume's padding value, in the units of its modality.
    profile
        Name of the codecs in `PROFILES`.
    modality
        From `KINDS`.

    Returns
    -------
    dict
        Content of the array's ``zarr.json``.
    """
    kind = KINDS[modality]
    codecs = [{"name": "sharding_indexed", "configuration": _sharding(CHUNK, volume_codecs(profile, modality))}]
    attributes = {"units": kind.units, "long_name": kind.long_name}
    return _array(shape, shard_shape(shape), kind.dtype, fill_value, codecs, ("z", "y", "x"), attributes)


def mask_metadata(shape: tuple[int, int, int], dtype: str, profile: str) -> dict[str, Any]:
    """Give the Zarr v3 metadata of a mask, whose chunks and shards are those of its volume.

    Parameters
    ----------
    shape
        Number of slices, rows and columns.
    dtype
        From `MASK_DTYPES`.
    profile
        Name of the codecs of the volume.

    Returns
    -------
    dict
        Content of the array's ``zarr.json``.
    """
    codecs = [{"name": "sharding_indexed", "configuration": _sharding(CHUNK, mask_codecs(profile, dtype))}]
    attributes = {"long_name": "lesion of each voxel; 0 is the background"}
    return _array(shape, shard_shape(shape), dtype, 0, codecs, ("z", "y", "x"), attributes)


def pack_metadata(
    lesions: int, shape: tuple[int, ...], shard_lesions: int, fill_value: int, profile: str
) -> dict[str, Any]:
    """Give the Zarr v3 metadata of the voxels of a pack: (lesion, z, y, x), one chunk a lesion."""
    codecs = [{"name": "sharding_indexed", "configuration": _sharding((1, *shape), pack_codecs(profile, shape))}]
    attributes = {"units": "HU", "long_name": "CT number"}
    axes = ("lesion", "z", "y", "x")
    return _array((lesions, *shape), (shard_lesions, *shape), "int16", fill_value, codecs, axes, attributes)


def coordinate_metadata(name: str, size: int, *, in_mm: bool) -> dict[str, Any]:
    """Give the Zarr v3 metadata of one coordinate, a float64 array in one chunk.

    Parameters
    ----------
    name
        ``z``, ``y`` or ``x``.
    size
        Number of positions.
    in_mm
        False where the positions are mere row numbers, since the spacing is unknown.

    Returns
    -------
    dict
        Content of ``<name>/zarr.json``.
    """
    long_name = f"position along the {name} axis of the DICOM patient system (LPS), from the first pixel centre"
    attributes = {"units": "mm", "long_name": long_name} if in_mm else {"long_name": "row number; spacing unknown"}
    return _array((size,), (size,), "float64", 0.0, [LITTLE_ENDIAN, CRC32C], (name,), attributes)


def group_metadata(attributes: dict[str, Any]) -> dict[str, Any]:
    """Give the Zarr v3 metadata of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def attributes_checksum(own: dict[str, Any]) -> str:
    """Give the checksum of ``attributes.lesionzarr`` of a group; one that is among them already does not count."""
    values = {name: value for name, value in own.items() if name != CHECKSUM}
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def seal(own: dict[str, Any]) -> dict[str, Any]:
    """Give ``attributes.lesionzarr`` of a group with their checksum."""
    return {**own, CHECKSUM: attributes_checksum(own)}


def padding_value(corner: int, lowest: int) -> int:
    """Give the padding of a CT volume from its first voxel and its lowest value, in HU."""
    # outside the reconstruction circle scanners write one constant below air, which fills the corners of the slice
    return corner if corner < -1000 and corner == lowest else -1024


def ome_attributes(grid: Grid, modality: str) -> dict[str, Any]:
    """Give the OME-Zarr 0.5 image metadata of a volume.

    Scales are positive; the direction of an axis is told by its RFC-4 orientation. An unknown slice interval becomes
    scale 1 without a unit.
    """
    name = {"CT": "ct", "PT": "pet"}[modality]
    return {"version": "0.5", "multiscales": [_multiscale(grid, name, KINDS[modality].array)]}


def label_attributes(grid: Grid, lesions: Iterable[Lesion]) -> dict[str, Any]:
    """Give the OME-Zarr 0.5 metadata of the mask of a volume: an image whose values are lesions.

    Properties of a value are its lesion's ``lesion_id``, ``type`` and ``labels``, where they are known.
    """
    named = ((lesion.mask_label, _properties(lesion)) for lesion in lesions if lesion.mask_label is not None)
    properties = [{"label-value": value, **known} for value, known in named]
    image_label: dict[str, Any] = {"version": "0.5", "source": {"image": "../../"}}
    if properties:
        # the specification asks for at least one where there is a list
        image_label["properties"] = properties
    multiscales = [_multiscale(grid, "lesions", MASK_ARRAY)]
    return {"version": "0.5", "multiscales": multiscales, "image-label": image_label}


def labels_attributes() -> dict[str, Any]:
    """Give the OME-Zarr 0.5 metadata of the group of a volume's label images."""
    return {"version": "0.5", "labels": [MASK.removeprefix(f"{LABELS}/")]}


def _properties(lesion: Lesion) -> dict[str, Any]:
    labels = None if lesion.labels is None else list(lesion.labels)
    known = {"lesion_id": lesion.lesion_id, "type": lesion.type, "labels": labels}
    return {name: value for name, value in known.items() if value is not None}


def _multiscale(grid: Grid, name: str, array: str) -> dict[str, Any]:
    axes: list[dict[str, Any]] = []
    for index, letter in enumerate("zyx"):
        axis: dict[str, Any] = {"name": letter, "type": "space"}
        if grid.spacing_mm[index] is not None:
            axis["unit"] = "millimeter"
        if grid.orientation is not None:
            axis["orientation"] = {"type": "anatomical", "value": grid.orientation[index]}
        axes.append(axis)
    scale = [1.0 if mm is None else mm for mm in grid.spacing_mm]
    transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
    if grid.origin_mm is not None:
        transformations.append({"type": "translation", "translation": list(grid.origin_mm)})
    dataset = {"path": array, "coordinateTransformations": transformations}
    return {"name": name, "axes": axes, "datasets": [dataset]}


def check_root(attributes: dict[str, Any] | None, name: str) -> dict[str, Any]:
    """Give the store's own attributes from those of its root group.

    Raises
    ------
    SettingError
        The group is no lesionzarr store, or of a format that this version does not know.
    """
    own = (attributes or {}).get("lesionzarr")
    if not isinstance(own, dict) or "format" not in own:
        raise SettingError(f"{name}: a Zarr group, but no lesionzarr store")
    if own["format"] != FORMAT:
        raise SettingError(f"{name}: store format {own['format']}, this version reads {FORMAT}; update lesionzarr")
    return {name: value for name, value in own.items() if name != CHECKSUM}


def _codecs(profile: str, block: tuple[int, ...], dtype: str) -> list[dict[str, Any]]:
    item_bytes = np.dtype(dtype).itemsize
    sizes = {"typesize": item_bytes, "blocksize": item_bytes * math.prod(block)}
    return [
        {**codec, "configuration": {**codec["configuration"], **sizes}} if codec["name"] == "blosc" else codec
        for codec in PROFILES[profile]
    ]


def _sharding(chunk: tuple[int, ...], codecs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "chunk_shape": list(chunk),
        "codecs": codecs,
        "index_codecs": [LITTLE_ENDIAN, CRC32C],
        "index_location": "end",
    }


def _array(
    shape: tuple[int, ...],
    chunk: tuple[int, ...],
    dtype: str,
    fill_value: float,
    codecs: list[dict[str, Any]],
    dimensions: tuple[str, ...],
    attributes: dict[str, Any],
) -> dict[str, Any]:
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": dtype,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunk)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": fill_value,
        "codecs": codecs,
        "dimension_names": list(dimensions),
        "attributes": attributes,
    }
