"""What is unusual in how an image of recist-dataset is stored, and where tables, folders and files contradict."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from lesionzarr.converters._recist_tables import PATIENTS, SERIES, TARGETS
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.converters._recist_files import Files
    from lesionzarr.converters._recist_lesions import Place
    from lesionzarr.converters._recist_tables import Tables
    from lesionzarr.formats.nifti import NiftiHeader
    from lesionzarr.geometry import Grid

USUAL_AXES, USUAL_DTYPE = "LAS", "int16"
"""As dcm2niix stores axial CT."""
SAME_LENGTH = 1e-3
"""Lengths are the same within this share of them: tables round, and pixdim has 32 bits."""

Told = tuple[str, str | float | None]
"""Who tells something, and what."""


def storage_issue(files: Files, image: NiftiHeader | None, mask: NiftiHeader | None, grid: Grid) -> Issue | None:
    """Say how an image is stored where that is not as dcm2niix does it.

    Parameters
    ----------
    files
        Of the series.
    image
        Header of its NIfTI; None where it is DICOM.
    mask
        Header of its mask, where it has one.
    grid
        That the image is read on.
    """
    axes = (image.codes if image else None) or USUAL_AXES
    told: list[str] = []
    if image is not None and files.images is not None:
        told += [f"axes {axes}"] if axes != USUAL_AXES else []
        told += [image.dtype.name] if image.dtype.name != USUAL_DTYPE else []
        told += [f"scl_slope {image.slope:g}"] if image.slope != 1 else []
        told += [f"scl_inter {image.inter:g}"] if image.inter != 0 else []
        told += ["not packed"] if files.images.name.endswith(".nii") else []
    _, row_mm, column_mm = grid.spacing_mm
    if row_mm and column_mm and not _is_same(row_mm, column_mm):
        told.append(f"pixels {row_mm:g} mm high and {column_mm:g} mm wide")
    if mask is not None:
        told += [f"mask with axes {mask.codes}"] if mask.codes not in {None, axes} else []
        told += [f"mask of {mask.dtype.name}"] if mask.dtype.kind == "f" else []
    told += [f"{files.suffix!r} of dcm2niix in its name"] if files.suffix else []
    if not told:
        return None
    text = f"{files.stem}: stored with {', '.join(told)}; it is read as any other"
    return Issue("unusual-storage", files.stem, files.images.name if files.images else "", text)


def contradiction_issue(
    place: Place, files: Files | None, grid: Grid, tables: Tables, lesions: int | None
) -> Issue | None:
    """Say where tables, folders, names and the image do not agree on a series.

    Parameters
    ----------
    place
        The volume.
    files
        Of the series, whose folders and names tell something too.
    grid
        Of the image.
    tables
        What each says.
    lesions
        In its mask; None where that is not to be compared.
    """
    row, rows = place.row, tables.measured.get(place.series_id, [])
    patient = tables.patients.get(place.patient_id or "")
    main = SERIES if row and row.is_listed else TARGETS
    z, y, x = row.spacing_mm if row else (None, None, None)
    told: dict[str, list[Told]] = {
        "subset": [("folder", place.split), (PATIENTS, patient.subset if patient else None)],
        "region": [("folder", files.region if files else None), (main, row.region if row else None)],
        "patient": [(main, row.patient_id if row else None), ("name", files.patient_id if files else None)],
        "study": [(main, row.study_id if row else None)],
        "study date": [(main, row.study_date if row else None)],
        "slice spacing": [("image", grid.spacing_mm[0]), (SERIES, z)],
        "row spacing": [("image", grid.spacing_mm[1]), (SERIES, y)],
        "column spacing": [("image", grid.spacing_mm[2]), (SERIES, x)],
        "lesions": [("mask", lesions)],
    }
    for each in rows:
        told["subset"].append((TARGETS, each.subset))
        told["region"].append((TARGETS, each.region))
        told["patient"].append((TARGETS, each.patient_id))
        told["study"].append((TARGETS, each.study_id))
        told["study date"].append((TARGETS, each.study_date))
        if lesions is not None:
            told["lesions"].append((TARGETS, each.objects))
    texts = [text for name, values in told.items() if (text := _contradiction(name, values))]
    day, first = row.study_date if row else None, patient.first_date if patient else None
    if day and first and day < first:
        texts.append(f"study date {day} ({main}), first study {first} ({PATIENTS})")
    if not texts:
        return None
    text = f"{place.volume_id}: {'; '.join(texts)}; what is named first is stored"
    return Issue("contradiction", place.volume_id, "", text)


def _contradiction(name: str, told: Sequence[Told]) -> str | None:
    """Write what several tell of one thing, unless they agree."""
    unlike: list[tuple[str, str | float]] = []
    for who, value in told:
        if value is not None and not any(_is_same(value, other) for _, other in unlike):
            unlike.append((who, value))
    if len(unlike) < 2:
        return None
    return f"{name} {', '.join(f'{_write(value)} ({who})' for who, value in unlike)}"


def _write(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:g}"


def _is_same(one: str | float, other: str | float) -> bool:
    if isinstance(one, str) or isinstance(other, str):
        return one == other
    return math.isclose(one, other, rel_tol=SAME_LENGTH)
