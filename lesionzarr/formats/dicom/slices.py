"""From header rows to slices: which objects can be part of a volume, and which images share one plane geometry."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.formats.dicom.classify import classify
from lesionzarr.formats.dicom.spacing import same_places
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MAX_PIXELS = 2**26
"""Pixels of one frame that are read (8192 x 8192)."""
MAX_VOXELS = 2**31
"""Voxels of one object that are read (4 GiB as int16)."""
COSINE_TOLERANCE = 1e-4
"""Orientations that differ by less are one: 0.006 degrees, 0.03 mm at the edge of a slice."""
SPACING_TOLERANCE = 1e-4
"""Pixel spacings that differ by less, as a ratio, are one."""
HU_TYPES = {None, "HU", "US"}
"""Rescale types (0028,1054) that are taken for Hounsfield units; US is unspecified."""

PHASES: tuple[tuple[str, Callable[[dict[str, Any]], Any]], ...] = (
    ("Acquisition Number", lambda row: row["acquisition_number"]),
    ("Temporal Position Identifier", lambda row: row["temporal_position"]),
    ("acquisition time", lambda row: (row["acquisition_date"], row["acquisition_time"])),
    ("Image Type", lambda row: row["image_type"]),
    ("Convolution Kernel", lambda row: row["kernel"]),
)
"""What tells images at one position apart, tried in this order."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One image plane: an object, or one frame of it."""

    row: dict[str, Any]
    """Header row of the object."""
    frame: int | None
    """0-based frame of a multi-frame object."""
    spacing: tuple[float, float]
    """Distance of rows and of columns, mm."""
    position: tuple[float, float, float] | None
    """LPS of the first pixel's centre, mm."""
    orientation: tuple[float, ...] | None
    """Direction cosines of a row (along x), then of a column (along y)."""

    @property
    def has_geometry(self) -> bool:
        """Whether it is known where it lies."""
        return self.position is not None and self.orientation is not None

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the plane: row direction x column direction."""
        if self.orientation is None:
            raise ValueError("a slice without orientation has no normal")
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def order(self) -> tuple[Any, ...]:
        """Key to order images by that lie nowhere or at one position."""
        row = self.row
        return _number(row["instance_number"]), self.frame or 0, row["sop_instance_uid"] or "", row["root"], row["name"]


def usable_slices(rows: Iterable[dict[str, Any]], item: str) -> tuple[list[Slice], list[Issue]]:
    """Take the slices of CT and PET out of the objects of one series.

    Parameters
    ----------
    rows
        Header rows, ordered.
    item
        The series, for the reasons.

    Returns
    -------
    list of Slice
    list of Issue
        Every object left out, with its reason.
    """
    slices: list[Slice] = []
    left_out: list[Issue] = []
    first: dict[str, str] = {}
    for row in rows:
        kind, reason = classify(row)
        fault: tuple[str, str] | None = None if kind in {"CT", "PT"} else (kind, reason)
        uid = row["sop_instance_uid"]
        if fault is None:
            fault = next(_faults(row, kind), None)
        if fault is None and uid in first:
            fault = "duplicate", f"the same SOP instance as {first[uid]}, which is read"
        if fault is None:
            first |= {uid: row["name"]} if uid else {}
            slices += _planes(row | {"modality": kind})
        else:
            left_out.append(Issue(fault[0], item, row["name"], f"{row['name']}: left out: {fault[1]}"))
    return slices, left_out


def split_geometry(slices: Sequence[Slice]) -> list[list[Slice]]:
    """Divide slices by modality, size, frame of reference, pixel spacing and orientation.

    Returns
    -------
    list of list of Slice
        In the order of their first instance.
    """
    exact: dict[Any, list[list[Slice]]] = defaultdict(list)
    for plane in sorted(slices, key=lambda plane: plane.order):
        row = plane.row
        groups = exact[row["modality"], row["rows"], row["columns"], row["frame_uid"], plane.has_geometry]
        for group in groups:
            if _is_alike(plane, group[0]):
                group.append(plane)
                break
        else:
            groups.append([plane])
    return sorted((group for groups in exact.values() for group in groups), key=lambda group: group[0].order)


def split_phases(slices: Sequence[Slice], distances: NDArray[np.float64]) -> tuple[list[list[Slice]], str]:
    """Divide slices so that no two of a part lie at one position.

    The first attribute of `PHASES` by whose values every part has distinct positions divides them; where none does, the
    n-th image at each position by instance number makes the n-th part.

    Parameters
    ----------
    slices
        Any order.
    distances
        Of each along the normal, mm.

    Returns
    -------
    list of list of Slice
        Each ordered along the normal.
    str
        What divided them; empty where nothing had to.
    """
    ordered = [slices[i] for i in np.argsort(distances, kind="stable")]
    places = same_places(np.sort(distances)).tolist()
    if len(set(places)) == len(places):
        return [ordered], ""
    for name, tell in PHASES:
        parts: dict[Any, list[tuple[int, Slice]]] = defaultdict(list)
        for place, plane in zip(places, ordered, strict=True):
            parts[tell(plane.row)].append((place, plane))
        if len(parts) > 1 and all(len({place for place, _ in part}) == len(part) for part in parts.values()):
            found = [[plane for _, plane in part] for part in parts.values()]
            return sorted(found, key=lambda part: min(plane.order for plane in part)), name
    return _split_by_rank(places, ordered), "instance number"


def _split_by_rank(places: Sequence[int], ordered: Sequence[Slice]) -> list[list[Slice]]:
    at: dict[int, list[Slice]] = defaultdict(list)
    for place, plane in zip(places, ordered, strict=True):
        at[place].append(plane)
    stacked = [sorted(planes, key=lambda plane: plane.order) for planes in at.values()]
    return [[planes[n] for planes in stacked if n < len(planes)] for n in range(max(map(len, stacked)))]


def _faults(row: dict[str, Any], kind: str) -> Iterator[tuple[str, str]]:
    """Say why an image of CT or PET cannot be part of a volume: the first reason is asked for alone."""
    frames = row["frames"] or 1
    pixels = row["rows"] * row["columns"]
    if not row["pixel_bytes"]:
        yield "no-pixel-data", "its pixel data has length 0" if row["pixel_bytes"] == 0 else "it has no pixel data"
    if row["allocated"] not in {8, 16, 32}:
        yield "bad-pixels", f"{row['allocated']} bits a pixel, where 8, 16 or 32 are needed"
    if frames < 1 or pixels > MAX_PIXELS or pixels * frames > MAX_VOXELS:
        text = f"{frames} frames of {row['rows']} x {row['columns']} pixels; at most {MAX_PIXELS} a frame are read"
        yield "too-large", f"{text}, {MAX_VOXELS} in all"
    stated = pixels * frames * (row["allocated"] // 8)
    if row["pixel_bytes"] not in {-1, stated, stated + stated % 2}:
        yield "wrong-length", f"its pixel data has {row['pixel_bytes']} bytes where its size says {stated}"
    yield from _frame_faults(row, frames) if row["frame_geometry"] else _single_faults(row, kind, frames)


def _frame_faults(row: dict[str, Any], frames: int) -> Iterator[tuple[str, str]]:
    if len(row["frame_geometry"]) != frames:
        yield "bad-frames", f"{frames} frames, and positions of {len(row['frame_geometry'])}"
    if any(_spacing(frame["pixel_spacing"]) is None for frame in row["frame_geometry"]):
        yield "no-spacing", "Pixel Spacing of a frame is absent or not positive"


def _single_faults(row: dict[str, Any], kind: str, frames: int) -> Iterator[tuple[str, str]]:
    if frames != 1:
        yield "bad-frames", f"{frames} frames without functional groups: nothing tells where they lie"
    if not row["slope"] or row["intercept"] is None:
        yield "no-rescale", "Rescale Slope or Intercept is absent or 0: its values have no unit"
    if kind == "CT" and row["rescale_type"] not in HU_TYPES:
        yield "not-hu", f"its values are {row['rescale_type']}, not HU"
    if _spacing(row["pixel_spacing"]) is None and _spacing(row["imager_spacing"]) is None:
        yield "no-spacing", "Pixel Spacing is absent or not positive, and nothing stands for it"


def _planes(row: dict[str, Any]) -> Iterator[Slice]:
    if not row["frame_geometry"]:
        spacing = _spacing(row["pixel_spacing"]) or _spacing(row["imager_spacing"]) or (0.0, 0.0)
        yield Slice(row, None, spacing, _position(row["position"]), _orientation(row["orientation"]))
        return
    # the frames go with the slices, not with the row that they share
    row, frames = row | {"frame_geometry": None}, row["frame_geometry"]
    for number, frame in enumerate(frames):
        spacing = _spacing(frame["pixel_spacing"]) or (0.0, 0.0)
        yield Slice(row, number, spacing, _position(frame["position"]), _orientation(frame["orientation"]))


def _spacing(values: list[float] | None) -> tuple[float, float] | None:
    return (values[0], values[1]) if values and min(values) > 0 else None


def _position(values: list[float] | None) -> tuple[float, float, float] | None:
    return (values[0], values[1], values[2]) if values else None


def _orientation(values: list[float] | None) -> tuple[float, ...] | None:
    """Give the two unit vectors, or None where they are none or not at right angles."""
    if not values:
        return None
    row, column = np.array(values[:3]), np.array(values[3:])
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(row @ column) > 1e-3:
        return None
    return tuple(values)


def _is_alike(plane: Slice, other: Slice) -> bool:
    if not all(
        math.isclose(a, b, rel_tol=SPACING_TOLERANCE) for a, b in zip(plane.spacing, other.spacing, strict=True)
    ):
        return False
    if plane.orientation is None or other.orientation is None:
        return plane.orientation is other.orientation
    pairs = zip(plane.orientation, other.orientation, strict=True)
    return max(abs(a - b) for a, b in pairs) < COSINE_TOLERANCE


def _number(value: int | None) -> float:
    return math.inf if value is None else value
