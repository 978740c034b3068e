r"""DL_info.csv to marks, and marks to sub-volumes.

Columns and conventions as in the README of the DeepLesion release; coordinates leave here 0-based. Re-saved copies are
read too: CRLF, byte-order mark, ages as floats, further columns, rows in another order, ``/`` or ``\`` in file names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, TypeVar

from lesionzarr.errors import SourceError
from lesionzarr.formats.table import read_csv
from lesionzarr.recist import Recist
from lesionzarr.report import Issue
from lesionzarr.window import Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lesionzarr.source import SourcePath

T = TypeVar("T")

REQUIRED = ("File_name", "Measurement_coordinates", "Bounding_boxes", "Slice_range", "Spacing_mm_px_", "Image_size")
OPTIONAL = (
    *("Patient_index", "Study_index", "Series_ID", "Key_slice_index", "Lesion_diameters_Pixel_"),
    *("Normalized_lesion_location", "Coarse_lesion_type", "Possibly_noisy", "DICOM_windows"),
    *("Patient_gender", "Patient_age", "Train_Val_Test"),
)
FILE_NAME = re.compile(r"(?:.*[/\\])?(?P<series>\d{6}_\d{2}_\d{2})[_/\\](?P<slice>\d{3,})\.png")
TYPES = {
    1: "bone",
    2: "abdomen",
    3: "mediastinum",
    4: "liver",
    5: "lung",
    6: "kidney",
    7: "soft tissue",
    8: "pelvis",
}
SPLITS = {1: "train", 2: "val", 3: "test"}


@dataclass(frozen=True)
class Mark:
    """One row of the table."""

    row: int
    """0-based, as LesaNet counts."""
    series_id: str
    key_slice: int
    """1-based, as in the file name."""
    recist: Recist
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1; 0-based, ends inclusive."""
    first: int
    last: int
    """Slice range, 1-based, ends inclusive."""
    spacing_mm: tuple[float | None, float, float]
    size: tuple[int, int]
    """Rows and columns."""
    diameters_px: tuple[float, float] | None
    location: tuple[float, float, float] | None
    """Relative position in the body, x, y, z."""
    type: str | None
    noisy: bool | None
    window: Window | None
    sex: str | None
    age: float | None
    split: str | None
    further: dict[str, str]
    """Columns that the official table does not have."""
    number: int = 1
    """Which of the lesions on its slice it is, in the order of their coordinates, so that it is the same in a table
    with its rows in another order."""

    @property
    def lesion_id(self) -> str:
        """Id in the lesion table: key slice, then number on that slice."""
        return f"{self.series_id}_{self.key_slice:03d}_{self.number}"


@dataclass(frozen=True)
class Table:
    """All marks of a DL_info.csv."""

    name: str
    rows: int
    """Number of rows, unreadable ones included."""
    marks: tuple[Mark, ...]
    failed: tuple[Issue, ...]
    issues: tuple[Issue, ...]


@dataclass(frozen=True)
class SubVolume:
    """A contiguous range of slices with one spacing, as the table states it."""

    series_id: str
    first: int
    last: int
    spacing_mm: tuple[float | None, float, float]
    size: tuple[int, int]
    marks: tuple[Mark, ...]

    @property
    def name(self) -> str:
        """The community's name, such as ``000001_01_01_103-115``."""
        return volume_name(self.series_id, self.first, self.last)


def volume_name(series_id: str, first: int, last: int) -> str:
    """Name a range of slices of a series as everybody who works with DeepLesion does."""
    return f"{series_id}_{first:03d}-{last:03d}"


def read_table(path: SourcePath) -> Table:
    """Read a DL_info.csv.

    Parameters
    ----------
    path
        The official file, one of its splits, or a re-saved copy.

    Returns
    -------
    Table
        A row that cannot be read is listed as failed and costs nothing else.

    Raises
    ------
    SourceError
        The file cannot be read as a table or lacks a column that is needed.
    """
    rows = read_csv(path, REQUIRED)
    marks, failed, issues = [], [], []
    for number, cells in enumerate(rows):
        item = f"row {number}"
        try:
            mark, odd = _parse_row(number, cells)
        except ValueError as error:
            failed.append(
                Issue("bad-row", item, path.name, f"{item} ({cells.get('File_name')}): {error}; the lesion is left out")
            )
            continue
        marks.append(mark)
        issues += [Issue("odd-cell", item, path.name, f"{item} ({cells['File_name']}): {text}") for text in odd]
    numbered, repeated = _count(marks)
    issues += [
        Issue("duplicate-row", f"row {mark.row}", path.name, f"row {mark.row} repeats an earlier one; it is left out")
        for mark in repeated
    ]
    return Table(path.name, len(rows), tuple(numbered), tuple(failed), tuple(issues))


def group_marks(marks: Iterable[Mark]) -> tuple[list[SubVolume], list[Issue]]:
    """Gather marks by the slice range that they lie in.

    Ranges of one series are equal or apart in the official table. Here ranges that overlap, or that touch with equal
    spacing, become one; ranges that touch with different spacing stay apart.

    Parameters
    ----------
    marks
        Of any series, in any order.

    Returns
    -------
    list of SubVolume
        Sorted by series and first slice; marks in the order of their rows.
    list of Issue
        Marks of one range that disagree on its spacing or size; the earliest row's are used.
    """
    volumes: list[SubVolume] = []
    issues: list[Issue] = []
    for series_id, group in groupby(sorted(marks, key=lambda mark: (mark.series_id, mark.first, mark.row)), _series):
        open_volume: SubVolume | None = None
        for mark in group:
            last = open_volume
            if last is not None and (
                mark.first <= last.last or (mark.first == last.last + 1 and mark.spacing_mm == last.spacing_mm)
            ):
                here, others = (mark.spacing_mm, mark.size), (last.spacing_mm, last.size)
                if here != others:
                    text = f"row {mark.row} gives spacing and size {here}, others {others}, which are used"
                    issues.append(Issue("spacing-differs", last.name, "", text, (mark.lesion_id,)))
                open_volume = replace(last, last=max(last.last, mark.last), marks=(*last.marks, mark))
                volumes[-1] = open_volume
            else:
                open_volume = SubVolume(series_id, mark.first, mark.last, mark.spacing_mm, mark.size, (mark,))
                volumes.append(open_volume)
    return [replace(v, marks=tuple(sorted(v.marks, key=lambda mark: mark.row))) for v in volumes], issues


def _series(mark: Mark) -> str:
    return mark.series_id


def _parse_row(row: int, cells: dict[str, str]) -> tuple[Mark, list[str]]:
    absent = [name for name in REQUIRED if not cells.get(name)]
    if absent:
        raise SourceError(f"{', '.join(absent)} is empty")
    series_id, key_slice = _parse_name(cells["File_name"])
    first, last = _range(cells["Slice_range"])
    spacing_mm = _spacing(cells["Spacing_mm_px_"])
    columns, rows = (int(value) for value in _numbers(cells["Image_size"], 2))
    if min(columns, rows) < 1:
        raise SourceError(f"Image_size {cells['Image_size']!r} is not positive")
    odd = _check_indices(cells, series_id, key_slice)
    if not first <= key_slice <= last:
        odd.append(f"key slice {key_slice} is outside its Slice_range {first}, {last}")
    if spacing_mm[0] is None:
        odd.append(f"Spacing_mm_px_ {cells['Spacing_mm_px_']!r}: the slice interval is kept as unknown")
    mark = Mark(
        row=row,
        series_id=series_id,
        key_slice=key_slice,
        recist=Recist(*_zero_based(_numbers(cells["Measurement_coordinates"], 8))),
        box=_box(cells["Bounding_boxes"]),
        first=first,
        last=last,
        spacing_mm=spacing_mm,
        size=(rows, columns),
        diameters_px=_optional(cells, "Lesion_diameters_Pixel_", _pair, odd),
        location=_optional(cells, "Normalized_lesion_location", _triple, odd),
        type=_optional(cells, "Coarse_lesion_type", _lesion_type, odd),
        noisy=_optional(cells, "Possibly_noisy", lambda text: bool(_whole(text)), odd),
        window=_optional(cells, "DICOM_windows", lambda text: Window(*_pair(text)), odd),
        sex=_optional(cells, "Patient_gender", _sex, odd),
        age=_optional(cells, "Patient_age", _number, odd),
        split=_optional(cells, "Train_Val_Test", lambda text: SPLITS[_whole(text)], odd),
        further={name: text for name, text in cells.items() if name not in {*REQUIRED, *OPTIONAL}},
    )
    return mark, odd


def _parse_name(text: str) -> tuple[str, int]:
    parts = FILE_NAME.fullmatch(text)
    if parts is None or ".." in text:
        raise SourceError(f"File_name {text!r} is not <series>_<slice>.png, such as 000001_01_01_109.png")
    return parts["series"], int(parts["slice"])


def _range(text: str) -> tuple[int, int]:
    first, last = (int(value) for value in _numbers(text, 2))
    if not 1 <= first <= last:
        raise SourceError(f"Slice_range {text!r} runs backwards or begins below 1")
    return first, last


def _spacing(text: str) -> tuple[float | None, float, float]:
    x_mm, y_mm, z_mm = _numbers(text, 3, may_be_odd=True)
    if not (0 < x_mm < math.inf and 0 < y_mm < math.inf):
        raise SourceError(f"Spacing_mm_px_ {text!r}: the pixel spacing is not positive")
    return (z_mm if 0 < z_mm < math.inf else None), y_mm, x_mm


def _box(text: str) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = _zero_based(_numbers(text, 4))
    if x0 > x1 or y0 > y1:
        raise SourceError(f"Bounding_boxes {text!r} ends before it begins")
    return x0, y0, x1, y1


def _check_indices(cells: dict[str, str], series_id: str, key_slice: int) -> list[str]:
    named = [*map(int, series_id.split("_")), key_slice]
    columns = ("Patient_index", "Study_index", "Series_ID", "Key_slice_index")
    odd: list[str] = []
    stated = [_optional(cells, name, _whole, odd) for name in columns]
    if any(number not in {None, value} for number, value in zip(stated, named, strict=True)):
        odd.append(f"{', '.join(columns)} disagree with the file name, which is used")
    return odd


def _numbers(text: str, count: int, *, may_be_odd: bool = False) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) or may_be_odd for value in values):
        raise SourceError(f"{text!r} where {count} numbers are needed")
    return values


def _zero_based(values: list[float]) -> list[float]:
    # rounded to what the table has, so that 229.222 becomes 228.222 and not 228.22199999999998
    return [round(value - 1, 6) for value in values]


def _number(text: str) -> float:
    (value,) = _numbers(text, 1)
    return value


def _whole(text: str) -> int:
    return int(_number(text))


def _pair(text: str) -> tuple[float, float]:
    first, second = _numbers(text, 2)
    return first, second


def _triple(text: str) -> tuple[float, float, float]:
    x, y, z = _numbers(text, 3)
    return x, y, z


def _lesion_type(text: str) -> str | None:
    number = _whole(text)
    return None if number == -1 else TYPES[number]


def _sex(text: str) -> str:
    if text not in {"F", "M"}:
        raise SourceError(f"{text!r} is neither F nor M")
    return text


def _optional(cells: dict[str, str], name: str, parse: Callable[[str], T], odd: list[str]) -> T | None:
    text = cells.get(name, "")
    if text.lower() in {"", "nan", "none", "null"}:
        return None
    try:
        return parse(text)
    except (ValueError, KeyError):
        odd.append(f"{name} {text!r} is not understood and left empty")
        return None


def _count(marks: list[Mark]) -> tuple[list[Mark], list[Mark]]:
    """Count the marks of each slice in the order of their coordinates; one that is there twice is given apart."""
    numbered: list[Mark] = []
    repeated: list[Mark] = []
    for _, group in groupby(sorted(marks, key=_on_slice), lambda mark: (mark.series_id, mark.key_slice)):
        distinct: dict[Recist, Mark] = {}
        for mark in group:
            if mark.recist in distinct:
                repeated.append(mark)
            else:
                distinct[mark.recist] = mark
        numbered += [replace(mark, number=number) for number, mark in enumerate(distinct.values(), 1)]
    return sorted(numbered, key=lambda mark: mark.row), sorted(repeated, key=lambda mark: mark.row)


def _on_slice(mark: Mark) -> tuple[str, int, tuple[float, ...], int]:
    long, short = mark.recist.axes
    return mark.series_id, mark.key_slice, (*long, *short), mark.row
