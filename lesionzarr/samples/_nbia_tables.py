"""Tables and annotation files of a made-up Lung-PET-CT-Dx."""

from __future__ import annotations

import csv
import io
import re
import zipfile
from typing import TYPE_CHECKING, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence
    from pathlib import Path

    from pydicom import Dataset

    from lesionzarr.samples._nbia_plan import Subject

Box = tuple[int, int, int, int]
"""xmin, ymin, xmax, ymax in pixels counted from 0."""

METADATA_COLUMNS: Final = (
    "Series UID",
    "Collection",
    "3rd Party Analysis",
    "Data Description URI",
    "Subject ID",
    "Study UID",
    "Study Description",
    "Study Date",
    "Series Description",
    "Manufacturer",
    "Modality",
    "SOP Class Name",
    "SOP Class UID",
    "Number of Images",
    "File Size",
    "File Location",
    "Download Timestamp",
)

CLINICAL_COLUMNS: Final = (
    "No.",
    "NewPatientID",
    "Sex",
    "Age",
    "weight (kg)",
    "T-Stage",
    "N-Stage",
    # The published sheet writes this one letter full-width.
    "\N{FULLWIDTH LATIN CAPITAL LETTER M}-Stage",
    "Histopathological grading",
    "Smoking History",
)

# The day of the published sheet, so that the time of day cannot change the bytes.
_SHEET_TIME: Final = (2020, 12, 21, 0, 0, 0)


def plain(description: str) -> str:
    """Drop the symbols of a description that the NBIA Data Retriever leaves out."""
    return "".join(letter for letter in description if letter.isalnum() or letter in " .-_")


def describe_series(first: Dataset, subject: Subject, location: str, sizes: Sequence[int]) -> dict[str, str]:
    """Give a series' row of metadata.csv.

    Parameters
    ----------
    first
        Its first instance.
    subject
        Whose it is.
    location
        Its folder, relative to that of the table.
    sizes
        Bytes of each of its files.

    Returns
    -------
    dict of str to str
        Cells by the names of `METADATA_COLUMNS`.
    """
    from pydicom.uid import UID

    size = sum(sizes)
    cells = (
        str(first.SeriesInstanceUID),
        "Lung-PET-CT-Dx",
        "null",
        "null",
        subject.patient_id,
        str(first.StudyInstanceUID),
        plain(first.StudyDescription),
        f"{subject.day:%m-%d-%Y}",
        str(first.SeriesDescription),
        subject.scanner.manufacturer,
        str(first.Modality),
        UID(first.SOPClassUID).name,
        str(first.SOPClassUID),
        str(len(sizes)),
        f"{size / 1e6:.2f} MB" if size >= 1e6 else f"{size / 1e3:.2f} KB",
        f"./{location}",
        "2023-02-03T23:47:29.64",
    )
    return dict(zip(METADATA_COLUMNS, cells, strict=True))


def write_metadata(path: Path, rows: Iterable[dict[str, str]]) -> None:
    """Write metadata.csv as the NBIA Data Retriever does.

    Parameters
    ----------
    path
        Where to.
    rows
        As `describe_series` gives them.
    """
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, METADATA_COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def voc(objects: Iterable[tuple[str, Box]], size: int) -> str:
    """Give an annotation in the form of the published ones: PASCAL VOC without an XML declaration.

    Parameters
    ----------
    objects
        Label and box of each object.
    size
        Rows and columns of the image.

    Returns
    -------
    str
        The text of the file.
    """
    lines = [
        '<annotation verified="no">',
        "  <folder>Unknow</folder>",
        "  <filename>Unknow</filename>",
        "  <path>Unknow</path>",
        "  <source>Unknow<database>Unknown</database>",
        "  </source>",
        "  <size>",
        f"    <width>{size}</width>",
        f"    <height>{size}</height>",
        "    <depth>1</depth>",
        "  </size>",
        "  <segmented>0</segmented>",
    ]
    for label, box in objects:
        lines += ["  <object>", f"    <name>{escape(label)}</name>", "    <pose>Unspecified</pose>"]
        lines += ["    <truncated>0</truncated>", "    <Difficult>0</Difficult>", "    <bndbox>"]
        names = ("xmin", "ymin", "xmax", "ymax")
        lines += [f"      <{name}>{value}</{name}>" for name, value in zip(names, box, strict=True)]
        lines += ["    </bndbox>", "  </object>"]
    return "\n".join([*lines, "</annotation>"])


def write_clinical(path: Path, subjects: Iterable[Subject], without: Collection[str] = ()) -> None:
    """Write the clinical sheet; the same subjects give the same bytes.

    Parameters
    ----------
    path
        Where to.
    subjects
        One row each.
    without
        Names of `CLINICAL_COLUMNS` to leave out.
    """
    from openpyxl import Workbook

    kept = [index for index, name in enumerate(CLINICAL_COLUMNS) if name not in without]
    book = Workbook()
    sheet = book.worksheets[0]
    sheet.append([CLINICAL_COLUMNS[index] for index in kept])
    for row, subject in enumerate(subjects, 1):
        clinical = subject.clinical
        cells = (
            row,
            subject.short_id,
            subject.sex,
            clinical.age,
            clinical.weight_kg,
            *clinical.stages,
            clinical.grading,
            clinical.smoking,
        )
        sheet.append([cells[index] for index in kept])
    saved = io.BytesIO()
    book.save(saved)
    _write_timeless(path, saved)


def _write_timeless(path: Path, saved: io.BytesIO) -> None:
    """Copy a workbook with the time of its making replaced, inside and in the zip's directory."""
    with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            data = source.read(name)
            if name == "docProps/core.xml":
                data = re.sub(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"2020-12-21T00:00:00Z", data)
            entry = zipfile.ZipInfo(name, _SHEET_TIME)
            entry.compress_type = zipfile.ZIP_DEFLATED
            target.writestr(entry, data)
