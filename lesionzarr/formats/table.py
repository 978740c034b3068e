"""Comma-separated tables as people have them: with or without a byte-order mark, either line end, re-saved."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from lesionzarr.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lesionzarr.source import SourcePath


def read_csv(path: SourcePath, required: Iterable[str] = ()) -> list[dict[str, str]]:
    """Read a table as text.

    Parameters
    ----------
    path
        The file; UTF-8 with or without byte-order mark.
    required
        Columns that have to be there.

    Returns
    -------
    list of dict
        One per row that is not blank, in order: stripped text by column. A row that is too short lacks the last
        columns; cells beyond the header are dropped.

    Raises
    ------
    SourceError
        The file is absent, no text, empty, or lacks a required column.
    """
    try:
        reader = csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""))
        header = [name.strip() for name in next(reader, [])]
        rows = [dict(zip(header, map(str.strip, cells), strict=False)) for cells in reader if any(cells)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path.name}: cannot be read as a table ({error})") from error
    absent = [name for name in required if name not in header]
    if absent:
        raise SourceError(f"{path.name}: column {', '.join(absent)} is absent; the columns are {', '.join(header)}")
    return rows
