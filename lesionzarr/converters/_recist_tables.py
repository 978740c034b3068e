"""Tables of recist-dataset: series.json, patients.csv, recist_measurements.csv and windows_mapping.json."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from lesionzarr.converters._base import parse_day
from lesionzarr.converters._recist_files import SPLITS
from lesionzarr.errors import SourceError
from lesionzarr.formats.table import read_csv
from lesionzarr.report import Issue
from lesionzarr.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable

    from lesionzarr.source import SourcePath

SERIES, PATIENTS = "series.json", "patients.csv"
TARGETS, WINDOWS_MAPPING = "recist_measurements.csv", "windows_mapping.json"

WINDOWS = {
    "lung": Window(-1200, 200),
    "abdomen": Window(-135, 215),
    "bone": Window(-100, 900),
    "air": Window(-926, 74),
    "brain": Window(0, 100),
    "mediastinum": Window(-125, 225),
}
"""Of ``normalize_ct_images.py``: level minus and plus half of the width."""
FOLLOW_UP = re.compile(r"follow-up-(\d+)")
SEXES = {"f": "F", "m": "M"}


@dataclass(frozen=True)
class SeriesRow:
    """One object of series.json; what it leaves open is as recist_measurements.csv says."""

    study_id: str | None
    study_date: str | None
    """ISO 8601."""
    patient_id: str | None
    region: str | None
    thickness_mm: float | None
    shape: tuple[int, int, int] | None
    """Slices, rows and columns; None where one is not told."""
    spacing_mm: tuple[float | None, float | None, float | None]
    """Of (z, y, x)."""
    is_listed: bool = True
    """It is in series.json."""


@dataclass(frozen=True)
class PatientRow:
    """One row of patients.csv."""

    sex: str | None
    age: float | None
    subset: str | None
    first_date: str | None
    """Of the first study, ISO 8601."""
    further: dict[str, str]
    """Diagnosis, histology and so on, where the cell is not empty."""


@dataclass(frozen=True)
class Target:
    """One row of recist_measurements.csv: a target lesion at one study."""

    row: int
    """0-based."""
    measured_mm: float | None
    """Long axis of a tumour, short axis of a node."""
    alias: str | None
    """Names the lesion over the studies of one patient, in one region."""
    study_order: str | None


@dataclass(frozen=True)
class Measured:
    """What one row of recist_measurements.csv says of the series that its lesion lies in."""

    patient_id: str | None
    subset: str | None
    region: str | None
    study_id: str | None
    study_date: str | None
    """ISO 8601."""
    objects: float | None
    """Lesions in the mask (``final_3d_objects``)."""


@dataclass
class Tables:
    """Everything that the tables say; those that are absent or broken say nothing."""

    series: dict[str, SeriesRow] = field(default_factory=dict)
    """By SeriesInstanceUID."""
    patients: dict[str, PatientRow] = field(default_factory=dict)
    """By id, without leading zeros."""
    targets: dict[str, dict[int | str, Target]] = field(default_factory=lambda: defaultdict(dict))
    """By SeriesInstanceUID and value of the mask, or alias where the row names no value, as of one that is gone."""
    measured: dict[str, list[Measured]] = field(default_factory=lambda: defaultdict(list))
    """By SeriesInstanceUID."""
    windows: dict[str, str] = field(default_factory=dict)
    """Name of the window by file name."""
    timepoints: dict[str, tuple[int, bool]] = field(default_factory=dict)
    """By study: 0 for the baseline, and whether it was counted by date, since no table tells it."""
    failed: list[Issue] = field(default_factory=list)
    issues: list[Issue] = field(default_factory=list)

    def odd(self, kind: str, item: str, file: str, text: str) -> None:
        """Note what is odd."""
        self.issues.append(Issue(kind, item, file, text))


def read_tables(source: SourcePath) -> Tables:
    """Read the tables of a release, in its folder or in ``metadata``.

    One that is absent or cannot be read is told, and the others are used.
    """
    tables = Tables()
    readers: dict[str, Callable[[Tables, SourcePath], None]] = {
        SERIES: _read_series,
        PATIENTS: _read_patients,
        TARGETS: _read_targets,
        WINDOWS_MAPPING: _read_windows,
    }
    orders: dict[str, str] = {}
    for name, read in readers.items():
        path = next((path for path in (source / "metadata" / name, source / name) if path.is_file()), None)
        if path is None:
            tables.odd("no-table", name, name, f"{name}: absent; what it alone tells stays unknown")
            continue
        try:
            read(tables, path)
        except SourceError as error:
            text = f"{error}; what it alone tells stays unknown"
            tables.failed.append(Issue("bad-table", name, name, text))
    _fill_series(tables)
    _note_aliases(tables)
    for uid, targets in tables.targets.items():
        row = tables.series.get(uid)
        for target in targets.values():
            if row is not None and row.study_id and target.study_order:
                orders.setdefault(row.study_id, target.study_order)
    _count_studies(tables, orders)
    return tables


def plain_id(value: object) -> str | None:
    """Give a patient's id without leading zeros, as the tables write it; None for an empty one."""
    text = str(value).strip() if value is not None else ""
    return str(int(text)) if text.isascii() and text.isdigit() else text or None


def _read_json(path: SourcePath) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise SourceError(f"{path.name}: cannot be read as JSON ({error}); fetch it again", path.name) from error


def _read_series(tables: Tables, path: SourcePath) -> None:
    rows = _read_json(path)
    if not isinstance(rows, list):
        raise SourceError(f"{path.name}: no list of series; fetch it again", path.name)
    for number, row in enumerate(rows):
        uid = row.get("uuid") if isinstance(row, dict) else None
        if not isinstance(uid, str) or not uid:
            tables.odd("odd-row", f"row {number}", path.name, f"{path.name}: row {number} has no uuid; it is left out")
            continue
        if uid in tables.series:
            tables.odd("odd-row", uid, path.name, f"{path.name}: row {number} repeats {uid}; it is left out")
            continue
        sizes = [_number(row.get(name)) for name in ("slices", "rows", "columns")]
        z, y, x = (int(size) if size else 0 for size in sizes)
        tables.series[uid] = SeriesRow(
            study_id=row.get("study_uuid") or None,
            study_date=_date(tables, row.get("study_date"), uid, path.name),
            patient_id=plain_id(row.get("patient_id")),
            region=row.get("region") or None,
            thickness_mm=_number(row.get("slice_thickness")),
            shape=(z, y, x) if min(z, y, x) > 0 else None,
            spacing_mm=(_length(row, "slice_spacing"), _length(row, "row_spacing"), _length(row, "column_spacing")),
        )


def _read_patients(tables: Tables, path: SourcePath) -> None:
    for number, row in enumerate(read_csv(path, ["patient_id"])):
        patient_id = plain_id(row["patient_id"])
        if patient_id is None or patient_id in tables.patients:
            fault = "has no patient_id" if patient_id is None else f"repeats patient {patient_id}"
            tables.odd("odd-row", f"row {number}", path.name, f"{path.name}: row {number} {fault}; it is left out")
            continue
        sex, age = row.get("sex") or "", row.get("age") or ""
        years = _number(age)
        if (sex and sex.lower() not in SEXES) or (age and years is None):
            text = f"{path.name}: sex {sex!r} or age {age!r} of patient {patient_id} means nothing and is left empty"
            tables.odd("odd-cell", patient_id, path.name, text)
        first = _date(tables, row.get("first_study_date"), patient_id, path.name)
        kept = ("first_study_date", "diagnosis", "histology", "health_insurance")
        further = {name: row[name] for name in kept if row.get(name)}
        tables.patients[patient_id] = PatientRow(SEXES.get(sex.lower()), years, _subset(row), first, further)


def _read_targets(tables: Tables, path: SourcePath) -> None:
    _read_measured(tables, path)
    for number, row in enumerate(read_csv(path, ["uuid", "lesion_label_value", "recist_measurement_mm"])):
        label, measured = (_number(row.get(name)) for name in ("lesion_label_value", "recist_measurement_mm"))
        uid = row["uuid"]
        alias = row.get("lesion_label_alias") or None
        # no value, or that of the background: no voxel is the lesion's
        key = alias if not row.get("lesion_label_value") or label == 0 else label
        if not uid or key is None or (isinstance(key, float) and key != int(key)):
            text = f"{path.name}: row {number} names no value of a mask; it is left out"
            tables.odd("odd-row", f"row {number}", path.name, text)
            continue
        if measured is None:
            cell = row.get("recist_measurement_mm", "")
            text = f"{path.name}: {cell!r} in row {number} is no length in mm and is left empty"
            tables.odd("odd-cell", f"row {number}", path.name, text)
        if date := row.get("study_date"):
            _date(tables, date, f"row {number}", path.name)
        target = Target(number, measured, alias, row.get("study_order") or None)
        name = int(key) if isinstance(key, float) else key
        if tables.targets[uid].setdefault(name, target) is not target:
            text = f"{path.name}: row {number} repeats lesion {name} of {uid}; it is left out"
            tables.odd("odd-row", f"row {number}", path.name, text)


def _read_measured(tables: Tables, path: SourcePath) -> None:
    for row in read_csv(path, ["uuid"]):
        if row["uuid"]:
            tables.measured[row["uuid"]].append(
                Measured(
                    plain_id(row.get("patient_id")),
                    _subset(row),
                    row.get("region") or None,
                    row.get("study_uuid") or None,
                    parse_day(row.get("study_date")),
                    _number(row.get("final_3d_objects")),
                )
            )


def _fill_series(tables: Tables) -> None:
    """Let the table of targets tell what series.json does not."""
    for uid, rows in tables.measured.items():
        known = tables.series.get(uid)
        if known is None:
            known = SeriesRow(None, None, None, None, None, None, (None, None, None), is_listed=False)
        told: dict[str, Any] = {
            name: next((value for row in rows if (value := getattr(row, name)) is not None), None)
            for name in ("study_id", "study_date", "patient_id", "region")
            if getattr(known, name) is None
        }
        tables.series[uid] = replace(known, **told)


def _note_aliases(tables: Tables) -> None:
    """Say which aliases name several lesions of one study, as that of patient 37 does."""
    named: dict[tuple[str, ...], list[tuple[str, int | str]]] = defaultdict(list)
    for uid, targets in tables.targets.items():
        row = tables.series.get(uid)
        for value, target in targets.items():
            if target.alias and row and row.patient_id and row.study_id:
                named[row.patient_id, row.study_id, target.alias].append((uid, value))
    for (patient_id, _, alias), lesions in named.items():
        if len(lesions) > 1:
            places = ", ".join(f"{value} of {uid}" for uid, value in lesions)
            text = (
                f"{TARGETS}: alias {alias} of patient {patient_id} names {len(lesions)} lesions of one study: {places}"
            )
            tables.odd("alias-twice", lesions[0][0], TARGETS, f"{text}; where they lie alone tells them apart")


def _read_windows(tables: Tables, path: SourcePath) -> None:
    mapping = _read_json(path)
    if not isinstance(mapping, dict):
        raise SourceError(f"{path.name}: no object of file name to window; fetch it again", path.name)
    for name, window in mapping.items():
        if window in WINDOWS:
            tables.windows[name] = window
        else:
            text = f"{path.name}: window {window!r} of {name} is none of {', '.join(WINDOWS)}; it stays unknown"
            tables.odd("unknown-window", name, path.name, text)


def _count_studies(tables: Tables, orders: dict[str, str]) -> None:
    """Give every study of a patient its number: as the table of targets says, else by their dates."""
    days: dict[str, set[str]] = defaultdict(set)
    for row in tables.series.values():
        if row.patient_id and row.study_date:
            days[row.patient_id].add(row.study_date)
    for row in tables.series.values():
        if row.study_id is None:
            continue
        order = orders.get(row.study_id, "")
        if order == "baseline":
            tables.timepoints[row.study_id] = 0, False
        elif found := FOLLOW_UP.fullmatch(order):
            tables.timepoints[row.study_id] = int(found[1]), False
        elif row.patient_id and row.study_date:
            tables.timepoints[row.study_id] = sorted(days[row.patient_id]).index(row.study_date), True


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and number >= 0 else None


def _length(row: dict[str, Any], name: str) -> float | None:
    return _number(row.get(name)) or None


def _subset(row: dict[str, str]) -> str | None:
    text = (row.get("subset") or "").strip()
    return SPLITS.get(text.lower(), text) or None


def _date(tables: Tables, text: object, item: str, file: str) -> str | None:
    if text is None or text == "":
        return None
    day = parse_day(text)
    if day is None:
        tables.odd("odd-date", item, file, f"{file}: date {text!r} of {item} is no YYYYMMDD; it is left out")
    return day
