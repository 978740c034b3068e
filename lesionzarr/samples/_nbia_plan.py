"""Who is in a made-up Lung-PET-CT-Dx and how they were scanned: decided before any pixel is made."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from hashlib import sha256
from typing import Final
from uuid import UUID

import numpy as np

LETTERS: Final = "ABEG"
"""Adenocarcinoma, small cell, large cell and squamous cell carcinoma."""

F18_HALF_LIFE_S: Final = 6586.2
CT_INTERVAL_MM: Final = 5.0
PET_INTERVAL_MM: Final = 3.0
# A PET sees a wider field than the CT and a little beyond both of its ends.
_PET_FIELD: Final = 1.25
_PET_MARGIN: Final = 2


@dataclass(frozen=True, slots=True)
class Scanner:
    """What one manufacturer writes into its files; the first of two stands for lung, the second for soft tissue."""

    manufacturer: str
    model: str
    study_description: str
    series_descriptions: tuple[str, str]
    kernels: tuple[str, str]
    windows: tuple[tuple[str, str], tuple[str, str]]
    """Window Center and Window Width as text, for some pad numbers with zeros."""


_SCANNERS: Final = (
    Scanner(
        "SIEMENS",
        "Sensation 16",
        "Thorax^AThoraxRoutine (Adult)",
        ("ThoraxRoutine  5.0.0  B70f", "ThoraxRoutine  5.0.0  B40f"),
        ("B70f", "B40f"),
        (("-600\\50", "1200\\350"), ("50\\-600", "350\\1200")),
    ),
    Scanner(
        "Philips",
        "Brilliance16",
        "Chest",
        ("5mm", "5mm"),
        ("L", "B"),
        (("-0600\\-0600", "01600\\01600"), ("00040\\00040", "00350\\00350")),
    ),
    Scanner(
        "GE MEDICAL SYSTEMS",
        "LightSpeed VCT",
        "Chest CT",
        ("Recon 2: LUNG", "5.0mm STD"),
        ("LUNG", "STANDARD"),
        (("-700", "1400"), ("40", "350")),
    ),
)


@dataclass(frozen=True, slots=True)
class Raster:
    """Where the pixels of an axial series lie. Rows run to the back, columns to the left, slices to the feet."""

    count: int
    size: int
    """Number of rows and of columns."""
    pixel_mm: float
    interval_mm: float
    corner_mm: tuple[float, float, float]
    """Centre of the first pixel of the topmost slice: LPS (x, y, z)."""

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """(z, y, x)."""
        return self.interval_mm, self.pixel_mm, self.pixel_mm

    @property
    def shape(self) -> tuple[int, int, int]:
        """(z, y, x)."""
        return self.count, self.size, self.size

    def position(self, row: int) -> tuple[float, float, float]:
        """Give LPS (x, y, z) of the first pixel of a slice, counted from the topmost."""
        x, y, z = self.corner_mm
        return x, y, round(z - row * self.interval_mm, 4)

    def index(self, point_mm: tuple[float, float, float]) -> tuple[float, float, float]:
        """Give (z, y, x) in slices and pixels of a point in LPS (x, y, z)."""
        x, y, z = point_mm
        left, front, top = self.corner_mm
        return (top - z) / self.interval_mm, (y - front) / self.pixel_mm, (x - left) / self.pixel_mm


@dataclass(frozen=True, slots=True)
class Tumour:
    """The one lesion of a subject."""

    centre_mm: tuple[float, float, float]
    """LPS (x, y, z)."""
    semi_axes_mm: tuple[float, float, float]
    """Half lengths along z, of the long and of the short axis."""
    angle: float
    """Direction of the long axis, in radians from +x towards +y."""
    hu: float
    suv: float
    """Uptake at the centre."""


@dataclass(frozen=True, slots=True)
class Clinical:
    """A subject's row of the clinical sheet; None is an empty cell."""

    age: int | None
    weight_kg: int | None
    stages: tuple[str | int, int, str | int]
    """T, N and M."""
    grading: str | None
    smoking: int


@dataclass(frozen=True, slots=True)
class Subject:
    """One made-up person with one study."""

    number: int
    """Position in the plan; it seeds the pixels, so that a quirk of one subject leaves the others as they are."""
    letter: str
    """One of `LETTERS`."""
    serial: int
    sex: str
    age: int
    weight_kg: float
    height_m: float
    day: date
    scanner: Scanner
    ct: Raster
    pet: Raster | None
    uptake_s: int
    """Time between injection and the start of the PET series."""
    dose_bq: float
    tumour: Tumour
    clinical: Clinical

    @property
    def short_id(self) -> str:
        """As annotations and clinical sheet name the subject."""
        return f"{self.letter}{self.serial:04d}"

    @property
    def patient_id(self) -> str:
        """As the images name the subject."""
        return f"Lung_Dx-{self.short_id}"

    @property
    def suv_bqml(self) -> float:
        """Activity concentration of SUV 1 by body weight at the start of the PET series, in Bq/ml."""
        return self.dose_bq * 2 ** (-self.uptake_s / F18_HALF_LIFE_S) / (1000 * self.weight_kg)


def uid(*parts: object) -> str:
    """Give the UID of a thing: always the same for the same parts.

    The form is that of a UUID (DICOM PS3.5, B.2), which needs no registered root.
    """
    digest = sha256("/".join(map(str, parts)).encode()).digest()
    return f"2.25.{UUID(bytes=digest[:16], version=5).int}"


def plan(seed: int, subjects: int, image_size: int, slices: int) -> list[Subject]:
    """Decide on subjects and scans.

    Parameters
    ----------
    seed
        Seed of everything random.
    subjects
        Number of subjects. The letters take turns; every second subject, from the second on, has a PET.
    image_size
        Rows and columns of a CT slice. Those of a PET are half as many.
    slices
        Slices of a CT series.

    Returns
    -------
    list of Subject
        A subject is the same whatever the number of subjects after it.
    """
    return [_plan_subject(np.random.default_rng((seed, 0, n)), n, image_size, slices) for n in range(subjects)]


def _plan_subject(rng: np.random.Generator, number: int, image_size: int, slices: int) -> Subject:
    field_mm = int(rng.integers(310, 381))
    middle = tuple(float(value) for value in rng.integers((-12, -160, -400), (13, -120, 200)))
    ct = _raster(slices, image_size, round(field_mm / image_size, 6), CT_INTERVAL_MM, middle)
    pet_size, pet_field = image_size // 2, _PET_FIELD * field_mm
    pet_slices = round(slices * CT_INTERVAL_MM / PET_INTERVAL_MM) + 2 * _PET_MARGIN
    pet = _raster(pet_slices, pet_size, round(pet_field / pet_size, 6), PET_INTERVAL_MM, middle)
    age, weight = int(rng.integers(38, 85)), round(float(rng.uniform(48, 92)), 1)
    return Subject(
        number=number,
        letter=LETTERS[number % len(LETTERS)],
        serial=1 + 7 * (number // len(LETTERS)) + int(rng.integers(7)),
        sex="FM"[int(rng.integers(2))],
        age=age,
        weight_kg=weight,
        height_m=round(float(rng.uniform(1.52, 1.88)), 2),
        day=date(2007, 1, 8) + timedelta(days=int(rng.integers(1400))),
        scanner=_SCANNERS[number % len(_SCANNERS)],
        ct=ct,
        pet=pet if number % 2 else None,
        uptake_s=int(rng.integers(3000, 5400)),
        dose_bq=float(round(weight * rng.uniform(4.0, 6.5)) * 1_000_000),
        tumour=_plan_tumour(rng, field_mm, middle),
        clinical=_plan_clinical(rng, number, age, weight),
    )


def _raster(count: int, size: int, pixel_mm: float, interval_mm: float, middle: tuple[float, ...]) -> Raster:
    x, y, z = middle
    half = (size - 1) / 2 * pixel_mm
    corner = (round(x - half, 4), round(y - half, 4), round(z + (count - 1) / 2 * interval_mm, 4))
    return Raster(count, size, pixel_mm, interval_mm, corner)


def _plan_tumour(rng: np.random.Generator, field_mm: float, middle: tuple[float, ...]) -> Tumour:
    x, y, z = middle
    # Beside the spine and behind the heart of the phantom, in shares of its field of view.
    side = float(rng.choice((-1, 1))) * float(rng.uniform(0.2, 0.24)) * field_mm
    long = float(rng.uniform(10, 17))
    return Tumour(
        centre_mm=(x + side, y + float(rng.uniform(0.02, 0.1)) * field_mm, z + float(rng.uniform(-4, 4))),
        semi_axes_mm=(float(rng.uniform(9, 14)), long, long * float(rng.uniform(0.7, 0.95))),
        angle=float(rng.uniform(0, 3.14159)),
        hu=float(rng.uniform(25, 60)),
        suv=float(rng.uniform(6, 13)),
    )


def _plan_clinical(rng: np.random.Generator, number: int, age: int, weight: float) -> Clinical:
    tumour_stages: tuple[str | int, ...] = ("1b", "1c", "2a", "2b", 3, 4)
    metastases: tuple[str | int, ...] = (0, 0, "1a", "1b")
    gradings = ("G1", "G2", "G2-3", "G3", None)
    return Clinical(
        age=None if number % 4 == 3 else age,
        weight_kg=None if number % 3 == 2 else round(weight),
        stages=(
            tumour_stages[int(rng.integers(6))],
            int(rng.integers(4)),
            metastases[int(rng.integers(4))],
        ),
        grading=gradings[int(rng.integers(5))],
        smoking=int(rng.integers(2)),
    )
