"""Tables as Parquet objects of a store."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import IntegrityError, StoreError

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


def write_table(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    """Give rows as Parquet; columns that the schema lacks are left out."""
    kept = [{name: row.get(name) for name in schema.names} for row in rows]
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(kept, schema=schema), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()


def write_frame(frame: pd.DataFrame, schema: pa.Schema) -> bytes:
    """Give a table as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pandas(frame, schema=schema, preserve_index=False),
        buffer,
        compression="zstd",
        write_page_checksum=True,
    )
    return buffer.getvalue()


def read_table(location: Location, key: str, index: str) -> pd.DataFrame:
    """Read a table of a store, indexed by one of its columns; StoreError where it is missing or damaged."""
    data = location.read(key)
    if data is None:
        raise StoreError(f"{location.name}: no {key}; the conversion did not end: run it again, or `lesionzarr index`")
    try:
        table = pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise IntegrityError(f"{location.name}/{key}: damaged ({error}); run `lesionzarr index`") from error
    frame: pd.DataFrame = table.to_pandas(types_mapper=NULLABLE.get)
    return frame.set_index(index)
