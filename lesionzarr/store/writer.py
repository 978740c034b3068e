"""Writing volumes, each whole and by one writer.

The group's ``zarr.json`` is written last and is what makes the volume exist; whatever lies in the folder without it is
the rest of a writer that was stopped. The next writes over it and then deletes what is left: two that take each other
for dead write the same bytes, and neither deletes what the other has written. Peak memory: the voxels, and one encoded
shard.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lesionzarr._version import __version__
from lesionzarr.errors import GeometryError, IntegrityError, StoreError
from lesionzarr.geometry import Region, crop_start
from lesionzarr.store import layout, shards
from lesionzarr.store._replace import replace_object

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from lesionzarr.series import Volume
    from lesionzarr.store.location import Location

TOOL = f"lesionzarr {__version__}"


def create_store(location: Location, description: dict[str, str]) -> None:
    """Write the root group and the group of volumes, unless the store exists.

    Parameters
    ----------
    location
        Where the store is to be.
    description
        ``source``, ``title``, ``licence`` and ``citation`` of the dataset.

    Raises
    ------
    SettingError
        Something else is there: another Zarr group, or a store of another source or format.
    StoreError
        The destination cannot be written.
    """
    own = read_root(location)
    if own is not None:
        if own["source"] != description["source"]:
            raise StoreError(
                f"{location.name}: holds {own['source']}, not {description['source']}; name another destination"
            )
        # what the converter knows heals what is damaged, which the new checksum would vouch for
        own |= description
    else:
        created = datetime.now(UTC).isoformat(timespec="seconds")
        own = {"format": layout.FORMAT, **description, "tool": TOOL, "created": created}
    # written even if it is there: a destination that cannot be written is found before any volume is read
    _write_groups(location, own)


def restore_root(location: Location, description: dict[str, str]) -> None:
    """Write a damaged root group and the group of volumes anew; its time stays if that can be read.

    Parameters
    ----------
    location
        The store.
    description
        As of `create_store`.
    """
    try:
        created = json.loads(location.read(layout.GROUP_FILE) or b"")["attributes"]["lesionzarr"]["created"]
        datetime.fromisoformat(created)
    except (ValueError, KeyError, TypeError):
        created = datetime.now(UTC).isoformat(timespec="seconds")
    _write_groups(location, {"format": layout.FORMAT, **description, "tool": TOOL, "created": created})


def read_root(location: Location) -> dict[str, Any] | None:
    """Read ``attributes.lesionzarr`` of the root group; None where there is no group.

    Raises
    ------
    SettingError
        Something else is there: another Zarr group, or a store of another format.
    IntegrityError
        The root group is damaged.
    """
    data = location.read(layout.GROUP_FILE)
    if data is None:
        return None
    try:
        attributes = json.loads(data).get("attributes", {})
    except (ValueError, AttributeError) as error:
        raise IntegrityError(f"{location.name}/zarr.json: damaged ({error}); run `lesionzarr repair`") from error
    return layout.check_root(attributes, location.name)


def read_attributes(location: Location, volume_id: str) -> dict[str, Any] | None:
    """Read ``attributes.lesionzarr`` of a volume; None where there is no volume, or none of this format."""
    return _attributes(location.read(f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"))


def _attributes(data: bytes | None) -> dict[str, Any] | None:
    if not data:
        return None
    try:
        attributes: dict[str, Any] = json.loads(data)["attributes"]["lesionzarr"]
    except (ValueError, KeyError, TypeError):
        return None
    return attributes


def write_volume(
    location: Location,
    volume: Volume,
    voxels: NDArray[Any],
    made_by: dict[str, Any],
    profile: str,
    mask: NDArray[Any] | None = None,
    is_held: Callable[[], bool] | None = None,
) -> bool:
    """Write one volume.

    Parameters
    ----------
    location
        The store.
    volume
        What it is; its grid takes the shape of `voxels`.
    voxels
        HU, int16, or activity in Bq/ml, float32; (z, y, x).
    made_by
        Converter and its settings, for the provenance.
    profile
        Codecs, by name (`layout.PROFILES`).
    mask
        uint8 or uint16 (z, y, x), of the shape of `voxels`: 0, or the ``mask_label`` of a lesion.
    is_held
        Tells whether the volume is still this writer's, where others may write it too (`lesionzarr.store.claims`). Its
        group is then created by one conditional request.

    Returns
    -------
    bool
        False where it is another's by now: that one writes it, or has.

    Raises
    ------
    MissingExtraError
        The profile needs a package that is not installed.
    GeometryError
        The mask has another shape or data type.
    StoreError
        The store cannot be written; nothing of the volume is left behind.
    """
    if mask is not None and (mask.shape != voxels.shape or mask.dtype.name not in layout.MASK_DTYPES):
        text = f"volume {volume.volume_id}: a mask of {mask.dtype} {mask.shape} on voxels of {voxels.shape}"
        raise GeometryError(f"{text}; one of the same shape, uint8 or uint16, is needed")
    shards.encoder(layout.volume_codecs(profile, volume.modality))
    key = layout.volume_key(volume.volume_id)
    volume = replace(volume, grid=replace(volume.grid, shape=voxels.shape))
    group_key = f"{key}/{layout.GROUP_FILE}"
    if location.size(group_key) is not None:
        if is_held is not None and not is_held():
            return False
        # from here on, the volume does not exist until it is complete
        location.delete(group_key)
    try:
        written = {"voxels": _write_voxels(location, key, volume, voxels, profile)}
        if mask is not None:
            written["mask"] = _write_mask(location, key, volume, mask, profile)
        _write_coordinates(location, key, volume)
        _delete_strays(location, key, volume, has_mask=mask is not None)
        group = _group(volume, _provenance(volume, made_by, profile, written))
        if is_held is None:
            _write_json(location, group_key, group)
            return True
        return is_held() and location.create(group_key, _encode(group))
    except StoreError:
        if is_held is None or is_held():
            location.delete_tree(key)
        raise


def _delete_strays(location: Location, key: str, volume: Volume, *, has_mask: bool) -> None:
    """Delete what an earlier writer of a volume has left, and this one has not written over."""
    names = layout.object_keys(volume.grid.shape, volume.modality, has_mask=has_mask)
    # the group is another's, if it is there
    own = {f"{key}/{name}" for name in (layout.GROUP_FILE, *names)}
    for stray in location.list_objects(key).keys() - own:
        location.delete(stray)


def _group(volume: Volume, provenance: dict[str, Any]) -> dict[str, Any]:
    own = {
        "volume": volume_attributes(volume),
        "lesions": lesion_rows(volume),
        "provenance": provenance,
    }
    return layout.group_metadata(
        {"ome": layout.ome_attributes(volume.grid, volume.modality), "lesionzarr": layout.seal(own)}
    )


def update_volume(location: Location, volume: Volume, is_held: Callable[[], bool] | None = None) -> bool:
    """Write a volume's lesions and coordinates anew, and leave its voxels.

    Parameters
    ----------
    location
        The store, which holds the volume.
    volume
        What it is now; its grid takes the shape of the voxels that are there.
    is_held
        As of `write_volume`.

    Returns
    -------
    bool
        False where it is another's by now, or was changed meanwhile: its group is then left as it is, and not written
        where it is gone.
    """
    key = layout.volume_key(volume.volume_id)
    before = location.read(f"{key}/{layout.GROUP_FILE}")
    own = _attributes(before)
    if before is None or own is None or not (is_held is None or is_held()):
        return False
    z, y, x = own["volume"]["shape"]
    volume = replace(volume, grid=replace(volume.grid, shape=(z, y, x)))
    if own["volume"] != volume_attributes(volume):
        _write_coordinates(location, key, volume)
    if has_mask(own):
        _write_label_groups(location, key, volume)
    group = _encode(_group(volume, own["provenance"]))
    return replace_object(location, f"{key}/{layout.GROUP_FILE}", before, group)


def delete_volume(location: Location, volume_id: str) -> None:
    """Delete a volume; its group goes first, so that half of one is never seen."""
    key = layout.volume_key(volume_id)
    location.delete(f"{key}/{layout.GROUP_FILE}")
    location.delete_tree(key)


def is_whole(location: Location, volume_id: str, own: dict[str, Any]) -> bool:
    """Tell whether every object of a volume is there; their content is not looked at.

    Parameters
    ----------
    location
        The store.
    volume_id
        Which volume.
    own
        Its attributes, as read by `read_attributes`.
    """
    z, y, x = own["volume"]["shape"]
    key = layout.volume_key(volume_id)
    # one request, where asking for the length of each takes ten
    there = location.list_objects(key)
    names = layout.object_keys((z, y, x), own["volume"]["modality"], has_mask=has_mask(own))
    return all(there.get(f"{key}/{name}") for name in names)


def has_mask(own: dict[str, Any]) -> bool:
    """Tell from the attributes of a volume whether it has a mask."""
    return "mask" in own["provenance"]


def missing_objects(
    location: Location, volume_id: str, shape: tuple[int, int, int], modality: str, *, has_mask: bool = False
) -> list[str]:
    """List the objects of a volume that are absent or empty, by their keys; the group itself is not one of them."""
    there = layout.object_keys(shape, modality, has_mask=has_mask)
    keys = (f"{layout.volume_key(volume_id)}/{key}" for key in there)
    return [key for key in keys if not location.size(key)]


def lesion_rows(volume: Volume) -> list[dict[str, Any]]:
    """Give ``attributes.lesionzarr.lesions``: the volume's lesion table as plain JSON values."""
    return [lesion.to_row() for lesion in volume.lesions]


def volume_attributes(volume: Volume) -> dict[str, Any]:
    """Give ``attributes.lesionzarr.volume``: what the volume is, as plain JSON values."""
    return {
        "volume_id": volume.volume_id,
        "series_id": volume.series_id,
        "study_id": volume.study_id,
        "patient_id": volume.patient_id,
        "modality": volume.modality,
        "shape": list(volume.grid.shape),
        "spacing_mm": list(volume.grid.spacing_mm),
        "orientation": list(volume.grid.orientation) if volume.grid.orientation else None,
        "affine": [list(row) for row in volume.grid.affine] if volume.grid.affine else None,
        "first_slice": volume.first_slice,
        "last_slice": volume.last_slice,
        "tags": volume.tags,
    }


class Written(NamedTuple):
    """What became of an array."""

    checksum: str
    """SHA-256 of its values."""
    shards: list[list[int]]
    """Of each shard the length in bytes, and that of the chunks round lesions, which come first."""


def _provenance(volume: Volume, made_by: dict[str, Any], profile: str, written: dict[str, Written]) -> dict[str, Any]:
    files = list(dict.fromkeys((*volume.files, *volume.mask_files))) if volume.names_files else []
    return {
        "tool": TOOL,
        **made_by,
        "profile": profile,
        "fingerprint": volume.fingerprint,
        **{name: array.checksum for name, array in written.items()},
        "shards": {name: array.shards for name, array in written.items()},
        "roots": sorted({PurePath(str(file.root)).name for file in files}),
        "files": [file.name for file in files],
        "file_bytes": [file.size for file in files],
    }


def _lesion_regions(volume: Volume) -> list[Region]:
    """Give the voxels that a crop of the usual size takes round each lesion of a volume; they may leave it."""
    regions = []
    for lesion in volume.lesions:
        if lesion.box is not None:
            centred = zip(lesion.box.centre, layout.LESION_SIZE, strict=True)
            z, y, x = (crop_start(centre, size) for centre, size in centred)
            depth, rows, columns = layout.LESION_SIZE
            regions.append(Region((z, y, x), (z + depth, y + rows, x + columns)))
    return regions


def _write_groups(location: Location, own: dict[str, Any]) -> None:
    _write_json(location, layout.GROUP_FILE, layout.group_metadata({"lesionzarr": layout.seal(own)}))
    _write_json(location, f"{layout.VOLUMES}/{layout.GROUP_FILE}", layout.group_metadata({}))


def _write_voxels(location: Location, key: str, volume: Volume, voxels: NDArray[Any], profile: str) -> Written:
    kind = layout.KINDS[volume.modality]
    fill_value = layout.padding_value(int(voxels[0, 0, 0]), int(voxels.min())) if volume.modality == "CT" else 0.0
    metadata = layout.voxel_metadata(voxels.shape, fill_value, profile, volume.modality)
    return _write_array(location, f"{key}/{kind.array}", volume, voxels.astype(kind.dtype, copy=False), metadata)


def _write_mask(location: Location, key: str, volume: Volume, mask: NDArray[Any], profile: str) -> Written:
    metadata = layout.mask_metadata(mask.shape, mask.dtype.name, profile)
    written = _write_array(location, f"{key}/{layout.MASK}/{layout.MASK_ARRAY}", volume, mask, metadata)
    _write_label_groups(location, key, volume)
    return written


def _write_label_groups(location: Location, key: str, volume: Volume) -> None:
    own = layout.label_attributes(volume.grid, volume.lesions)
    for name, attributes in ((layout.MASK, own), (layout.LABELS, layout.labels_attributes())):
        _write_json(location, f"{key}/{name}/{layout.GROUP_FILE}", layout.group_metadata({"ome": attributes}))


def _write_array(
    location: Location, key: str, volume: Volume, array: NDArray[Any], metadata: dict[str, Any]
) -> Written:
    """Write the shards of an array, then its metadata."""
    shard_shape, fill_value = layout.shard_shape(array.shape), metadata["fill_value"]
    codecs = metadata["codecs"][0]["configuration"]["codecs"]
    regions = _lesion_regions(volume)
    digest = hashlib.sha256()
    lengths = []
    for number, start in enumerate(range(0, len(array), shard_shape[0])):
        part = array[start : start + shard_shape[0]]
        digest.update(np.ascontiguousarray(part, dtype=array.dtype.newbyteorder("<")).data)
        order = shards.chunks_of_regions(regions, start, shard_shape, layout.CHUNK)
        shard = shards.encode_shard(part, shard_shape, layout.CHUNK, fill_value, codecs, order)
        location.write(f"{key}/c/{number}/0/0", shard.data)
        lengths.append([len(shard.data), shard.head_bytes])
    _write_json(location, f"{key}/{layout.GROUP_FILE}", metadata)
    return Written(f"sha256:{digest.hexdigest()}", lengths)


def _write_coordinates(location: Location, key: str, volume: Volume) -> None:
    for (name, positions), spacing in zip(volume.grid.coordinates().items(), volume.grid.spacing_mm, strict=True):
        data = positions.astype("<f8").tobytes()
        metadata = layout.coordinate_metadata(name, len(positions), in_mm=spacing is not None)
        location.write(f"{key}/{name}/c/0", data + shards.crc32c(data))
        _write_json(location, f"{key}/{name}/{layout.GROUP_FILE}", metadata)


def _write_json(location: Location, key: str, value: dict[str, Any]) -> None:
    location.write(key, _encode(value))


def _encode(value: dict[str, Any]) -> bytes:
    # allow_nan=False: a bare NaN is no JSON, and browsers and strict parsers refuse the whole group for it
    return json.dumps(value, allow_nan=False).encode()
