"""Which objects a store has, with their lengths.

It is listed; where a plain web server lists nothing, each object that the catalog tells of is asked for.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lesionzarr.store import layout
from lesionzarr.store._parallel import work_through
from lesionzarr.store.generations import read_generation
from lesionzarr.store.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesionzarr.store.location import Location

CLAIMS = "claims"
"""Folder of what conversions that are under way write for each other: no part of the store."""

ASKING = 16
"""Requests at a time, where every object is asked for."""


@dataclass(frozen=True)
class Listing:
    """Lengths in bytes of the objects of a store, by their keys."""

    volumes: dict[str, dict[str, int]]
    """Those of each volume whose group is there, by its id."""
    half_written: dict[str, dict[str, int]]
    """Those of each volume whose group is not."""
    others: dict[str, int]
    """Those of no volume."""


def list_store(location: Location) -> Listing:
    """List the objects of a store; it takes some 200 bytes of memory for each.

    Raises
    ------
    StoreError
        The store cannot be reached, or cannot be listed and has no catalog.
    """
    found = _ask(location) if is_web(location) else location.list_objects("")
    volumes: dict[str, dict[str, int]] = {}
    others: dict[str, int] = {}
    for key, size in found.items():
        first, _, rest = key.partition("/")
        volume_id, slash, _ = rest.partition("/")
        if first == layout.VOLUMES and slash:
            volumes.setdefault(volume_id, {})[key] = size
        elif first != CLAIMS:
            others[key] = size
    whole = {name for name, objects in volumes.items() if f"{layout.volume_key(name)}/{layout.GROUP_FILE}" in objects}
    return Listing(
        {name: objects for name, objects in sorted(volumes.items()) if name in whole},
        {name: objects for name, objects in sorted(volumes.items()) if name not in whole},
        others,
    )


def is_web(location: Location) -> bool:
    """Tell whether a store is on a plain web server, which lists nothing and takes nothing."""
    return getattr(location, "url", "").startswith(("http://", "https://"))


def _ask(location: Location) -> dict[str, int]:
    sizes = work_through(lambda key: (key, location.size(key)), _told_keys(location), ASKING)
    return {key: size for key, size in sizes if size is not None}


def _told_keys(location: Location) -> Iterator[str]:
    yield from (layout.GROUP_FILE, f"{layout.VOLUMES}/{layout.GROUP_FILE}")
    volumes, lesions = read_generation(location).tables
    yield from (layout.CATALOG_FILE, volumes, lesions, layout.REPORT)
    table = read_table(location, volumes, "volume_id")
    for volume_id, array, mask, modality in zip(
        table.index, table["array"], table["mask_array"], table["modality"], strict=True
    ):
        shape: Any = tuple(json.loads(array)["shape"])
        key = layout.volume_key(volume_id)
        yield f"{key}/{layout.GROUP_FILE}"
        for name in layout.object_keys(shape, modality, has_mask=isinstance(mask, str)):
            yield f"{key}/{name}"
