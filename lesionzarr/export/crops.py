"""Crops as Parquet, one row per lesion, for Hugging Face ``datasets`` and all else that reads Parquet.

``image`` is either an array (window, z, y, x), nested lists in the file and ``Array4D`` in ``datasets``; or a PNG,
bytes in the file and ``Image`` in ``datasets``: slices side by side, one row of them per window. Beside it stand the
columns of the lesion table, and ``origin``, the place in the volume, (z, y, x), of the first voxel of the image. The
features are in the metadata of the schema, where ``datasets.load_dataset`` looks for them.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from lesionzarr.errors import GeometryError, IntegrityError, SettingError
from lesionzarr.export.key_slices import UNSPLIT, lesion_issue
from lesionzarr.export.outcome import Exported
from lesionzarr.export.pictures import FALLBACK, mosaic
from lesionzarr.lesion import COLUMNS
from lesionzarr.readers.crop import CropReader
from lesionzarr.store.tables import ARROW
from lesionzarr.window import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Crop
    from lesionzarr.report import Issue
    from lesionzarr.store.catalog import Catalog

ARRAY, PNG = "array", "png"
FORMATS = (ARRAY, PNG)
HU = "hu"
"""In place of windows: HU, int16."""
GROUP_ROWS = 256
GROUP_BYTES = 8 * 2**20
"""Most of both in a row group, which is what is in memory."""
EXTENSION = "datasets.features.features.Array4DExtensionType"
SPLITS = {"val": "validation"}
"""What ``datasets`` calls a split otherwise."""
TYPES = {"str": "string", "int": "int64", "float": "float64", "bool": "bool"}


def export_crops(
    catalog: Catalog,
    lesions: Iterable[Lesion],
    folder: Path,
    *,
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] | None = None,
    window: Any = None,
    image: str = ARRAY,
) -> Exported:
    """Write one Parquet file per split.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store.
    folder
        Where ``data/<split>-00000-of-00001.parquet`` are written, as ``datasets.load_dataset(folder)`` finds them;
        ``unsplit`` holds lesions that the source puts into no split.
    size, spacing_mm
        As of `lesionzarr.CropReader`.
    window
        A window or a list of them; ``"hu"`` for HU; None for the lesion's own, and soft tissue where it has none.
    image
        ``"array"`` or ``"png"``.

    Returns
    -------
    Exported

    Raises
    ------
    SettingError
        A size, spacing, window or format that means nothing; or a PNG of HU.
    NotFoundError
        No window of that name.
    """
    if image not in FORMATS or (image == PNG and window == HU):
        raise SettingError(f"image {image!r} of window {window!r}: 'array', or 'png' of grey levels, is needed")
    windows = {True: OWN, False: FALLBACK} if window is None else dict.fromkeys((True, False), window)
    readers = {
        own: CropReader(catalog, size=size, spacing_mm=spacing_mm, window=None if name == HU else name)
        for own, name in windows.items()
    }
    splits: dict[str, list[Lesion]] = {}
    failed: list[Issue] = []
    for lesion in lesions:
        try:
            readers[lesion.window is not None].request(lesion)
        except (GeometryError, SettingError) as error:
            failed.append(lesion_issue(lesion, error))
        else:
            splits.setdefault(lesion.split or UNSPLIT, []).append(lesion)
    files, written = [], 0
    for split, chosen in splits.items():
        path = folder / "data" / f"{SPLITS.get(split, split)}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows, damaged = _write(path, readers, chosen, image)
        files.append(path)
        failed += damaged
        written += rows
    return Exported(tuple(files), {"lesions": written}, tuple(failed))


def _write(
    path: Path, readers: dict[bool, CropReader], lesions: Sequence[Lesion], image: str
) -> tuple[int, list[Issue]]:
    windows = readers[True].window
    channels = len(windows) if isinstance(windows, (list, tuple)) and not _is_pair(windows) else 1
    dtype = pa.int16() if windows is None else pa.uint8()
    shape = (channels, *readers[True].size)
    schema = _schema(shape, dtype, image)
    rows = max(1, min(GROUP_ROWS, GROUP_BYTES // (int(np.prod(shape)) * (dtype.bit_width // 8))))
    failed: list[Issue] = []
    written = 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=list(COLUMNS)) as writer:
        for start in range(0, len(lesions), rows):
            crops = list(_read(readers, lesions[start : start + rows], failed))
            if crops:
                writer.write_table(_table(crops, schema, image), row_group_size=rows)
                written += len(crops)
    return written, failed


def _is_pair(window: Sequence[Any]) -> bool:
    return len(window) == 2 and all(isinstance(end, (int, float)) for end in window)


def _read(readers: dict[bool, CropReader], lesions: Sequence[Lesion], failed: list[Issue]) -> Iterator[Crop]:
    """Read lesions together, or one by one where that fails; those that cannot be read are told in `failed`."""
    read: dict[str, Crop] = {}
    for own, reader in readers.items():
        chosen = [lesion for lesion in lesions if (lesion.window is not None) == own]
        if not chosen:
            continue
        try:
            read |= {crop.lesion.lesion_id: crop for crop in reader.read_batch(chosen).crops}
        except IntegrityError:
            for lesion in chosen:
                try:
                    read[lesion.lesion_id] = reader.read(lesion)
                except IntegrityError as error:
                    failed.append(lesion_issue(lesion, error))
    return (read[lesion.lesion_id] for lesion in lesions if lesion.lesion_id in read)


def _table(crops: Sequence[Crop], schema: pa.Schema, image: str) -> pa.Table:
    rows = [crop.lesion.to_row() for crop in crops]
    columns = {name: pa.array([row[name] for row in rows], schema.field(name).type) for name in COLUMNS}
    columns["origin"] = pa.array([list(crop.origin) for crop in crops], schema.field("origin").type)
    if image == PNG:
        pictures = [{"bytes": _png(crop), "path": f"{crop.lesion.lesion_id}.png"} for crop in crops]
        columns["image"] = pa.array(pictures, schema.field("image").type)
    else:
        columns["image"] = _nested(np.stack([crop.image for crop in crops]))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _png(crop: Crop) -> bytes:
    buffer = io.BytesIO()
    mosaic(crop.image).save(buffer, format="PNG")
    return buffer.getvalue()


def _nested(images: np.ndarray[Any, Any]) -> pa.Array:
    """Give an array (row, ...) as lists of lists; its voxels are not copied."""
    nested = pa.array(images.reshape(-1))
    for axis in range(images.ndim - 1, 0, -1):
        lists = int(np.prod(images.shape[:axis]))
        offsets = pa.array(np.arange(lists + 1, dtype=np.int32) * images.shape[axis])
        nested = pa.ListArray.from_arrays(offsets, nested)
    return nested


def _schema(shape: tuple[int, ...], dtype: pa.DataType, image: str) -> pa.Schema:
    fields = [pa.field(name, ARROW[word]) for name, word in COLUMNS.items()]
    features: dict[str, Any] = {name: _feature(word) for name, word in COLUMNS.items()}
    features["origin"] = _feature("tuple[float]")
    features["image"] = (
        {"_type": "Image"} if image == PNG else {"shape": list(shape), "dtype": str(dtype), "_type": "Array4D"}
    )
    told = json.dumps({"info": {"features": features}})
    fields += [pa.field("origin", pa.list_(pa.float64())), _image_field(shape, dtype, image)]
    return pa.schema(fields, metadata={"huggingface": told})


def _image_field(shape: tuple[int, ...], dtype: pa.DataType, image: str) -> pa.Field:
    if image == PNG:
        return pa.field("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))
    stored = dtype
    for _ in shape:
        stored = pa.list_(stored)
    # the extension type of datasets, which need not be installed; without it these are plain lists
    told = json.dumps([list(shape), str(dtype)])
    return pa.field("image", stored, metadata={"ARROW:extension:name": EXTENSION, "ARROW:extension:metadata": told})


def _feature(word: str) -> dict[str, Any]:
    if word.startswith("tuple"):
        return {"feature": _feature(word[6:-1]), "_type": "Sequence"}
    return {"dtype": TYPES[word], "_type": "Value"}
