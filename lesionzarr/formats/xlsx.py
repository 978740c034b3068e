"""XLSX spreadsheets as text, so that a table reads alike whether it was saved as XLSX or as CSV.

openpyxl reads; this file bounds what it unpacks, and turns every cell into the text that a CSV of the sheet would hold.
"""

from __future__ import annotations

import datetime as dt
import warnings
import zipfile
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import ParseError

from lesionzarr.errors import MissingExtraError, SourceError

if TYPE_CHECKING:
    from lesionzarr.source import SourcePath

MAX_BYTES = 256 * 2**20
"""Unpacked length of all parts of the longest file that is read."""
MAX_ROWS = 100_000
"""Rows with content; a table of patients has some hundreds."""

DAMAGED = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError, EOFError),
    *(RuntimeError, NotImplementedError, ArithmeticError, ParseError, zipfile.BadZipFile),
)
"""What openpyxl raises for a damaged or protected file."""


def read_xlsx(path: SourcePath) -> list[dict[str, str]]:
    """Read the first worksheet that holds anything.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of dict
        One per row that is not blank, in order: stripped text by column, where the first row that is not blank names
        the columns. Empty cells are empty text, whole numbers have no point, dates are ISO 8601, and a formula is its
        last computed value (empty text where none was saved).

    Raises
    ------
    MissingExtraError
        openpyxl is not installed.
    SourceError
        The file is absent, no XLSX, damaged, or too long.
    """
    try:
        from openpyxl import load_workbook
    except ImportError as error:
        raise MissingExtraError(f"{path.name}: XLSX needs openpyxl: pip install 'lesionzarr[dicom]'") from error
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            # of styles and validations that are not kept
            warnings.simplefilter("ignore", UserWarning)
            _check_size(path, file)
            book = load_workbook(file, read_only=True, data_only=True)
            return next((rows for sheet in book.worksheets if (rows := _rows(sheet, path.name))), [])
    except SourceError:
        raise
    except DAMAGED as error:
        fault = getattr(error, "strerror", None) or error
        raise SourceError(f"{path.name}: cannot be read as XLSX ({fault}); save it anew as XLSX or CSV") from error


def _check_size(path: SourcePath, file: Any) -> None:
    with zipfile.ZipFile(file) as parts:
        size = sum(part.file_size for part in parts.infolist())
    if size > MAX_BYTES:
        raise SourceError(f"{path.name}: {size:,} bytes unpacked, at most {MAX_BYTES:,} are read; save the table alone")
    file.seek(0)


def _rows(sheet: Any, name: str) -> list[dict[str, str]]:
    # some writers state a wrong extent, which would cut the table
    sheet.reset_dimensions()
    header: list[str] = []
    rows: list[dict[str, str]] = []
    for values in sheet.iter_rows(values_only=True):
        cells = [_text(value) for value in values]
        if not any(cells):
            continue
        if not header:
            header = cells
        elif len(rows) == MAX_ROWS:
            raise SourceError(f"{name}: more than {MAX_ROWS:,} rows; this is no table of patients")
        else:
            rows.append({column: cell for column, cell in zip(header, cells, strict=False) if column})
    return rows


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, dt.date | dt.time) else str(value).strip()
