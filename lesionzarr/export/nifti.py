"""Volumes as NIfTI: HU or grey levels, their masks, and the labels of these, in the layout of recist-dataset."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.formats.nifti import write_nifti
from lesionzarr.store.layout import KINDS
from lesionzarr.window import Window, apply_window, resolve_window

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike


def export_nifti(
    catalog: Catalog, volume_id: str, folder: Path, *, window: WindowLike | None = None, dtype: str = "uint8"
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
        windows_mapping.json), or None for the voxels as they are stored. Grey levels go from the low to the high end of
        the window, whatever values the volume has.
    dtype
        Of windowed images: ``"uint8"`` or ``"float32"``.

    Returns
    -------
    list of Path
        The files: image; where there is a mask also that and the labels, a JSON object of value to label.

    Raises
    ------
    NotFoundError
        No volume of that id, or no such preset.
    SettingError
        A data type that windows do not give, a window for PET, or ``"dicom"`` where the source gives none.
    IntegrityError
        The volume is damaged.
    """
    stored, grid = catalog.array(volume_id), catalog.grid(volume_id)
    if dtype not in {"uint8", "float32"} or (window is not None and stored.modality != "CT"):
        raise SettingError(f"volume {volume_id} ({stored.modality}), window {window!r}, {dtype}: cannot be exported")
    chosen = None if window is None else resolve_window(window, _own_window(stored.tags))
    voxels: NDArray[Any] = catalog.volume(volume_id)[KINDS[stored.modality].array].to_numpy()
    grey = voxels if chosen is None else apply_window(voxels, chosen, dtype)
    paths = [folder / "images" / f"{volume_id}.nii.gz"]
    paths[0].parent.mkdir(parents=True, exist_ok=True)
    write_nifti(paths[0], grey, grid)
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
