"""Lesion tables as files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table as CSV, Parquet or JSON, by the ending of the name.

    Parameters
    ----------
    frame
        Rows of ``catalog.lesions`` or ``catalog.volumes``; the index becomes the first column.
    path
        ``.csv`` (lists as JSON text), ``.parquet`` or ``.json`` (a list of objects).

    Raises
    ------
    SettingError
        Another ending.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    match path.suffix:
        case ".csv":
            flat = frame.map(lambda value: json.dumps(value.tolist()) if hasattr(value, "tolist") else value)
            flat.to_csv(path)
        case ".parquet":
            frame.to_parquet(path)
        case ".json":
            path.write_text(to_json(frame))
        case other:
            raise SettingError(f"{path.name}: a table ends in .csv, .parquet or .json, not {other!r}")


def to_json(frame: pd.DataFrame) -> str:
    """Give a table as JSON: a list of objects, null where a value is missing."""
    text: str = frame.reset_index().to_json(orient="records", indent=1, double_precision=15)
    return text


def to_text(frame: pd.DataFrame) -> str:
    """Give a table as aligned text, one line a row."""
    if frame.empty:
        return "no lesions"
    flat = frame.reset_index().astype(object)
    text: str = flat.where(flat.notna(), "").to_string(index=False, float_format=_number)
    return text


def _number(value: Any) -> str:
    return f"{value:.6g}"
