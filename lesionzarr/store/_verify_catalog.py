"""The catalog looked at: whether its tables say of each volume what the attributes of the volume say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import IntegrityError
from lesionzarr.report import Issue
from lesionzarr.store import layout
from lesionzarr.store._verify_shards import Fault, read_object
from lesionzarr.store.generations import Generation, find_generations, is_of_catalog, read_generation
from lesionzarr.store.index import LESIONS, VOLUMES
from lesionzarr.store.listing import is_web
from lesionzarr.store.tables import GENERATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lesionzarr.store._verify_volume import Checked
    from lesionzarr.store.location import Location

CATALOG = layout.CATALOG
TABLES = (VOLUMES, LESIONS)
REMEDY = "derive the catalog anew (`lesionzarr index`)"
SAFE_REMEDY = "derive the catalog anew (`lesionzarr repair`, or, once no volume is missing, `lesionzarr index`)"
"""Of a catalog that cannot be read: deriving it forgets the volumes that are not there."""


@dataclass(frozen=True)
class Table:
    """A table of the catalog that can be read."""

    key: str
    rows: pa.Table
    places: dict[str, NDArray[np.int64]]
    """Numbers of the rows of each volume."""

    def of(self, volume_id: str) -> list[dict[str, Any]]:
        """Give the rows of a volume."""
        rows: list[dict[str, Any]] = self.rows.take(pa.array(self.places.get(volume_id, []), pa.int64())).to_pylist()
        return rows


@dataclass(frozen=True)
class Tables:
    """The catalog, as far as it can be read."""

    name: str
    """Of the store."""
    volumes: Table | None
    lesions: Table | None
    generation: Generation | None
    """None where what names them is damaged or lost."""
    known: frozenset[str]
    """Ids of the volumes that the catalog has, or where that cannot be read, as far as other tables tell."""

    def knows(self, key: str) -> bool:
        """Tell whether an object is a table of this catalog, or of the one before; of any, where none is named."""
        return is_of_catalog(key) if self.generation is None else self.generation.knows(key)

    def apart(self) -> Iterator[Issue]:
        """Tell that the two are not of one writing, which each of them says in its metadata."""
        tables = [table for table in (self.volumes, self.lesions) if table]
        marks = {(table.rows.schema.metadata or {}).get(GENERATION) for table in tables}
        if self.generation and self.generation.checksum:
            marks.add(self.generation.checksum.encode())
        if len(tables) == len(TABLES) and len(marks) > 1:
            text = f"{self.name}/{CATALOG}: its two tables do not belong together; {REMEDY}"
            yield Issue("damaged-catalog", "", CATALOG, text)

    def missing(self, there: set[str]) -> Iterator[Issue]:
        """Tell volumes that the catalog has and the store has not, once each."""
        for volume_id in sorted(self.known - there):
            group = f"{layout.volume_key(volume_id)}/{layout.GROUP_FILE}"
            text = f"{self.name}/{group}: missing, and the catalog has the volume; write it anew from its source"
            told = f"{text} (`lesionzarr repair --source`), or, if it is to be gone, {REMEDY}"
            yield Issue("missing-volume", volume_id, group, told)
        if self.lesions:
            for volume_id in sorted(set(self.lesions.places) - there - self.known):
                yield self._issue("stale-lesions", volume_id, self.lesions, "has lesions of a volume that is not there")

    def compare(self, checked: Checked) -> Iterator[Issue]:
        """Tell what the catalog says otherwise than the attributes of a volume."""
        if self.volumes and checked.lesions is not None and checked.volume_id not in self.volumes.places:
            yield self._issue("not-in-catalog", checked.volume_id, self.volumes, "does not have it")
            return
        if self.volumes and checked.row is not None:
            row = {name: checked.row.get(name) for name in VOLUMES.names}
            if _read(self.volumes, checked.volume_id) != [row]:
                yield self._issue("stale-row", checked.volume_id, self.volumes, "says otherwise than its attributes")
        if self.lesions and checked.lesions is not None:
            rows = [{name: row.get(name) for name in LESIONS.names} for row in checked.lesions]
            if _sorted(_read(self.lesions, checked.volume_id)) != _sorted(rows):
                yield self._issue("stale-lesions", checked.volume_id, self.lesions, "has other lesions of it")

    def _issue(self, kind: str, volume_id: str, table: Table, fault: str) -> Issue:
        return Issue(kind, volume_id, table.key, f"{self.name}/{table.key}: volume {volume_id}: it {fault}; {REMEDY}")


def read_tables(location: Location) -> tuple[Tables, list[Issue]]:
    """Read both tables; what cannot be read is told."""
    try:
        generation = read_generation(location)
    except IntegrityError:
        return _unnamed(location, "damaged")
    tables: list[Table | None] = []
    faults: dict[str, str] = {}
    for key, schema in zip(generation.tables, TABLES, strict=True):
        try:
            tables.append(_parse_table(key, read_object(location, key), schema))
        except Fault as fault:
            tables.append(None)
            faults[key] = str(fault)
    if generation.checksum is None and list(faults.values()) == ["missing", "missing"]:
        # no store of the first versions
        return _unnamed(location, "missing")
    volumes, lesions = tables
    known = frozenset(volumes.places) if volumes else _recall(location, lesions)
    issues = [_damaged(location, key, fault) for key, fault in faults.items()]
    return Tables(location.name, volumes, lesions, generation, known), issues


def _unnamed(location: Location, fault: str) -> tuple[Tables, list[Issue]]:
    issues = [_damaged(location, layout.CATALOG_FILE, fault)]
    return Tables(location.name, None, None, None, _recall(location, None)), issues


def _damaged(location: Location, key: str, fault: str) -> Issue:
    return Issue("damaged-catalog", "", key, f"{location.name}/{key}: {fault}; {SAFE_REMEDY}")


def _recall(location: Location, lesions: Table | None) -> frozenset[str]:
    """Give the volumes of a catalog whose own table of them is lost, by the last tables that can be read.

    A volume whose lesions `lesions`, the table that is left, does not have is gone, unless it had none before.
    """
    known = set(lesions.places) if lesions else set()
    for generation in [] if is_web(location) else find_generations(location):
        volumes, older = (_read_whole(location, generation, number) for number in range(len(TABLES)))
        if volumes:
            rows = volumes.rows.select(["volume_id", "lesions"]).to_pylist()
            return frozenset(known | {row["volume_id"] for row in rows if not (lesions and row["lesions"])})
        if older and not lesions:
            lesions, known = older, set(older.places)
    return frozenset(known)


def _read_whole(location: Location, generation: Generation, number: int) -> Table | None:
    """Read a table of a catalog; None unless it is there, and of that catalog."""
    key = generation.tables[number]
    try:
        table = _parse_table(key, read_object(location, key), TABLES[number])
    except Fault:
        return None
    mark = (table.rows.schema.metadata or {}).get(GENERATION, b"").decode("ascii", "replace")
    return table if mark[:12] == generation.checksum else None


def _parse_table(key: str, data: bytes, schema: pa.Schema) -> Table:
    try:
        rows = pq.read_table(
            pa.BufferReader(data), page_checksum_verification=True, pre_buffer=False, use_threads=False
        )
        rows.validate(full=True)
        ids = rows["volume_id"].to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise Fault(f"damaged ({str(error).splitlines()[0]})") from error
    if not rows.schema.equals(schema):
        raise Fault("not the columns of this version, or damaged")
    if None in ids:
        raise Fault("damaged (a row without volume)")
    return Table(key, rows, _places(ids))


def _places(ids: list[str]) -> dict[str, NDArray[np.int64]]:
    numbers: dict[str, list[int]] = {}
    for number, volume_id in enumerate(ids):
        numbers.setdefault(volume_id, []).append(number)
    return {volume_id: np.array(rows) for volume_id, rows in numbers.items()}


def _read(table: Table, volume_id: str) -> list[dict[str, Any]] | None:
    try:
        return table.of(volume_id)
    except ValueError:
        # text that is none
        return None


def _sorted(rows: list[dict[str, Any]] | None) -> list[dict[str, Any]] | None:
    return None if rows is None else sorted(rows, key=lambda row: str(row["lesion_id"]))
