"""DL_info.csv: its columns, its rows and the way it writes numbers."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lesionzarr.samples._plan import Volume

Row = dict[str, str]

COLUMNS: Final = (
    "File_name",
    "Patient_index",
    "Study_index",
    "Series_ID",
    "Key_slice_index",
    "Measurement_coordinates",
    "Bounding_boxes",
    "Lesion_diameters_Pixel_",
    "Normalized_lesion_location",
    "Coarse_lesion_type",
    "Possibly_noisy",
    "Slice_range",
    "Spacing_mm_px_",
    "Image_size",
    "DICOM_windows",
    "Patient_gender",
    "Patient_age",
    "Train_Val_Test",
)
BOX_MARGIN_PX: Final = 5.0


def cell(values: Iterable[float]) -> str:
    """Write numbers as one cell, with up to six significant digits each."""
    return ", ".join(f"{value:.6g}" for value in values)


def numbers(text: str) -> list[float]:
    """Read the numbers of one cell."""
    return [float(part) for part in text.split(",")]


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as the official file is written: LF line ends, cells with commas in quotes.

    Parameters
    ----------
    path
        File to write.
    rows
        At least one; the first one's keys are the columns.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def describe(volume: Volume, key_slice: int) -> Row:
    """Give a row with all that does not depend on the lesion itself; the other cells are empty.

    Parameters
    ----------
    volume
        The sub-volume that the lesion is in.
    key_slice
        Its slice number.

    Returns
    -------
    dict of str to str
        All columns, in their order.
    """
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "File_name": f"{volume.folder}_{key_slice:03d}.png",
        "Patient_index": str(volume.patient),
        "Study_index": str(volume.study),
        "Series_ID": str(volume.series),
        "Key_slice_index": str(key_slice),
        "Possibly_noisy": "0",
        "Slice_range": cell((volume.first, volume.last)),
        "Spacing_mm_px_": cell((volume.pixel_mm, volume.pixel_mm, volume.interval_mm)),
        "Image_size": cell((volume.size, volume.size)),
        "DICOM_windows": cell(volume.window),
        "Patient_gender": volume.sex,
        "Patient_age": str(volume.age),
        "Train_Val_Test": str(volume.split),
    }
    return row


def measure(row: Row, ends: Sequence[float]) -> None:
    """Fill in the end points of both axes and what follows from them.

    Parameters
    ----------
    row
        Changed: the end points, the box round them and the two diameters.
    ends
        x and y of both ends of the long axis, then of the short axis, in pixels counted from 1.
    """
    row["Measurement_coordinates"] = cell(ends)
    # The official box follows from the rounded end points.
    x0, y0, x1, y1, x2, y2, x3, y3 = numbers(row["Measurement_coordinates"])
    xs, ys = (x0, x1, x2, x3), (y0, y1, y2, y3)
    low = (min(xs) - BOX_MARGIN_PX, min(ys) - BOX_MARGIN_PX)
    row["Bounding_boxes"] = cell((*low, max(xs) + BOX_MARGIN_PX, max(ys) + BOX_MARGIN_PX))
    row["Lesion_diameters_Pixel_"] = cell((math.hypot(x1 - x0, y1 - y0), math.hypot(x3 - x2, y3 - y2)))
