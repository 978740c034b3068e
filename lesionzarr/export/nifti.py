"""Volumes as NIfTI: HU or grey levels, their masks, and the labels of these, in the layout of recist-dataset.

Equal in content to ``normalize_ct_images.py`` (windowed images, by one window or by that of each series) and
``get_nifti_metadata.py`` (``metadata.json`` and ``resolution.csv``) of robertorojasp06/recist-dataset.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import SettingError, SourceError
from lesionzarr.formats.archive import iter_files
from lesionzarr.formats.nifti import header_fields, nifti_head, read_fields, read_nifti_header, write_nifti
from lesionzarr.report import Issue
from lesionzarr.store.layout import KINDS
from lesionzarr.window import Window, apply_window, resolve_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike

WINDOW, UPSTREAM = "window", "upstream"
LEVELS = (WINDOW, UPSTREAM)
"""What grey levels go from and to: the ends of the window; or the least and the greatest voxel once they are clipped to
it, as ``normalize_ct_images.py`` has it, which is the same where the voxels reach both ends."""
EPSILON = 1e-6
"""What upstream adds to both sides of its fraction."""
DEPTH = 8
"""Folder levels that are searched for images."""
RESOLUTION = {
    "rows": "dim[2]",
    "columns": "dim[1]",
    "slices": "dim[3]",
    "row_spacing_mm": "pixdim[2]",
    "column_spacing_mm": "pixdim[1]",
    "slice_spacing_mm": "pixdim[3]",
}
"""Columns of ``resolution.csv``, and the field of the header that each is."""


def export_nifti(
    catalog: Catalog,
    volume_id: str,
    folder: Path,
    *,
    window: WindowLike | None = None,
    dtype: str = "uint8",
    levels: str = WINDOW,
) -> list[Path]:
    """Write a volume as NIfTI, and its mask and labels beside it.

    Parameters
    ----------
    catalog
        The store.
    volume_id
        Which volume.
    folder
        Where ``images``, ``masks`` and ``labels`` are made; images and masks are on the same grid.
    window
        Grey-level window: a preset name, (low, high) in HU, ``"dicom"`` for that of the source (of recist-dataset
        windows_mapping.json), or None for the voxels as they are stored.
    dtype
        Of windowed images: ``"uint8"`` or ``"float32"``.
    levels
        ``"window"``: grey levels go from the low to the high end of the window, whatever values the volume has.
        ``"upstream"``: from the least to the greatest value of the volume inside the window, to compare with what
        recist-dataset's script makes; uint8.

    Returns
    -------
    list of Path
        The files: image; where there is a mask also that and the labels, a JSON object of value to label.

    Raises
    ------
    NotFoundError
        No volume of that id, or no such preset.
    SettingError
        A data type that windows do not give, a window for PET, ``"dicom"`` where the source gives none, or upstream's
        levels without a window or as float32.
    IntegrityError
        The volume is damaged.
    """
    stored, grid = catalog.array(volume_id), catalog.grid(volume_id)
    if dtype not in {"uint8", "float32"} or (window is not None and stored.modality != "CT"):
        raise SettingError(f"volume {volume_id} ({stored.modality}), window {window!r}, {dtype}: cannot be exported")
    if levels not in LEVELS or (levels == UPSTREAM and (window is None or dtype != "uint8")):
        raise SettingError(f"levels {levels!r}, window {window!r}, {dtype}: upstream's levels need a window and uint8")
    chosen = None if window is None else resolve_window(window, _own_window(stored.tags))
    voxels: NDArray[Any] = catalog.volume(volume_id)[KINDS[stored.modality].array].to_numpy()
    if chosen is not None:
        voxels = _upstream_levels(voxels, chosen) if levels == UPSTREAM else apply_window(voxels, chosen, dtype)
    paths = [folder / "images" / f"{volume_id}.nii.gz"]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_nifti(paths[0], voxels, grid)
    if catalog.mask_array(volume_id) is not None:
        paths += [folder / "masks" / f"{volume_id}.nii.gz", folder / "labels" / f"{volume_id}.json"]
        for path in paths[1:]:
            path.parent.mkdir(parents=True, exist_ok=True)
        write_nifti(paths[1], catalog.mask(volume_id).to_numpy(), grid)
        paths[2].write_text(json.dumps(_labels(catalog, volume_id), indent=1), encoding="utf-8")
    return paths


def resolution_table(catalog: Catalog) -> pd.DataFrame:
    """Give size and resolution of every volume, with the columns of ``resolution.csv`` of recist-dataset.

    Parameters
    ----------
    catalog
        The store.

    Returns
    -------
    pandas.DataFrame
        One row per volume: filename, rows, columns, slices, row_spacing_mm, column_spacing_mm and slice_spacing_mm (NaN
        where it is unknown).
    """
    volumes = catalog.volumes
    columns: dict[str, Any] = {"filename": [f"{volume_id}.nii.gz" for volume_id in volumes.index]}
    columns |= {name: volumes[name].to_numpy() for name in ("rows", "columns", "slices")}
    named = {"row": "y", "column": "x", "slice": "z"}
    columns |= {f"{name}_spacing_mm": volumes[f"spacing_{axis}_mm"].to_numpy() for name, axis in named.items()}
    return pd.DataFrame(columns)


def headers_of_store(catalog: Catalog) -> list[dict[str, str]]:
    """Give the header of every volume as `export_nifti` writes it, by the names of ``metadata.json`` of recist-dataset.

    Returns
    -------
    list of dict
        ``filename``, then the fields that SimpleITK tells (`lesionzarr.formats.nifti.header_fields`).
    """
    rows = []
    for volume_id in catalog.volumes.index:
        dtype = np.dtype(json.loads(catalog.volumes["array"][volume_id])["data_type"])
        name = f"{volume_id}.nii.gz"
        rows.append({"filename": name, **header_fields(nifti_head(dtype, catalog.grid(volume_id)), name)})
    return rows


def headers_of_files(root: Path) -> tuple[list[dict[str, str]], list[Issue]]:
    """Read the headers of NIfTI images as they lie, by the names of ``metadata.json`` of recist-dataset.

    Parameters
    ----------
    root
        Folder, with those in it, or zip; files in folders called ``masks`` are left out.

    Returns
    -------
    list of dict
        ``filename``, ``orientation`` (where the stored axes grow to, such as ``"LAS"``; empty where that is not told),
        then the fields.
    list of Issue
        Files that cannot be read.

    Raises
    ------
    SourceError
        There is no such folder or zip.
    """
    rows, failed = [], []
    for file in iter_files(root, DEPTH):
        if not file.name.endswith((".nii", ".nii.gz")) or "masks" in file.name.split("/")[:-1]:
            continue
        try:
            codes = read_nifti_header(file).codes or ""
            rows.append({"filename": file.name.rsplit("/", 1)[-1], "orientation": codes, **read_fields(file)})
        except SourceError as error:
            failed.append(Issue("bad-image", file.name, file.name, str(error)))
    return rows, failed


def resolution_of_headers(headers: list[dict[str, str]]) -> pd.DataFrame:
    """Give size and resolution by header, as `resolution_table`; ``resolution.csv`` of recist-dataset is made so."""
    rows = [
        {"filename": row["filename"]}
        | {name: float(row[field]) if name.endswith("mm") else int(row[field]) for name, field in RESOLUTION.items()}
        for row in headers
    ]
    return pd.DataFrame(rows, columns=["filename", *RESOLUTION])


def _upstream_levels(hu: NDArray[Any], window: Window) -> NDArray[np.uint8]:
    """Give the grey levels of recist-dataset's script: slice by slice, since nothing but the limits is of the whole."""
    least, greatest = (float(np.clip(end, window.low, window.high)) for end in (hu.min(), hu.max()))
    grey = np.empty(hu.shape, dtype=np.uint8)
    for plane, out in zip(hu, grey, strict=True):
        clipped = np.clip(plane.astype(np.float64), window.low, window.high)
        out[...] = (clipped - least + EPSILON) / (greatest - least + EPSILON) * 255.0
    return grey


def _own_window(tags: dict[str, Any]) -> Window | None:
    level, width = tags.get("WindowCenter"), tags.get("WindowWidth")
    return None if level is None or width is None else Window.from_level(float(level), float(width))


def _labels(catalog: Catalog, volume_id: str) -> dict[str, str]:
    """Give the label of each value of a mask, as the source writes it."""
    ids = catalog.lesions.index[catalog.lesions["volume_id"] == volume_id]
    lesions = [lesion for lesion in catalog.find_lesions(list(ids)) if lesion.mask_label is not None]
    return {
        str(lesion.mask_label): str(lesion.extras["label"])
        for lesion in sorted(lesions, key=lambda lesion: lesion.mask_label or 0)
        if lesion.extras.get("label")
    }
