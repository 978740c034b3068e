"""What the catalog is made of: two tables, derived from the groups of the volumes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lesionzarr.errors import IntegrityError
from lesionzarr.lesion import COLUMNS
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._ordered import map_in_order
from lesionzarr.store.generations import publish, read_pointer
from lesionzarr.store.tables import ARROW, make_table, write_together
from lesionzarr.store.writer import has_mask

if TYPE_CHECKING:
    from lesionzarr.store.location import Location

LESIONS = pa.schema([(name, ARROW[word]) for name, word in COLUMNS.items()])
VOLUMES = pa.schema(
    [
        *((name, pa.string()) for name in ("volume_id", "series_id", "study_id", "patient_id", "modality")),
        *((name, pa.int64()) for name in ("slices", "rows", "columns", "lesions")),
        *((name, pa.float64()) for name in ("spacing_z_mm", "spacing_y_mm", "spacing_x_mm")),
        *((name, pa.int64()) for name in ("first_slice", "last_slice")),
        ("orientation", pa.list_(pa.string())),
        ("affine", pa.list_(pa.float64())),
        *((name, pa.string()) for name in ("frame_uid", "study_date", "kernel", "description")),
        ("tags", pa.string()),
        ("profile", pa.string()),
        ("voxels", pa.string()),
        ("array", pa.string()),
        ("mask", pa.string()),
        ("mask_array", pa.string()),
        ("shards", pa.string()),
    ]
)
"""`lesions` counts the volume's lesions, `voxels` is their checksum, `array` the content of its ``zarr.json``; `mask`
and `mask_array` are those of the mask, null where there is none. `affine` is its three rows, one after the other;
`shards`, JSON, has for ``voxels`` and ``mask`` the length of each shard and of its first chunks, those round lesions.
`frame_uid`, `study_date`, `kernel` and `description` are copies of `tags`, an object of JSON."""


TRIES = 20
"""Times that a catalog is derived, each after another conversion wrote one meanwhile."""


def write_catalog(location: Location) -> tuple[int, list[Issue]]:
    """Derive both tables from the groups of the volumes, and write them, both at once.

    Where another conversion writes a catalog at the same time, they are derived again, so that the one in the end tells
    of every volume that was there when its writer began.

    Parameters
    ----------
    location
        The store.

    Returns
    -------
    int
        Number of lesions.
    list of Issue
        Volumes that are damaged, and left out.
    """
    for _ in range(TRIES):
        before = read_pointer(location)
        volumes, lesions, issues = _derive(location, location.list_folders(layout.VOLUMES))
        checksum, tables = write_together([make_table(volumes, VOLUMES), make_table(lesions, LESIONS)])
        if publish(location, before, checksum, tables):
            return len(lesions), issues
    text = f"{location.name}: others write its catalog all the time; run `lesionzarr index` when they have ended"
    return len(lesions), [*issues, Issue("old-catalog", "", layout.CATALOG_FILE, text)]


def _derive(
    location: Location, volume_ids: list[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[Issue]]:
    """Read the rows of volumes and lesions."""
    volumes: list[dict[str, Any]] = []
    lesions: list[dict[str, Any]] = []
    issues: list[Issue] = []

    def read(volume_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]] | Issue | None:
        try:
            own = _read_own(location, volume_id)
            return None if own is None else (volume_row(location, volume_id, own), own["lesions"])
        except IntegrityError as error:
            return Issue("damaged-volume", volume_id, "", f"{error}; it is left out of the catalog")

    for found in map_in_order(location, read, volume_ids):
        if isinstance(found, Issue):
            issues.append(found)
        elif found is not None:
            volumes.append(found[0])
            lesions += found[1]
    lesions.sort(key=_order)
    return volumes, lesions, issues


def _order(row: dict[str, Any]) -> tuple[bool, int, str]:
    # the source's own order; rows that come from no row of its table follow
    number = row["source_row"]
    return number is None, number or 0, row["lesion_id"]


def _read_own(location: Location, volume_id: str) -> dict[str, Any] | None:
    """Read a volume's attributes; None for one that is half written, which the next conversion makes anew."""
    group = f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"
    # one look: asked twice, one that another conversion ends meanwhile is absent first, and there then
    data = location.read(group)
    if data is None:
        return None
    try:
        own: dict[str, Any] = json.loads(data)["attributes"]["lesionzarr"]
    except (ValueError, KeyError, TypeError) as error:
        raise IntegrityError(f"{location.name}/{group}: damaged; convert the volume again") from error
    return own


def volume_row(location: Location, volume_id: str, own: dict[str, Any]) -> dict[str, Any]:
    """Make the row of a volume from its attributes `own` and its arrays; it has more entries than the table columns.

    Raises
    ------
    IntegrityError
        A part of the volume that the row needs is missing or damaged.
    """
    volume, made = own["volume"], own["provenance"]
    if volume["volume_id"] != volume_id:
        raise IntegrityError(f"{location.name}: volume {volume_id} is a copy of {volume['volume_id']}; delete it")
    array = _array_file(location, volume_id, layout.KINDS[volume["modality"]].array)
    mask = _array_file(location, volume_id, f"{layout.MASK}/{layout.MASK_ARRAY}") if has_mask(own) else None
    tags, affine = volume.get("tags", {}), volume.get("affine")
    return {
        **volume,
        "affine": [number for row in affine for number in row] if affine else None,
        "frame_uid": tags.get("FrameOfReferenceUID"),
        "study_date": tags.get("StudyDate"),
        "kernel": tags.get("ConvolutionKernel"),
        "description": tags.get("SeriesDescription"),
        "tags": json.dumps(tags),
        **dict(zip(("slices", "rows", "columns"), volume["shape"], strict=True)),
        **dict(zip(("spacing_z_mm", "spacing_y_mm", "spacing_x_mm"), volume["spacing_mm"], strict=True)),
        "lesions": len(own["lesions"]),
        "profile": made["profile"],
        "voxels": made["voxels"],
        "array": array,
        "mask": made.get("mask"),
        "mask_array": mask,
        "shards": json.dumps(made.get("shards", {})),
    }


def _array_file(location: Location, volume_id: str, name: str) -> str:
    """Read the ``zarr.json`` of an array of a volume."""
    data = location.read(f"{layout.volume_key(volume_id)}/{name}/{layout.GROUP_FILE}") or b""
    try:
        json.loads(data)
    except ValueError as error:
        raise IntegrityError(
            f"{location.name}: volume {volume_id}, {name}/zarr.json: missing or damaged; convert it again"
        ) from error
    return data.decode()
