"""Objects of masks before small ones were taken away: those of upstream's table, or counted in masks of categories."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import iter_files
from lesionzarr.formats.instances import LEAST_SLICES, LEAST_VOXELS, find_instances, split_instances
from lesionzarr.formats.nifti import read_nifti_mask
from lesionzarr.formats.table import read_csv
from lesionzarr.report import Issue
from lesionzarr.series import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

COLUMNS = ("size_voxels", "slices_count", "removed")
WORDS = {"true": True, "false": False, "1": True, "0": False}
NIFTI = (".nii", ".nii.gz")
MASKS = "masks"
"""Folder of the masks in every layout of recist-dataset."""
DEPTH = 8
"""Folder levels that are searched."""


def read_objects(paths: Iterable[Path]) -> tuple[pd.DataFrame, list[Issue]]:
    """Read or count objects.

    Parameters
    ----------
    paths
        ``objects_results.csv``, NIfTI masks of categories, or folders with such masks.

    Returns
    -------
    pandas.DataFrame
        One row per object: `COLUMNS`, as `lesionzarr.features.statistics.summarise` takes them.
    list of Issue
        Masks that cannot be read, and rows without a number; they are left out.

    Raises
    ------
    SourceError
        A table that cannot be read or lacks a column, or a folder without masks.
    MissingExtraError
        cc3d, which finds the objects of a mask, is not installed.
    """
    rows: list[dict[str, Any]] = []
    failed: list[Issue] = []
    for path in paths:
        if path.suffix == ".csv":
            rows += _read_table(path, failed)
        else:
            rows += _count(path, failed)
    return pd.DataFrame(rows, columns=list(COLUMNS)), failed


def _read_table(path: Path, failed: list[Issue]) -> Iterator[dict[str, Any]]:
    for number, row in enumerate(read_csv(path, COLUMNS)):
        sizes = [row.get(name, "") for name in COLUMNS[:2]]
        removed = WORDS.get(row.get("removed", "").lower())
        if removed is None or not all(size.isdecimal() for size in sizes):
            text = (
                f"{path.name}: row {number} has no whole numbers in size_voxels and slices_count, or no true or false "
            )
            failed.append(Issue("odd-row", f"row {number}", path.name, f"{text}in removed; it is left out"))
        else:
            yield dict(zip(COLUMNS, (*map(int, sizes), removed), strict=True))


def _count(path: Path, failed: list[Issue]) -> Iterator[dict[str, Any]]:
    for file in _find_masks(path):
        try:
            objects, _, _ = split_instances(read_nifti_mask(file), least_voxels=1, least_slices=1)
        except SourceError as error:
            failed.append(Issue("bad-mask", file.name, file.name, f"{error}; its objects are not counted"))
            continue
        for one in find_instances(objects).values():
            removed = one.voxels < LEAST_VOXELS or len(one.areas) < LEAST_SLICES
            yield dict(zip(COLUMNS, (one.voxels, len(one.areas), removed), strict=True))


def _find_masks(path: Path) -> list[SourceFile]:
    if path.is_file() and path.name.endswith(NIFTI):
        found = path.stat()
        return [SourceFile(str(path.parent), path.name, found.st_size, found.st_mtime_ns)]
    if path.is_dir():
        files = [file for file in iter_files(path, DEPTH) if file.name.endswith(NIFTI)]
        # a release has its images beside the masks
        masks = [file for file in files if MASKS in (path.name, *file.name.split("/"))]
        if masks:
            return sorted(masks, key=lambda file: file.name)
    raise SourceError(f"{path}: no objects; name a .csv, a mask as .nii.gz, or a folder with {MASKS}/*.nii.gz in it")
