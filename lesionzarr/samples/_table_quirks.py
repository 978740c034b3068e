"""Quirks of what DL_info.csv says, and of how it was saved."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from lesionzarr.samples._draft import Stage, on_dataset, on_volume
from lesionzarr.samples._plan import choose_window, kind_in_turn, plan_spot
from lesionzarr.samples._table import measure, numbers

if TYPE_CHECKING:
    from lesionzarr.samples._draft import Draft, Quirk
    from lesionzarr.samples._plan import Volume
    from lesionzarr.samples._table import Row

GAP_SLICES: Final = 7


def _add_part(draft: Draft, number: int, interval_mm: float) -> None:
    """Give a series one more sub-volume below the others, with one lesion."""
    index = draft.index(number)
    volume = draft.volumes[index]
    parts = [other for other in draft.volumes if other.folder == volume.folder]
    rng = draft.rng(number)
    spots = (plan_spot(rng, kind_in_turn(volume.region, number), volume.count // 2, interval_mm, volume.pixel_mm),)
    part = replace(
        volume,
        part=len(parts),
        first=max(other.last for other in parts) + GAP_SLICES + 1,
        interval_mm=interval_mm,
        window=choose_window(rng, spots),
        spots=spots,
    )
    draft.volumes.insert(index + len(parts), part)


def _put(draft: Draft, volume: Volume) -> None:
    draft.volumes[draft.index(volume.number)] = volume


@on_volume("a series has two sub-volumes with a gap of 7 slice numbers between them", Stage.PLAN)
def disjoint_ranges(draft: Draft, number: int) -> None:
    _add_part(draft, number, draft.volume(number).interval_mm)


@on_volume("a series has two sub-volumes with different slice intervals", Stage.PLAN)
def two_spacings(draft: Draft, number: int) -> None:
    _add_part(draft, number, 1.0 if draft.volume(number).interval_mm > 1 else 5.0)


@on_volume("the images of one series have half as many rows and columns again (768 beside 512)", Stage.PLAN)
def size_768(draft: Draft, number: int) -> None:
    chosen = draft.volume(number)
    size = chosen.size * 3 // 2
    pixel_mm = chosen.pixel_mm * chosen.size / size
    draft.volumes = [
        replace(volume, size=size, pixel_mm=pixel_mm) if volume.folder == chosen.folder else volume
        for volume in draft.volumes
    ]


@on_volume("a lesion touches the right border, so that its box reaches past it", Stage.PLAN)
def box_past_border(draft: Draft, number: int) -> None:
    volume = draft.volume(number)
    first, *others = volume.spots
    _put(draft, replace(volume, spots=(replace(first, at_border=True, angle=0.0), *others)))


@on_volume("the key slice of a lesion is the first slice of its range", Stage.PLAN)
def key_slice_first(draft: Draft, number: int) -> None:
    volume = draft.volume(number)
    first, *others = volume.spots
    # Rows of one slice stay neighbours.
    spots = (replace(first, offset=0), *sorted(others, key=lambda spot: spot.offset != 0))
    _put(draft, replace(volume, spots=spots))


@on_volume("a slice range has one slice only", Stage.PLAN)
def single_slice(draft: Draft, number: int) -> None:
    volume = draft.volume(number)
    _put(draft, replace(volume, count=1, spots=tuple(replace(spot, offset=0) for spot in volume.spots)))


def _set_interval(draft: Draft, number: int, text: str) -> None:
    for row in draft.rows(number):
        x, y, _ = row["Spacing_mm_px_"].split(", ")
        row["Spacing_mm_px_"] = f"{x}, {y}, {text}"


@on_volume("the slice interval of a volume is NaN", Stage.TABLE)
def nan_interval(draft: Draft, number: int) -> None:
    _set_interval(draft, number, "NaN")


@on_volume("the slice interval of a volume is negative", Stage.TABLE)
def negative_interval(draft: Draft, number: int) -> None:
    _set_interval(draft, number, f"{-draft.volume(number).interval_mm:g}")


@on_volume("the age of a patient is NaN", Stage.TABLE)
def nan_age(draft: Draft, number: int) -> None:
    for row in draft.rows(number):
        row["Patient_age"] = "NaN"


@on_volume("a row is marked as noisy, and its axes lie far apart", Stage.TABLE)
def noisy(draft: Draft, number: int) -> None:
    row, size = draft.rows(number)[0], draft.volume(number).size
    *long, x0, y0, x1, y1 = numbers(row["Measurement_coordinates"])
    aside = size * (0.35 if x0 + x1 < size else -0.35)
    measure(row, (*long, x0 + aside, y0, x1 + aside, y1))
    row["Possibly_noisy"] = "1"


@on_volume("the short axis of a lesion is not perpendicular to the long one", Stage.TABLE)
def oblique_axes(draft: Draft, number: int) -> None:
    row = draft.rows(number)[-1]
    *long, x0, y0, x1, y1 = numbers(row["Measurement_coordinates"])
    half, angle = math.hypot(x1 - x0, y1 - y0) / 2, math.atan2(y1 - y0, x1 - x0) + math.radians(35)
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    dx, dy = half * math.cos(angle), half * math.sin(angle)
    measure(row, (*long, x - dx, y - dy, x + dx, y + dy))


def _all_rows(draft: Draft) -> list[Row]:
    return [row for rows in draft.tables for row in rows]


@on_dataset("ages are written as 62.0, as pandas saves them; an unknown age is empty", Stage.TABLE)
def float_ages(draft: Draft) -> None:
    for row in _all_rows(draft):
        age = row["Patient_age"]
        row["Patient_age"] = "" if age == "NaN" else f"{float(age):.1f}"


@on_dataset("columns kaggle_path, Radius and bbox follow the official 18", Stage.TABLE)
def extra_columns(draft: Draft) -> None:
    for row in _all_rows(draft):
        series, _, name = row["File_name"].rpartition("_")
        row["kaggle_path"] = f"images/{series}/{name}"
        row["Radius"] = row["Lesion_diameters_Pixel_"].split(", ")[0]
        row["bbox"] = f"[[{row['Bounding_boxes'].replace(',', '')}]]"


def _separate(draft: Draft, separator: str) -> None:
    for row in _all_rows(draft):
        name = row["File_name"]
        row["File_name"] = f"{name[:12]}{separator}{name[13:]}"


@on_dataset("File_name is written as 000001_01_01/109.png", Stage.TABLE)
def slash_names(draft: Draft) -> None:
    _separate(draft, "/")


@on_dataset(r"File_name is written as 000001_01_01\109.png", Stage.TABLE)
def backslash_names(draft: Draft) -> None:
    _separate(draft, "\\")


@on_volume("Measurement_coordinates of a row cannot be read as numbers", Stage.TABLE)
def bad_row(draft: Draft, number: int) -> None:
    row = draft.rows(number)[0]
    first, _, *others = row["Measurement_coordinates"].split(", ")
    row["Measurement_coordinates"] = ", ".join([first, "n/a", *others])


@on_volume("Slice_range of a volume has its ends swapped", Stage.TABLE)
def backwards_range(draft: Draft, number: int) -> None:
    for row in draft.rows(number):
        row["Slice_range"] = ", ".join(reversed(row["Slice_range"].split(", ")))


@on_volume("File_name of a row leads out of the dataset with ..", Stage.TABLE)
def dotdot_name(draft: Draft, number: int) -> None:
    row = draft.rows(number)[0]
    row["File_name"] = f"../../{row['File_name']}"


@on_volume("File_name of a row names another slice than its index columns", Stage.TABLE)
def name_mismatch(draft: Draft, number: int) -> None:
    row, volume = draft.rows(number)[0], draft.volume(number)
    key_slice = int(row["Key_slice_index"])
    other = key_slice + 1 if key_slice < volume.last else key_slice - 1
    row["File_name"] = row["File_name"].removesuffix(f"{key_slice:03d}.png") + f"{other:03d}.png"


@on_volume("a row stands in the table twice", Stage.TABLE)
def duplicate_row(draft: Draft, number: int) -> None:
    rows = draft.rows(number)
    rows.insert(0, dict(rows[0]))


@on_dataset("rows are in another order", Stage.FILES)
def reordered_rows(draft: Draft) -> None:
    header, *rows = draft.table.read_bytes().splitlines(keepends=True)
    order = draft.rng(0).permutation(len(rows)).tolist()
    draft.table.write_bytes(b"".join([header, *(rows[index] for index in order)]))


@on_dataset("lines of DL_info.csv end in CR LF", Stage.FILES)
def crlf(draft: Draft) -> None:
    draft.table.write_bytes(draft.table.read_bytes().replace(b"\n", b"\r\n"))


@on_dataset("DL_info.csv begins with a byte order mark", Stage.FILES)
def bom(draft: Draft) -> None:
    draft.table.write_bytes(b"\xef\xbb\xbf" + draft.table.read_bytes())


TABLE_QUIRKS: Final[tuple[Quirk, ...]] = (
    disjoint_ranges,
    two_spacings,
    size_768,
    nan_interval,
    negative_interval,
    nan_age,
    noisy,
    box_past_border,
    key_slice_first,
    oblique_axes,
    single_slice,
    float_ages,
    extra_columns,
    slash_names,
    backslash_names,
    bad_row,
    backwards_range,
    dotdot_name,
    name_mismatch,
    duplicate_row,
    reordered_rows,
    crlf,
    bom,
)
