"""Who is in a made-up recist-dataset, when they were scanned, and what grows in them: decided before any pixel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final, Literal

import numpy as np

from lesionzarr.samples._nbia_plan import uid

Region = Literal["thorax", "abdomen"]

FIELD_MM: Final = 360.0
INTERVAL_MM: Final = 3.0
DIAGNOSES: Final = ("colon cancer", "melanoma", "gastric cancer", "bladder cancer")
INSURANCES: Final = ("public", "private", "uninsured")
SPANISH: Final = {
    "liver": "higado",
    "lung": "pulmon",
    "mediastinum": "mediastino",
    "retroperitoneal": "retroperitoneal",
}

# Where lesions lie in the phantom, in shares of the field of view from its middle: x to the left, y to the back.
_PLACES: Final[dict[Region, tuple[tuple[str, str, float, float], ...]]] = {
    "thorax": (("m", "lung", -0.19, 0.04), ("n", "mediastinum", 0.0, -0.02), ("m", "lung", 0.19, 0.08)),
    "abdomen": (("m", "liver", -0.2, -0.08), ("n", "retroperitoneal", 0.08, 0.06), ("m", "liver", -0.12, 0.14)),
}
_ALIASES: Final[dict[Region, str]] = {"abdomen": "ABC", "thorax": "DEF"}
_HU: Final = {"m": 60.0, "n": 35.0, "t": 50.0}


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A lesion of which everything is known: a voxel belongs to it when its centre lies inside."""

    stem: str
    """Name of the files of its series, without ending."""
    series_uid: str
    patient: int
    label: int
    """Value in the mask."""
    type: str
    """``m`` (metastasis) or ``n`` (lymph node)."""
    location: str
    alias: str
    """Names it over the studies of its patient; an abdomen counts from A, a thorax from D."""
    target: bool
    """It is one of recist_measurements.csv."""
    centre: tuple[float, float, float]
    """(z, y, x) in slices and pixels from 0; z grows to the head, y to the back, x to the left."""
    semi_axes_mm: tuple[float, float, float]
    """Half lengths along z, of the long and of the short axis in the slice."""
    angle: float
    """Direction of the long axis in the slice, in radians from +x towards +y."""
    hu: float

    @property
    def volume_ml(self) -> float:
        """Of the ellipsoid itself, not of its voxels."""
        return 4 / 3 * math.pi * math.prod(self.semi_axes_mm) / 1000

    @property
    def long_mm(self) -> float:
        """Longest diameter in the slice through its centre."""
        return 2 * self.semi_axes_mm[1]

    @property
    def short_mm(self) -> float:
        """Diameter across."""
        return 2 * self.semi_axes_mm[2]

    @property
    def measured_mm(self) -> int:
        """What a reader notes by RECIST 1.1, in whole mm: the short axis of a node, else the long one."""
        return round(self.short_mm if self.type == "n" else self.long_mm)


@dataclass(frozen=True, slots=True)
class Scan:
    """One series."""

    number: int
    """Among those of the dataset."""
    patient: int
    study: int
    """0 for the baseline."""
    region: Region
    subset: str
    """``train`` or ``test``."""
    day: date
    study_uid: str
    uid: str
    shape: tuple[int, int, int]
    """(z, y, x)."""
    spacing_mm: tuple[float, float, float]
    corner_mm: tuple[float, float, float]
    """Centre of the first pixel of the lowest slice: LPS (x, y, z)."""
    stem: str
    lesions: tuple[Ellipsoid, ...]

    @property
    def study_order(self) -> str:
        """As the table of targets writes it."""
        return f"follow-up-{self.study}" if self.study else "baseline"


@dataclass(frozen=True, slots=True)
class Patient:
    """One made-up person."""

    number: int
    subset: str
    sex: str
    age: int
    diagnosis: str
    histology: str
    insurance: str
    scans: tuple[Scan, ...]


def plan(seed: int, patients: int, image_size: int, slices: int, *, prefixed: bool) -> list[Patient]:
    """Decide on patients, studies and lesions.

    Parameters
    ----------
    seed
        Seed of everything random.
    patients
        Number of patients, counted from 1; every third is in the test set and has three studies, others have two.
        Odd ones have a thorax and an abdomen in each study, even ones an abdomen.
    image_size
        Rows and columns.
    slices
        Slices of a series.
    prefixed
        File names begin with the patient.

    Returns
    -------
    list of Patient
        A patient is the same whatever the number of patients after it.
    """
    found: list[Patient] = []
    count = 0
    for number in range(1, patients + 1):
        rng = np.random.default_rng((seed, 7, number))
        found.append(_patient(rng, seed, number, count, (slices, image_size, image_size), prefixed=prefixed))
        count += len(found[-1].scans)
    return found


def _patient(
    rng: np.random.Generator, seed: int, number: int, first: int, shape: tuple[int, int, int], *, prefixed: bool
) -> Patient:
    subset = "train" if number % 3 else "test"
    regions: tuple[Region, ...] = ("thorax", "abdomen") if number % 2 else ("abdomen",)
    day = date(2020, 3, 2) + timedelta(days=int(rng.integers(700)))
    pixel = FIELD_MM / shape[1]
    growths = [[_growth(rng, place) for place in _PLACES[region]] for region in regions]
    scans: list[Scan] = []
    for study in range(2 if number % 3 else 3):
        for region, grown in zip(regions, growths, strict=True):
            series_uid = uid(seed, "recist", number, study, region)
            stem = f"{number:03d}_{series_uid}" if prefixed else series_uid
            corner = (-FIELD_MM / 2, -FIELD_MM / 2 - 120, -400.0 if region == "abdomen" else -100.0)
            lesions = [
                _ellipsoid((stem, series_uid, number), label, alias, place, each, study, shape)
                for label, (alias, place, each) in enumerate(
                    zip(_ALIASES[region], _PLACES[region], grown, strict=True), 1
                )
            ]
            scans.append(
                Scan(
                    number=first + len(scans),
                    patient=number,
                    study=study,
                    region=region,
                    subset=subset,
                    day=day + timedelta(days=70 * study),
                    study_uid=uid(seed, "recist", number, study),
                    uid=series_uid,
                    shape=shape,
                    spacing_mm=(INTERVAL_MM, pixel, pixel),
                    corner_mm=corner,
                    stem=stem,
                    lesions=tuple(lesions),
                )
            )
    return Patient(
        number=number,
        subset=subset,
        sex="FM"[int(rng.integers(2))],
        age=int(rng.integers(35, 80)),
        diagnosis=DIAGNOSES[int(rng.integers(len(DIAGNOSES)))],
        histology="Adenocarcinoma" if rng.integers(2) else "",
        insurance=INSURANCES[int(rng.integers(len(INSURANCES)))],
        scans=tuple(scans),
    )


@dataclass(frozen=True, slots=True)
class _Growth:
    """How a lesion looks at the baseline, and by what its lengths are multiplied from study to study."""

    semi_axes_mm: tuple[float, float, float]
    shift: tuple[float, float, float]
    angle: float
    factor: float


def _growth(rng: np.random.Generator, place: tuple[str, str, float, float]) -> _Growth:
    long = float(rng.uniform(11, 17)) if place[0] == "n" else float(rng.uniform(12, 20))
    short = long * float(rng.uniform(0.65, 0.9))
    return _Growth(
        (float(rng.uniform(9, 13)), long, short),
        (float(rng.uniform(-0.1, 0.1)), float(rng.uniform(-1, 1)), float(rng.uniform(-1, 1))),
        float(rng.uniform(0, math.pi)),
        float(rng.choice((0.8, 0.95, 1.2))),
    )


def _ellipsoid(
    series: tuple[str, str, int],
    label: int,
    alias: str,
    place: tuple[str, str, float, float],
    grown: _Growth,
    study: int,
    shape: tuple[int, int, int],
) -> Ellipsoid:
    kind, location, x, y = place
    depth, rows, columns = shape
    up, down, aside = grown.shift
    factor = grown.factor**study
    axes = tuple(half * factor for half in grown.semi_axes_mm)
    return Ellipsoid(
        *series,
        label,
        kind,
        location,
        alias,
        label < 3,
        ((0.5 + up) * (depth - 1), (0.5 + y) * rows + down, (0.5 + x) * columns + aside),
        (axes[0], axes[1], axes[2]),
        grown.angle,
        _HU[kind],
    )
