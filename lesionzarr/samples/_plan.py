"""Who is in a made-up DeepLesion, which series they have and what lies where: decided before any pixel is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from lesionzarr.samples._anatomy import Region

TRAIN, VALIDATION, TEST = 1, 2, 3


@dataclass(frozen=True, slots=True)
class Kind:
    """What lesions of one type look like and where they are found."""

    code: int
    """Coarse_lesion_type."""
    areas_mm: tuple[tuple[float, float, float, float], ...]
    """Where they may lie: x0, x1, y0, y1 in the millimetres of the anatomy."""
    background_hu: tuple[float, float]
    """Lowest and highest density, noise included, of the tissue that they replace."""
    densities_hu: tuple[float, ...]
    long_mm: tuple[float, float]
    """Smallest and largest long semi-axis."""


KINDS: Final[dict[str, Kind]] = {
    "bone": Kind(1, ((-24, 24, 42, 80),), (120, 700), (50, 900), (3.5, 10)),
    "abdomen": Kind(2, ((-95, 105, -85, 15),), (-145, -60), (35, 55, 75), (5, 18)),
    "mediastinum": Kind(3, ((-36, 40, -62, 48),), (-145, 10), (35, 55, 80), (4, 14)),
    "liver": Kind(4, ((-132, -20, -80, 60),), (72, 148), (40, 55, 165), (5, 22)),
    "lung": Kind(5, ((-118, -30, -72, 70), (30, 118, -72, 70)), (-960, -720), (40, 25, 60, -250), (3, 14)),
    "kidney": Kind(6, ((-95, -42, 12, 76), (42, 95, 10, 74)), (118, 240), (8, 20, 60), (5, 14)),
    "soft tissue": Kind(7, ((-165, -95, -70, 85), (95, 165, -70, 85)), (-145, -60), (40, 60), (3.5, 8)),
    "pelvis": Kind(8, ((-85, 85, -85, 45),), (-145, -60), (40, 60), (6, 18)),
}

_KINDS_OF: Final[dict[Region, tuple[str, ...]]] = {
    "chest": ("lung", "lung", "mediastinum", "mediastinum", "lung", "bone", "soft tissue"),
    "abdomen": ("liver", "kidney", "abdomen", "liver", "abdomen", "soft tissue", "bone"),
    "pelvis": ("pelvis", "soft tissue", "bone"),
}
_REGIONS: Final[tuple[Region, ...]] = ("chest", "abdomen", "chest", "abdomen", "pelvis")
# From head to feet as the real body-part regressor gives it.
_HEIGHTS: Final[dict[Region, tuple[float, float]]] = {
    "chest": (0.38, 0.54),
    "abdomen": (0.58, 0.68),
    "pelvis": (0.75, 0.84),
}
_SOFT_WINDOWS: Final = ((-175.0, 275.0), (-175.0, 275.0), (-175.0, 275.0), (-160.0, 240.0), (-177.5, 307.5))
_LUNG_WINDOWS: Final = ((-1350.0, 150.0), (-1400.0, 200.0), (-1500.0, 500.0))


@dataclass(frozen=True, slots=True)
class Spot:
    """One lesion to be painted."""

    kind: str
    offset: int
    """Key slice, counted from the volume's first slice."""
    semi_axes_mm: tuple[float, float, float]
    """Half lengths along z, of the long and of the short axis."""
    angle: float
    """Direction of the long axis, in radians from +x towards +y."""
    hu: float
    at_border: bool = False
    """Whether it must touch the right border of the image."""


@dataclass(frozen=True, slots=True)
class Volume:
    """One sub-volume: an unbroken range of slices of a series folder."""

    number: int
    """Position in the plan; it seeds the pixels, so that a quirk of one volume leaves the others as they are."""
    patient: int
    study: int
    series: int
    sex: str
    age: int
    split: int
    region: Region
    height: float
    """Normalized z of the first slice."""
    first: int
    """Slice number of the first slice."""
    count: int
    interval_mm: float
    pixel_mm: float
    size: int
    """Number of rows and of columns."""
    window: tuple[float, float]
    spots: tuple[Spot, ...]
    part: int = 0
    """0, or 1, 2 ... for further sub-volumes of the series."""

    @property
    def folder(self) -> str:
        """Name of the series folder."""
        return f"{self.patient:06d}_{self.study:02d}_{self.series:02d}"

    @property
    def last(self) -> int:
        """Slice number of the last slice."""
        return self.first + self.count - 1

    @property
    def key_slices(self) -> set[int]:
        """Slice numbers that carry lesions."""
        return {self.first + spot.offset for spot in self.spots}


@dataclass(frozen=True, slots=True)
class _Patient:
    number: int
    sex: str
    age: int
    split: int


def plan(rng: np.random.Generator, lesions: int, image_size: int, slices: int) -> list[Volume]:
    """Decide on patients, series and lesions.

    Parameters
    ----------
    rng
        Source of everything random.
    lesions
        Number of lesions in all.
    image_size
        Rows and columns of each slice.
    slices
        Smallest number of slices of a volume.

    Returns
    -------
    list of Volume
        In the order of the table. With three lesions or more all three splits occur.
    """
    volumes: list[Volume] = []
    number, left = 0, lesions
    for turn in range(lesions):
        if left == 0:
            break
        number += int(rng.integers(1, 4))
        split = (VALIDATION, TRAIN, TEST, TRAIN)[turn % 4]
        patient = _Patient(number, "FM"[int(rng.integers(2))], int(rng.integers(19, 86)), split)
        share = min(left, max(1, lesions // 4))
        added = _plan_patient(rng, patient, share, image_size, slices, len(volumes))
        volumes += added
        left -= sum(len(volume.spots) for volume in added)
    return volumes


def _plan_patient(
    rng: np.random.Generator, patient: _Patient, lesions: int, image_size: int, slices: int, number: int
) -> list[Volume]:
    volumes: list[Volume] = []
    study, series, left = 1, int(rng.integers(1, 3)), lesions
    for _ in range(int(rng.integers(1, 5))):
        spots = min(left, 1 + int(rng.choice(3, p=(0.35, 0.4, 0.25))))
        if not spots:
            break
        volumes.append(_plan_volume(rng, patient, (study, series), spots, image_size, slices, number + len(volumes)))
        left -= spots
        if rng.random() < 0.35:
            series += int(rng.integers(1, 3))
        else:
            study, series = study + 1, int(rng.integers(1, 3))
    return volumes


def _plan_volume(
    rng: np.random.Generator,
    patient: _Patient,
    place: tuple[int, int],
    spots: int,
    image_size: int,
    slices: int,
    number: int,
) -> Volume:
    region = _REGIONS[number % len(_REGIONS)]
    interval = float(rng.choice((5.0, 1.0, 2.0), p=(0.5, 0.35, 0.15)))
    count = slices + int(rng.integers(0, slices // 3 + 1))
    # Whole millimetres of field of view, 0.6 to 0.9 mm on 512 columns, whatever the number of columns.
    pixel = int(rng.integers(310, 461)) / image_size
    # In turn, so that even a small dataset has many types.
    kinds = [kind_in_turn(region, number // 2 + turn) for turn in range(spots)]
    chosen = _plan_spots(rng, kinds, count, interval, pixel)
    return Volume(
        number=number,
        patient=patient.number,
        study=place[0],
        series=place[1],
        sex=patient.sex,
        age=patient.age + (place[0] - 1) // 2,
        split=patient.split,
        region=region,
        height=float(rng.uniform(*_HEIGHTS[region])),
        first=int(rng.integers(2, 90 if interval == 5 else 300)),
        count=count,
        interval_mm=interval,
        pixel_mm=pixel,
        size=image_size,
        window=choose_window(rng, chosen),
        spots=chosen,
    )


def _plan_spots(
    rng: np.random.Generator, kinds: Sequence[str], count: int, interval_mm: float, pixel_mm: float
) -> tuple[Spot, ...]:
    # No key slice at either end, which only a quirk asks for.
    offsets = (rng.permutation(count - 2) + 1 if count > 2 else rng.permutation(count)).tolist()
    chosen: list[Spot] = []
    for index, kind in enumerate(kinds):
        # Rows of one slice are neighbours in the table, so a slice is shared with the spot before or with none.
        shared = chosen and (rng.random() < 0.4 or index >= len(offsets))
        offset = chosen[-1].offset if shared else offsets[index]
        chosen.append(plan_spot(rng, kind, offset, interval_mm, pixel_mm))
    return tuple(chosen)


def kind_in_turn(region: Region, turn: int) -> str:
    """Give a key of `KINDS` that occurs in a part of the body; the turns go through all of them."""
    kinds = _KINDS_OF[region]
    return kinds[turn % len(kinds)]


def choose_window(rng: np.random.Generator, spots: tuple[Spot, ...]) -> tuple[float, float]:
    """Give a window, lowest and highest HU, in which lesions can be seen: one for all of a volume's rows."""
    windows = _LUNG_WINDOWS if any(spot.kind == "lung" for spot in spots) else _SOFT_WINDOWS
    return windows[int(rng.integers(len(windows)))]


def plan_spot(rng: np.random.Generator, kind: str, offset: int, interval_mm: float, pixel_mm: float) -> Spot:
    """Decide on one lesion.

    Parameters
    ----------
    rng
        Source of everything random.
    kind
        Key of `KINDS`.
    offset
        Key slice, counted from the volume's first slice.
    interval_mm, pixel_mm
        Spacing; the lesion is large enough to be seen with it.

    Returns
    -------
    Spot
        The lesion, without a place in the slice: that depends on the pixels.
    """
    low, high = KINDS[kind].long_mm
    # Small lesions are the most frequent ones.
    long = max(low + (high - low) * float(rng.beta(1.2, 2.0)), 1.25 * pixel_mm)
    short = max(long * float(rng.uniform(0.55, 0.95)), pixel_mm)
    depth = max(long * float(rng.uniform(0.6, 1.0)), 0.7 * interval_mm)
    hu = float(KINDS[kind].densities_hu[int(rng.integers(len(KINDS[kind].densities_hu)))] + rng.uniform(-8, 8))
    return Spot(kind, offset, (depth, long, short), float(rng.uniform(0, 3.14159)), hu)
