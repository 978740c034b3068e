"""One volume looked at: its group, the metadata of its arrays, its coordinates, its shards."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import LesionzarrError
from lesionzarr.geometry import Grid
from lesionzarr.lesion import Lesion
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._verify_shards import Fault, Values, check_index, read_array, read_object
from lesionzarr.store.index import volume_row
from lesionzarr.store.shards import crc32c
from lesionzarr.store.writer import has_mask

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lesionzarr.store.location import Location

    Faults = dict[str, tuple[str, str]]
    """Kind of the issue and what is wrong, by the key of the object."""

REMEDY = "write the volume anew from its source (`lesionzarr repair --source`)"
OWN = {"volume", "lesions", "provenance"}
"""What the attributes of a volume hold, but for their checksum."""


@dataclass(frozen=True)
class Checked:
    """What was found out about a volume."""

    volume_id: str
    issues: tuple[Issue, ...]
    row: dict[str, Any] | None = None
    """What the catalog should say of it; None where that is not known for sure."""
    lesions: tuple[dict[str, Any], ...] | None = None
    """What the catalog should say of its lesions."""
    strays: tuple[str, ...] = ()
    """Keys of objects in its group that do not belong to it."""


@dataclass(frozen=True)
class _Stored:
    """A volume whose attributes are sound."""

    location: Location
    volume_id: str
    own: dict[str, Any]
    grid: Grid

    def key(self, *parts: str) -> str:
        return "/".join([layout.volume_key(self.volume_id), *parts])

    @property
    def modality(self) -> str:
        return str(self.own["volume"]["modality"])

    @property
    def made(self) -> dict[str, Any]:
        provenance: dict[str, Any] = self.own["provenance"]
        return provenance

    @property
    def array(self) -> str:
        """Key of the voxels."""
        return self.key(layout.KINDS[self.modality].array)

    @property
    def mask(self) -> str:
        """Key of the mask, if there is one."""
        return self.key(layout.MASK, layout.MASK_ARRAY)

    @property
    def keys(self) -> list[str]:
        names = layout.object_keys(self.grid.shape, self.modality, has_mask=has_mask(self.own))
        return [self.key(name) for name in names]


def check_volume(location: Location, volume_id: str, objects: Mapping[str, int], *, voxels: bool) -> Checked:
    """Check a volume whose group is there.

    Parameters
    ----------
    location
        The store.
    volume_id
        Which volume.
    objects
        Length of each object under its group, by key.
    voxels
        Read all shards, and compare the voxels with their checksum; False looks at the indexes of the shards alone.

    Returns
    -------
    Checked

    Raises
    ------
    StoreError
        The store cannot be reached.
    """
    group = f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"
    try:
        document = parse_document(read_object(location, group))
        stored = _understand(location, volume_id, document)
    except Fault as fault:
        return Checked(volume_id, (_issue(location, volume_id, group, "damaged-attributes", str(fault)),))
    named = stored.own["volume"]["volume_id"]
    if named != volume_id:
        text = f"{location.name}/{group}: volume {volume_id} is a copy of {named}; delete it (`lesionzarr repair`)"
        return Checked(volume_id, (Issue("copied-volume", volume_id, group, text),))
    found = _find_faults(stored, objects, voxels=voxels)
    issues = tuple(_issue(location, volume_id, key, *fault) for key, fault in found.items())
    strays = tuple(sorted(set(objects) - {*stored.keys, group}))
    sure = not any(key.endswith(layout.GROUP_FILE) for key in found)
    row = volume_row(location, volume_id, stored.own) if sure else None
    return Checked(volume_id, issues, row, tuple(stored.own["lesions"]), strays)


def parse_document(data: bytes) -> dict[str, Any]:
    """Parse a ``zarr.json``; Fault where it is no JSON object."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Fault(f"no JSON ({error})") from error
    if not isinstance(document, dict):
        raise Fault("no JSON object")
    return document


def check_seal(own: dict[str, Any], names: set[str]) -> None:
    """Raise Fault unless attributes are those that were sealed; without a seal they may have no other names."""
    if layout.CHECKSUM not in own:
        if not names.issuperset(own):
            raise Fault("its attributes have no checksum, and names that are not known")
    elif own[layout.CHECKSUM] != layout.attributes_checksum(own):
        raise Fault("the checksum of its attributes is wrong")


def holds(found: dict[str, Any], expected: dict[str, Any]) -> bool:
    """Tell whether a ``zarr.json`` says all that it should; what others have added to it does not matter."""
    attributes, wanted = found.get("attributes"), expected["attributes"]
    return (
        all(found.get(name) == value for name, value in expected.items() if name != "attributes")
        and isinstance(attributes, dict)
        and all(attributes.get(name) == value for name, value in wanted.items())
    )


def _issue(location: Location, volume_id: str, key: str, kind: str, fault: str) -> Issue:
    return Issue(kind, volume_id, key, f"{location.name}/{key}: {fault}; {REMEDY}")


def _understand(location: Location, volume_id: str, document: dict[str, Any]) -> _Stored:
    """Make sense of the group of a volume."""
    try:
        own = document["attributes"]["lesionzarr"]
        check_seal(own, OWN)
        volume, made = own["volume"], own["provenance"]
        grid = _grid(volume)
        layout.check_profile(made["profile"])
        expected = layout.group_metadata({"ome": layout.ome_attributes(grid, volume["modality"])})
        sound = holds(document, expected) and isinstance(made["voxels"], str) and isinstance(own["lesions"], list)
    except Fault:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, LesionzarrError) as error:
        raise Fault(f"not the attributes of a volume ({type(error).__name__}: {error})") from error
    if not sound:
        raise Fault("not what is written for such a volume")
    return _Stored(location, volume_id, own, grid)


def _grid(volume: dict[str, Any]) -> Grid:
    (z, y, x), (z_mm, y_mm, x_mm) = volume["shape"], volume["spacing_mm"]
    words, rows = volume["orientation"], volume["affine"]
    orientation = None if words is None else (words[0], words[1], words[2])
    affine = None if rows is None else tuple(tuple(row) for row in rows)
    return Grid((z, y, x), (z_mm, y_mm, x_mm), orientation, affine)


def _find_faults(stored: _Stored, objects: Mapping[str, int], *, voxels: bool) -> Faults:
    """Find what is wrong with the objects of a volume, one fault for each."""
    found: Faults = {
        key: ("missing-object", "empty" if key in objects else "missing") for key in stored.keys if not objects.get(key)
    }
    if voxels:
        padding = _read_voxels(stored, found)
    else:
        padding = None
        for key in stored.keys:
            if layout.is_shard(key):
                _note(found, key, "damaged-shard", lambda key=key: check_index(stored.location, key, stored.grid.shape))
    for key, document in _metadata(stored, padding):
        _note(found, key, "damaged-metadata", lambda key=key, document=document: _compare(stored, key, document))
    for name in "zyx":
        _note(found, stored.key(name, "c/0"), "damaged-coordinates", lambda name=name: _check_positions(stored, name))
    return found


def _note(found: Faults, key: str, kind: str, check: Any) -> None:
    """Keep what a check says of an object, unless a fault of that object is known."""
    if key not in found:
        try:
            check()
        except Fault as fault:
            found[key] = kind, str(fault)


def _read_voxels(stored: _Stored, found: Faults) -> int | None:
    """Read voxels and mask; give the padding of a volume in HU where all its voxels are right."""
    kind = layout.KINDS[stored.modality]
    profile = stored.made["profile"]
    codecs = layout.volume_codecs(profile, stored.modality)
    values = _read_array(stored, stored.array, [(kind.dtype, codecs)], stored.made["voxels"], found)
    if has_mask(stored.own):
        stated = _stated(stored, stored.mask, "data_type")
        dtypes = [stated] if stated in layout.MASK_DTYPES else layout.MASK_DTYPES
        kinds = [(dtype, layout.mask_codecs(profile, dtype)) for dtype in dtypes]
        _read_array(stored, stored.mask, kinds, stored.made["mask"], found)
    if values is None or stored.modality != "CT":
        return None
    return layout.padding_value(int(values.first), int(values.lowest))


def _read_array(
    stored: _Stored, key: str, kinds: list[tuple[str, list[dict[str, Any]]]], checksum: str, found: Faults
) -> Values | None:
    """Read an array of one of some data types, each with its codecs; give its values if they are right."""
    faults: dict[str, str] = {}
    values = None
    for dtype, codecs in kinds:
        faults, values = read_array(stored.location, key, stored.grid.shape, dtype, codecs)
        if values is not None and values.checksum == checksum:
            return values
    for name, fault in faults.items():
        found.setdefault(name, ("damaged-shard", fault))
    if values is not None:
        found[key] = "wrong-voxels", "every chunk is as it was written, and yet these are not the voxels of the volume"
    return None


def _metadata(stored: _Stored, padding: int | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give what the ``zarr.json`` below the group of a volume should be, by key."""
    shape, profile = stored.grid.shape, stored.made["profile"]
    fill_value: float = 0.0
    if stored.modality == "CT":
        fill_value = _plausible(_stated(stored, stored.array, "fill_value")) if padding is None else padding
    documents = {stored.array: layout.voxel_metadata(shape, fill_value, profile, stored.modality)}
    for name, size, mm in zip("zyx", shape, stored.grid.spacing_mm, strict=True):
        documents[stored.key(name)] = layout.coordinate_metadata(name, size, in_mm=mm is not None)
    if has_mask(stored.own):
        lesions = [Lesion.from_row(row) for row in stored.own["lesions"]]
        stated = _stated(stored, stored.mask, "data_type")
        dtype = stated if stated in layout.MASK_DTYPES else layout.MASK_DTYPES[0]
        documents[stored.mask] = layout.mask_metadata(shape, dtype, profile)
        documents[stored.key(layout.LABELS)] = layout.group_metadata({"ome": layout.labels_attributes()})
        labels = layout.label_attributes(stored.grid, lesions)
        documents[stored.key(layout.MASK)] = layout.group_metadata({"ome": labels})
    for key, document in documents.items():
        yield f"{key}/{layout.GROUP_FILE}", document


def _stated(stored: _Stored, key: str, name: str) -> Any:
    """Give what the metadata of an array say, right or wrong; None where they say nothing."""
    try:
        return parse_document(read_object(stored.location, f"{key}/{layout.GROUP_FILE}")).get(name)
    except Fault:
        return None


def _plausible(fill_value: Any) -> int:
    """Give a padding if it can be one, else the usual one: which it is, only the voxels tell."""
    fits = type(fill_value) is int and -32768 <= fill_value < -1000
    return fill_value if fits else layout.padding_value(0, 0)


def _compare(stored: _Stored, key: str, expected: dict[str, Any]) -> None:
    if not holds(parse_document(read_object(stored.location, key)), expected):
        raise Fault("not what is written for such a volume")


def _check_positions(stored: _Stored, name: str) -> None:
    positions = stored.grid.coordinates()[name]
    data = read_object(stored.location, stored.key(name, "c/0"))
    if crc32c(data[:-4]) != data[-4:]:
        raise Fault("its checksum is wrong")
    if len(data) != 8 * len(positions) + 4 or not np.allclose(
        np.frombuffer(data[:-4], dtype="<f8"), positions, rtol=1e-9, atol=1e-9
    ):
        raise Fault("not the positions that the attributes tell")
