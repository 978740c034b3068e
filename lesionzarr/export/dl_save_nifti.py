"""Volumes as NIfTI with the axes that ``DL_save_nifti.py`` of the DeepLesion release gives them.

The stored axes are (row, column, slice), where most NIfTI files have (column, row, slice): ``get_fdata()[y, x, z]`` is
the pixel of the PNG, without a transposition, and MedSAM2's arrays, made from such files, are transposed for it. The
affine says so, so that viewers show the volume the right way up: rows to the back, columns to the left, slices to the
feet (nibabel's axis codes are PLI). Its origin is the first voxel. int16 HU, in ``<series>_<first>-<last>.nii.gz``.

Upstream takes the spacing of the first row of the table for all sub-volumes of a series; here each has its own, which
differs in series such as 003247_02_01.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lesionzarr.errors import SettingError
from lesionzarr.formats.nifti import write_nifti
from lesionzarr.geometry import Grid, Region
from lesionzarr.readers._zarr import read_region
from lesionzarr.store.layout import KINDS

if TYPE_CHECKING:
    from pathlib import Path

    from lesionzarr.store.catalog import Catalog


def export_dl_nifti(catalog: Catalog, volume_id: str, folder: Path) -> list[Path]:
    """Write a volume as ``DL_save_nifti.py`` does.

    Parameters
    ----------
    catalog
        The store.
    volume_id
        Of CT. One with a place in the scanner keeps it: the axes are exchanged in its affine too.
    folder
        Where ``<volume_id>.nii.gz`` is written.

    Returns
    -------
    list of Path
        The file.

    Raises
    ------
    NotFoundError
        No volume of that id.
    SettingError
        A volume of PET.
    IntegrityError
        The volume is damaged.
    """
    grid, modality = catalog.grid(volume_id), catalog.array(volume_id).modality
    if modality != "CT":
        raise SettingError(f"volume {volume_id} ({modality}): DL_save_nifti writes HU; use the other convention")
    hu = read_region(catalog.location, volume_id, Region((0, 0, 0), grid.shape), KINDS[modality].array)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{volume_id}.nii.gz"
    write_nifti(path, hu.transpose(0, 2, 1), _exchange(grid))
    return [path]


def _exchange(grid: Grid) -> Grid:
    """Let rows and columns change places."""
    (slices, rows, columns), (z, y, x), words = grid.shape, grid.spacing_mm, grid.orientation
    affine = grid.affine and tuple((along_z, along_x, along_y, at) for along_z, along_y, along_x, at in grid.affine)
    return Grid((slices, columns, rows), (z, x, y), words and (words[0], words[2], words[1]), affine)
