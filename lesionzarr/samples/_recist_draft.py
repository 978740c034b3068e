"""A made-up recist-dataset in the making, and the form of the quirks that act on it."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np

from lesionzarr.samples._lesion import add_lesion
from lesionzarr.samples._phantom import phantom
from lesionzarr.samples._recist_dicom import write_series
from lesionzarr.samples._recist_nifti import write_volume
from lesionzarr.samples._recist_plan import SPANISH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.samples._recist_plan import Ellipsoid, Patient, Scan

Layout = Literal["final-formatted", "final", "raw"]

LOWEST_HU: Final = -1024
TARGET_COLUMNS: Final = (
    *("patient_id", "subset", "study_date", "study_uuid", "uuid", "filename", "region", "final_3d_objects"),
    *("lesion_label_value", "lesion_label_alias", "recist_measurement_mm", "study_order"),
)
PATIENT_COLUMNS: Final = (
    *("patient_id", "subset", "first_study_date", "sex", "age", "diagnosis", "histology", "health_insurance"),
)


@dataclass
class Series:
    """One series as it is going to be written."""

    scan: Scan
    order: str = "LAS"
    mask_order: str = "LAS"
    dtype: str = "int16"
    scale: tuple[float, float] = (1.0, 0.0)
    mask_dtype: str = "uint8"
    ending: str = ".nii.gz"
    copies: int = 1
    affine: NDArray[np.float64] = field(default_factory=lambda: np.zeros((3, 4)))
    """Index (z, y, x, 1) to LPS (x, y, z) in mm."""
    mask_shift: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """What is added to the origin of the mask alone, LPS mm."""
    labels: dict[int, str] = field(default_factory=dict)
    edits: list[Callable[[Series, NDArray[Any]], NDArray[Any]]] = field(default_factory=list)
    """Changes of the mask."""
    paths: dict[str, Path] = field(default_factory=dict)
    """Of the images, masks and labels, once they are written."""

    def __post_init__(self) -> None:
        dz, dy, dx = self.scan.spacing_mm
        self.affine = np.array([[0, 0, dx], [0, dy, 0], [dz, 0, 0]], np.float64)
        self.affine = np.column_stack([self.affine, self.scan.corner_mm])
        self.labels = {one.label: f"{one.type},{one.location}" for one in self.scan.lesions}


@dataclass
class Draft:
    """A dataset in the making."""

    folder: Path
    seed: int
    layout: Layout
    patients: list[Patient]
    series: list[Series] = field(default_factory=list)
    series_rows: list[dict[str, Any]] = field(default_factory=list)
    target_rows: list[dict[str, Any]] = field(default_factory=list)
    windows: dict[str, str] = field(default_factory=dict)
    subsets: dict[str, str] = field(default_factory=lambda: {"train": "train", "test": "test"})
    """Names of the folders."""
    spent: set[int] = field(default_factory=set)
    """Numbers of the series that a quirk has changed."""

    def take(self) -> Series:
        """Give a series that no quirk has touched yet, never one of the first patient."""
        for series in self.series:
            if series.scan.patient > 1 and series.scan.number not in self.spent:
                self.spent.add(series.scan.number)
                return series
        raise ValueError("no series is left for a quirk to act on: ask for more patients or fewer quirks")

    def write(self) -> None:
        """Write the files of every series."""
        for series in self.series:
            _write_series(self, series)

    def path(self, series: Series, kind: str, ending: str) -> Path:
        """Say where a file of a series belongs."""
        scan, subset = series.scan, self.subsets[series.scan.subset]
        parts = {"final-formatted": (scan.region,), "raw": ("nifti",), "final": ()}[self.layout]
        return self.folder.joinpath("images", *parts, subset, kind, f"{scan.stem}{ending}")

    def write_tables(self) -> None:
        """Write the four tables."""
        metadata = self.folder / "metadata"
        metadata.mkdir(parents=True, exist_ok=True)
        (metadata / "series.json").write_text(json.dumps(self.series_rows, indent=4), encoding="utf-8")
        (metadata / "windows_mapping.json").write_text(json.dumps(self.windows, indent=4), encoding="utf-8")
        write_csv(metadata / "patients.csv", PATIENT_COLUMNS, [_patient_row(each) for each in self.patients])
        write_csv(self.folder / "recist_measurements.csv", TARGET_COLUMNS, self.target_rows)

    def plan_tables(self) -> None:
        """Fill the rows of the tables, as the series are planned."""
        for series in self.series:
            scan = series.scan
            self.series_rows.append(_series_row(scan))
            self.windows[f"{scan.stem}.nii.gz"] = "lung" if scan.region == "thorax" else "abdomen"
            self.target_rows += [_target_row(scan, one) for one in scan.lesions if one.target]


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity that a dataset can have."""

    name: str
    description: str
    act: Callable[[Draft], None]
    late: bool
    """It acts on files that are written."""


def quirk(description: str, *, late: bool = False) -> Callable[[Callable[[Draft], None]], Quirk]:
    """Make a quirk of a function; the function's name becomes its name."""
    return lambda function: Quirk(function.__name__, description, function, late)


def write_csv(path: Path, columns: tuple[str, ...], rows: list[dict[str, Any]]) -> None:
    """Write a table with some of the columns of its rows."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n", extrasaction="ignore")
        table.writeheader()
        table.writerows(rows)


def draw(seed: int, scan: Scan) -> tuple[NDArray[np.int16], NDArray[np.uint8]]:
    """Draw a series.

    Parameters
    ----------
    seed
        Seed of the dataset.
    scan
        What it shows.

    Returns
    -------
    voxels : ndarray of int16
        (z, y, x), HU; z grows to the head.
    mask : ndarray of uint8
        Value of each lesion; a voxel belongs to the ellipsoid that its centre lies in.
    """
    rng = np.random.default_rng((seed, 11, scan.patient, scan.study, scan.region == "thorax"))
    region: Literal["chest", "abdomen"] = "chest" if scan.region == "thorax" else "abdomen"
    # the phantom's slices go to the feet
    voxels = np.maximum(phantom(scan.shape, scan.spacing_mm, rng, region)[::-1], LOWEST_HU).astype(np.int16)
    mask = np.zeros(scan.shape, np.uint8)
    for one in scan.lesions:
        add_lesion(voxels, scan.spacing_mm, one.centre, one.semi_axes_mm, one.angle, one.hu)
        mask[inside(one, scan)] = one.label
    return voxels, mask


def inside(one: Ellipsoid, scan: Scan) -> NDArray[np.bool_]:
    """Give the voxels, (z, y, x), whose centres lie in a lesion."""
    z, y, x = np.ix_(
        *(
            (np.arange(size) - middle) * step
            for size, middle, step in zip(scan.shape, one.centre, scan.spacing_mm, strict=True)
        )
    )
    along = x * math.cos(one.angle) + y * math.sin(one.angle)
    across = y * math.cos(one.angle) - x * math.sin(one.angle)
    depth, long, short = one.semi_axes_mm
    within: NDArray[np.bool_] = (along / long) ** 2 + (across / short) ** 2 + (z / depth) ** 2 <= 1
    return within


def _write_series(draft: Draft, series: Series) -> None:
    voxels, whole = draw(draft.seed, series.scan)
    mask: NDArray[Any] = whole
    labels = series.labels
    if draft.layout == "raw":
        mask, labels = _categories(mask, labels)
        write_series(draft.folder / "images" / "dicom", series.scan, voxels)
    else:
        series.paths["images"] = draft.path(series, "images", series.ending)
        slope, inter = series.scale
        stored = np.rint((voxels - inter) / slope) if series.scale != (1.0, 0.0) else voxels
        stored = stored.astype(series.dtype)
        write_volume(
            series.paths["images"],
            stored,
            series.affine,
            order=series.order,
            scale=series.scale,
            copies=series.copies,
        )
    for edit in series.edits:
        mask = edit(series, mask)
    affine = series.affine.copy()
    affine[:, 3] += series.mask_shift
    series.paths["masks"] = draft.path(series, "masks", series.ending)
    write_volume(series.paths["masks"], mask.astype(series.mask_dtype), affine, order=series.mask_order)
    series.paths["labels"] = draft.path(series, "labels", ".json")
    series.paths["labels"].parent.mkdir(parents=True, exist_ok=True)
    written = {str(value): text for value, text in labels.items()}
    series.paths["labels"].write_text(json.dumps(written, indent=4), encoding="utf-8")


def _categories(mask: NDArray[np.uint8], labels: dict[int, str]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Give the mask and labels before lesions were told apart: a value for each label, in Spanish."""
    texts = sorted(set(labels.values()))
    numbers = np.zeros(256, np.uint8)
    for value, text in labels.items():
        numbers[value] = 1 + texts.index(text)
    spanish = {number: ",".join((text[0], SPANISH[text[2:]])) for number, text in enumerate(texts, 1)}
    return numbers[mask], spanish


def _series_row(scan: Scan) -> dict[str, Any]:
    slices, rows, columns = scan.shape
    interval, row_mm, column_mm = scan.spacing_mm
    return {
        "id": scan.number + 1,
        "region": scan.region,
        "uuid": scan.uid,
        "study_uuid": scan.study_uid,
        "study_date": f"{scan.day:%Y%m%d}",
        "patient_id": scan.patient,
        "slice_thickness": interval,
        "row_spacing": row_mm,
        "column_spacing": column_mm,
        "slices": slices,
        "rows": rows,
        "columns": columns,
        "slice_spacing": interval,
    }


def _target_row(scan: Scan, one: Ellipsoid) -> dict[str, Any]:
    return {
        "patient_id": scan.patient,
        "subset": scan.subset,
        "study_date": f"{scan.day:%Y%m%d}",
        "study_uuid": scan.study_uid,
        "uuid": scan.uid,
        "filename": f"{scan.stem}.nii.gz",
        "region": scan.region,
        "final_3d_objects": len(scan.lesions),
        "lesion_label_value": one.label,
        "lesion_label_alias": one.alias,
        "recist_measurement_mm": one.measured_mm,
        "study_order": scan.study_order,
    }


def _patient_row(patient: Patient) -> dict[str, Any]:
    cells = (
        *(patient.number, patient.subset, f"{patient.scans[0].day:%Y%m%d}", patient.sex, patient.age),
        *(patient.diagnosis, patient.histology, patient.insurance),
    )
    return dict(zip(PATIENT_COLUMNS, cells, strict=True))
