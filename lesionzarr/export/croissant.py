"""Croissant metadata of a store: what a dataset is and what its tables hold, as JSON-LD for search engines.

MLCommons Croissant, format specification 1.0 (http://mlcommons.org/croissant/1.0). The record sets are the two tables
of the catalog, which are Parquet. The format has no word for Zarr: the volumes table says which group holds the voxels.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lesionzarr.errors import StoreError
from lesionzarr.lesion import COLUMNS
from lesionzarr.store.generations import read_generation
from lesionzarr.store.index import VOLUMES
from lesionzarr.store.tables import ARROW

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lesionzarr.store.catalog import Catalog

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""As appendix 1 of the specification has it."""

LICENCES = {
    "CC BY 4.0": "https://creativecommons.org/licenses/by/4.0/",
    "CC BY 3.0": "https://creativecommons.org/licenses/by/3.0/",
}
PARQUET = "application/x-parquet"
DATA_TYPES = {pa.string(): "sc:Text", pa.int64(): "sc:Integer", pa.float64(): "sc:Float", pa.bool_(): "sc:Boolean"}
MEANINGS = {
    "lesion_id": "Unique in the store, and the same whenever the same source is converted",
    "volume_id": "Volume that the finding lies in; its group is volumes/<volume_id>",
    "key_z": "Row (along z, from 0) of the slice that the mark was drawn on",
    "x0": "Left end of the box in pixels: from 0, pixel centres on whole numbers, ends inclusive",
    "recist": "x, y of both ends of the long axis, then of the short one, in pixels",
    "long_mm": "Length of the long axis",
    "short_mm": "Length of the short axis",
    "split": "train, val or test",
}


def croissant(catalog: Catalog, url: str | None = None) -> dict[str, Any]:
    """Describe a store.

    Parameters
    ----------
    catalog
        The store.
    url
        Where it is published, such as ``https://example.org/deeplesion.zarr``; None for names relative to the
        file, which then belongs into the folder of the store.

    Returns
    -------
    dict
        JSON-LD.

    Raises
    ------
    StoreError
        A table of the catalog cannot be read.
    """
    info = catalog.info
    base = "" if url is None else url.rstrip("/") + "/"
    licence = str(info.get("licence"))
    lesion_types = {name: ARROW[word] for name, word in COLUMNS.items()}
    volumes_key, lesions_key = read_generation(catalog.location).tables
    volume_types = {field.name: field.type for field in VOLUMES if field.name in {"volume_id", *catalog.volumes}}
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": str(info.get("title")),
        "description": f"{info.get('title')} as Zarr: {len(catalog.volumes)} volumes in OME-Zarr 0.5, and a table of "
        f"{len(catalog)} lesions with boxes, axes and labels.",
        "citeAs": str(info.get("citation")),
        "license": LICENCES.get(licence, licence),
        "version": "1.0.0",
        "datePublished": str(info.get("created")),
        **({} if url is None else {"url": url}),
        "distribution": [
            _table_file(catalog, "lesions", lesions_key, base),
            _table_file(catalog, "volumes", volumes_key, base),
        ],
        "recordSet": [
            _record_set("lesions", lesion_types, "lesion_id"),
            _record_set("volumes", volume_types, "volume_id"),
        ],
    }


def to_json(content: Mapping[str, Any]) -> str:
    """Give the description as text."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def _table_file(catalog: Catalog, name: str, key: str, base: str) -> dict[str, Any]:
    data = catalog.location.read(key)
    if data is None:
        raise StoreError(f"{catalog.location.name}: no {key}; run `lesionzarr index`")
    return {
        "@type": "cr:FileObject",
        "@id": f"{name}.parquet",
        "name": f"{name}.parquet",
        "contentUrl": base + key,
        "contentSize": f"{len(data)} B",
        "encodingFormat": PARQUET,
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _record_set(name: str, columns: Mapping[str, pa.DataType], key: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, column, dtype) for column, dtype in columns.items()],
    }


def _field(name: str, column: str, dtype: pa.DataType) -> dict[str, Any]:
    is_list = pa.types.is_list(dtype)
    field: dict[str, Any] = {
        "@type": "cr:Field",
        "@id": f"{name}/{column}",
        "name": column,
        "dataType": DATA_TYPES[dtype.value_type if is_list else dtype],
        "source": {"fileObject": {"@id": f"{name}.parquet"}, "extract": {"column": column}},
    }
    if is_list:
        field["repeated"] = True
    if column in MEANINGS:
        field["description"] = MEANINGS[column]
    return field
