"""Tables as Parquet objects of a store."""

from __future__ import annotations

import hashlib
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import IntegrityError, StoreError
from lesionzarr.store import layout
from lesionzarr.store.generations import FIXED, read_generation

if TYPE_CHECKING:
    from lesionzarr.store.location import Location

ARROW: dict[str, pa.DataType] = {
    "str": pa.string(),
    "int": pa.int64(),
    "float": pa.float64(),
    "bool": pa.bool_(),
    "tuple[float]": pa.list_(pa.float64()),
    "tuple[str]": pa.list_(pa.string()),
}
NULLABLE = {pa.int64(): pd.Int64Dtype(), pa.bool_(): pd.BooleanDtype(), pa.string(): pd.StringDtype()}
"""Integers stay integers where values are missing."""

REPEATED = ["array", "mask_array"]
"""Columns of long texts that are the same in most rows: categories in memory."""

PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)
"""Before each further look at a catalog that is just being written."""

GENERATION = b"generation"
"""Name in the metadata of the tables that belong together: a checksum over all of them."""


def make_table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Give rows as a table; columns that the schema lacks are left out."""
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


def write_table(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Give rows as Parquet; columns that the schema lacks are left out."""
    return _write(make_table(rows, schema))


def write_frame(frame: pd.DataFrame, schema: pa.Schema) -> bytes:
    """Give a table as Parquet."""
    return _write(pa.Table.from_pandas(frame, schema=schema, preserve_index=False))


def write_together(tables: list[pa.Table]) -> tuple[str, list[bytes]]:
    """Give tables as Parquet, each with the checksum over all of them, by which they are known to belong together."""
    digest = hashlib.sha256()
    for table in tables:
        digest.update(_write(table))
    generation = digest.hexdigest()
    return generation, [_write(table.replace_schema_metadata({GENERATION: generation})) for table in tables]


def _write(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def read_table(location: Location, key: str, index: str) -> pd.DataFrame:
    """Read a table of a store, indexed by one of its columns; StoreError where it is missing or damaged."""
    return _read_marked(location, key, index)[0]


def _read_marked(location: Location, key: str, index: str) -> tuple[pd.DataFrame, str | None]:
    """Read a table as `read_table`, and what it shares with those that belong to it; None in stores of old versions."""
    data = location.read(key)
    if data is None:
        # only stores of the first versions have them under fixed names
        lost = layout.CATALOG_FILE if key in FIXED else key
        raise StoreError(f"{location.name}: no {lost}; the conversion did not end: run it again, or `lesionzarr index`")
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True, read_dictionary=REPEATED)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{location.name}/{key}: damaged ({error}); run `lesionzarr index`") from error
    generation = (table.schema.metadata or {}).get(GENERATION)
    frame: pd.DataFrame = table.to_pandas(types_mapper=NULLABLE.get)
    del table
    # of a million rows, hundreds of megabytes that are free would be kept for another table
    pa.default_memory_pool().release_unused()
    return frame.set_index(index), generation.decode() if generation else None


def read_catalog(location: Location) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read the tables of lesions and volumes, both of one catalog, also where others are just being written."""
    with ThreadPoolExecutor(1) as pool:
        for pause_s in (*PAUSES_S, None):
            generation = read_generation(location)
            volumes_key, lesions_key = generation.tables
            other = pool.submit(_read_marked, location, volumes_key, "volume_id")
            try:
                lesions, of_lesions = _read_marked(location, lesions_key, "lesion_id")
                volumes, of_volumes = other.result()
            except StoreError:
                if read_generation(location) == generation:
                    raise
                # two more catalogs have been written, and the tables deleted
                continue
            if of_lesions == of_volumes or None in {of_lesions, of_volumes}:
                return lesions, volumes
            # under fixed names each is written on its own
            if pause_s is not None:
                time.sleep(pause_s)
    raise StoreError(f"{location.name}: the two tables of its catalog do not belong together; run `lesionzarr index`")
