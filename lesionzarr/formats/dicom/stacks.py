"""Stacks: the evenly spaced volumes of CT and PET that the objects of a collection make up.

What is done with a series that is no plain stack (each is told by an issue):

=====================  ================================================================================================
objects of no volume   left out, each with its reason
one SOP instance twice the first by root and name is read, the others are left out
mixed sizes, spacings, one stack for each; orientations within 1e-4 and spacings within 1e-4 (ratio) are one
orientations, frames
of reference
two images at one      one stack for each phase, told by Acquisition Number, Temporal Position Identifier, acquisition
position               time, Image Type or kernel, whichever is first to tell them apart; else the n-th image at each
                       position by Instance Number belongs to the n-th stack
missing slices, uneven one stack for each even run (`lesionzarr.formats.dicom.spacing.even_runs`)
spacing
gantry tilt            one stack with the sheared affine; its slices are not moved
no position            ordered by Slice Location, whose steps give the spacing, without affine; where that is absent
                       too by Instance Number, with the spacing unknown
no Pixel Spacing       Imager Pixel Spacing stands for it; where that is absent too the object is left out
no series UID          objects of one folder, study, frame of reference and series number are a series, with a UID made
                       of these
=====================  ================================================================================================
"""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lesionzarr.formats.dicom.deid import allowed_tags
from lesionzarr.formats.dicom.plane import describe_grid, slice_order, tilt_degrees
from lesionzarr.formats.dicom.slices import split_geometry, split_phases, usable_slices
from lesionzarr.formats.dicom.spacing import even_runs
from lesionzarr.report import Issue
from lesionzarr.series import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lesionzarr.formats.dicom.headers import Headers
    from lesionzarr.formats.dicom.slices import Slice
    from lesionzarr.geometry import Grid

UID = re.compile(r"[0-9]+(\.[0-9]+)+")
SERIES_KEYS = ["series_uid", "study_uid", "frame_uid", "series_number", "name"]
TILT_DEGREES = 0.1
"""A stack whose slices are shifted by more than this against their normal is told as tilted."""


@dataclass(frozen=True)
class Stack:
    """An evenly spaced stack of slices, in the order of its rows."""

    volume_id: str
    """SeriesInstanceUID; with ``_2``, ``_3`` and so on for the further parts of a series that was split."""
    series_uid: str
    study_uid: str
    frame_uid: str
    """Empty where the source has none, as the study's and the patient's."""
    patient_id: str
    modality: str
    """``"CT"`` or ``"PT"``."""
    grid: Grid
    """z grows along the normal of the slices (row direction x column direction): to the head in axial ones as usual."""
    files: tuple[SourceFile, ...]
    """One per slice; a multi-frame object is there once for each of its frames."""
    frames: tuple[int, ...] | None
    """0-based frame of each slice in its file; None where every file is one slice."""
    sop_uids: tuple[str, ...]
    instance_numbers: tuple[int | None, ...]
    tags: dict[str, Any] = field(default_factory=dict)
    """Attributes by keyword as `lesionzarr.formats.dicom.deid.allowed_tags` gives them: JSON values."""
    padding: int | None = None
    """Value of pixels outside of the image: HU, Pixel Padding Value with the rescale of the first slice applied."""


@dataclass(frozen=True)
class Stacks:
    """What the objects of a collection make up."""

    stacks: tuple[Stack, ...]
    """By series."""
    left_out: tuple[Issue, ...]
    """Every object that is part of no stack, with its reason; the kind is that of `classify`, or the fault."""
    issues: tuple[Issue, ...]
    """What is odd about a series and how it was dealt with; those of the headers are not repeated."""


def find_stacks(headers: Headers) -> Stacks:
    """Find the volumes of a collection.

    Parameters
    ----------
    headers
        As `lesionzarr.formats.dicom.scan_headers` gives them.

    Returns
    -------
    Stacks
        The same for the same files, whatever their order in the table.
    """
    stacks: list[Stack] = []
    left_out: list[Issue] = []
    issues: list[Issue] = []
    for series_uid, table in _iter_series(headers.table, issues):
        rows = sorted(table.to_pylist(), key=lambda row: (row["root"], row["name"]))
        for row in rows:
            row["root"] = headers.remote.get(row["root"], row["root"])
        slices, unused = usable_slices(rows, series_uid)
        left_out += unused
        parts = list(_iter_parts(slices, series_uid, issues))
        acquired = _earliest(plane.row for plane in slices)
        for number, part in enumerate(parts, 1):
            volume_id = series_uid if number == 1 else f"{series_uid}_{number}"
            stacks.append(_make_stack(part, volume_id, series_uid, acquired))
            issues += _part_issues(stacks[-1], part)
    return Stacks(tuple(stacks), tuple(left_out), tuple(issues))


def _iter_series(table: pa.Table, issues: list[Issue]) -> Iterator[tuple[str, pa.Table]]:
    series: dict[str, list[int]] = defaultdict(list)
    made: set[str] = set()
    columns = (table.column(name).to_pylist() for name in SERIES_KEYS)
    for number, (uid, study, frame, series_number, name) in enumerate(zip(*columns, strict=True)):
        known = uid is not None and UID.fullmatch(uid) is not None and len(uid) <= 64
        key = uid if known else _made_uid(study, frame, series_number, str(PurePosixPath(name).parent))
        series[key].append(number)
        if not known:
            made.add(key)
    for uid, numbers in sorted(series.items()):
        if uid in made and any(table.column("rows")[number].as_py() for number in numbers):
            text = f"{uid}: {len(numbers)} objects have no valid Series Instance UID; those of one folder are a series"
            issues.append(Issue("no-series-uid", uid, table.column("name")[numbers[0]].as_py(), text))
        yield uid, table.take(pa.array(numbers, pa.int64()))


def _made_uid(*parts: object) -> str:
    # a UID of a UUID (PS3.5, B.2), here of a hash so that it is the same next time
    digest = hashlib.sha256("\0".join(map(str, parts)).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _iter_parts(slices: Sequence[Slice], series_uid: str, issues: list[Issue]) -> Iterator[list[Slice]]:
    """Cut the slices of a series into even stacks, and tell where it had to be cut."""
    groups = split_geometry(slices)
    if len(groups) > 1:
        text = f"{series_uid}: sizes, spacings, orientations or frames of reference differ; it is {len(groups)} parts"
        issues.append(Issue("mixed-geometry", series_uid, groups[1][0].row["name"], text))
    for group in groups:
        distances, coordinates = slice_order(group)
        phases, told_by = split_phases(group, distances)
        if told_by:
            text = f"{series_uid}: several images at one position; {len(phases)} phases, told apart by {told_by}"
            issues.append(Issue("same-position", series_uid, phases[1][0].row["name"], text))
        where = {id(plane): place for plane, place in zip(group, coordinates, strict=True)}
        for phase in phases:
            runs = even_runs(np.array([where[id(plane)] for plane in phase]))
            if len(runs) > 1:
                sizes = ", ".join(str(stop - start) for start, stop in runs)
                text = f"{series_uid}: slices are missing or unevenly spaced; even runs of {sizes} slices are stacks"
                issues.append(Issue("uneven-spacing", series_uid, phase[runs[1][0]].row["name"], text))
            yield from (phase[start:stop] for start, stop in runs)


def _make_stack(part: list[Slice], volume_id: str, series_uid: str, acquired: dict[str, Any]) -> Stack:
    rows = [plane.row for plane in part]
    first = rows[0]
    padding = None
    if first["padding"] is not None and first["modality"] == "CT" and first["slope"] is not None:
        padding = round(first["padding"] * first["slope"] + first["intercept"])
    return Stack(
        volume_id,
        series_uid,
        first["study_uid"] or "",
        first["frame_uid"] or "",
        first["patient_id"] or "",
        first["modality"],
        describe_grid(part),
        tuple(SourceFile(row["root"], row["name"], row["size"], row["stamp"]) for row in rows),
        None if part[0].frame is None else tuple(plane.frame or 0 for plane in part),
        tuple(row["sop_instance_uid"] or "" for row in rows),
        tuple(row["instance_number"] for row in rows),
        allowed_tags(rows, acquired),
        padding,
    )


def _part_issues(stack: Stack, part: list[Slice]) -> Iterator[Issue]:
    def issue(kind: str, text: str) -> Issue:
        return Issue(kind, stack.volume_id, stack.files[0].name, f"{stack.volume_id}: {text}")

    if not part[0].has_geometry:
        told_by = "Slice Location" if stack.grid.spacing_mm[0] is not None else "Instance Number"
        yield issue("no-position", f"no position or orientation; ordered by {told_by}, its place is unknown")
    elif len(part) > 1 and (degrees := tilt_degrees(part)) > TILT_DEGREES:
        yield issue(
            "gantry-tilt", f"slices are shifted by {degrees:.2f} degrees against their normal; kept as they are"
        )
    if part[0].frame is None and part[0].row["pixel_spacing"] is None:
        yield issue("imager-spacing", "no Pixel Spacing; Imager Pixel Spacing stands for it")
    if len(part) == 1:
        yield issue("single-slice", "one slice alone; the slice interval is unknown")
    if stack.modality == "PT" and stack.tags.get("Units") != "BQML":
        yield issue("other-units", f"PET in {stack.tags.get('Units') or 'unknown units'}, not Bq/ml; kept as it is")


def _earliest(rows: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """Give date and time of the first acquisition of a series, from which SUV counts."""
    times = [(row["acquisition_date"], row["acquisition_time"]) for row in rows]
    date, time = min((pair for pair in times if all(pair)), default=(None, None))
    return {"acquisition_date": date, "acquisition_time": time}
