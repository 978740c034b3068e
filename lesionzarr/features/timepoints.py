"""Diameters of lesions by study, as responses are computed from them: made of the tables of others, and checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.features.tracks import DATE_REMEDY, NODES, check_columns, note_rows, parse_dates, tell_fault

if TYPE_CHECKING:
    from collections.abc import Callable

    from lesionzarr.report import Issue

TARGET, NON_TARGET, NEW = "target", "non-target", "new"
CATEGORIES = (TARGET, NON_TARGET, NEW)
ABSENT, PRESENT, PROGRESSION = "absent", "present", "progression"
STATES = (ABSENT, PRESENT, PROGRESSION)

NAMES = {
    "measurement": "diameter_mm",
    "recist_measurement_mm": "diameter_mm",
    "lesion_label_alias": "alias",
    "lesion_category": "category",
}
"""Columns of pyrecist and of recist-dataset, and what they are called here."""

NO_DIAMETER = "no-diameter"
"""Kind of the one issue that is no fault of a table: a target was not measured."""
YES_OR_NO = {"true": True, "yes": True, "1": True, "1.0": True, "false": False, "no": False, "0": False, "0.0": False}


@dataclass(frozen=True, eq=False)
class Timepoints:
    """Rows that mean something, and what became of the others."""

    rows: pd.DataFrame
    incomplete: frozenset[Any]
    """Patients of whom a row was left out, so that nobody knows which study is their first or what is new."""
    issues: list[Issue]


def to_timepoints(lesions: pd.DataFrame) -> pd.DataFrame:
    """Make the table that `lesionzarr.features.response.evaluate` takes.

    Parameters
    ----------
    lesions
        Measurements of pyrecist (``measurement``, ``lesion_label_alias``, ``lesion_category``), of recist-dataset
        (``recist_measurement_mm``, ``lesion_label_type``, ``region``), or the named lesions of a store
        (`lesionzarr.features.tracks.name_lesions`), of which those without an alias are left out: they are no targets.

    Returns
    -------
    pandas.DataFrame
        With ``alias``, after the region where there is one: recist-dataset has an A in the abdomen and another in the
        thorax of one patient. The diameter of a node is ``short_mm``, of all else ``long_mm``, where both are given.

    Raises
    ------
    SettingError
        A column is missing.
    """
    table = lesions.rename(columns={name: new for name, new in NAMES.items() if new not in lesions})
    if "diameter_mm" not in table and "long_mm" in table:
        check_columns(table, ("alias", "node", "long_mm", "short_mm"))
        table = table[table["alias"].notna()]
        table = table.assign(diameter_mm=table["long_mm"].mask(table["node"], table["short_mm"]))
    _check(table, lesions)
    if "node" not in table and "lesion_label_type" in table:
        table = table.assign(node=_text(table["lesion_label_type"]).str.lower().isin(NODES).astype(bool))
    if "region" in table:
        region = (table["region"].astype("string") + "/").fillna("")
        table = table.assign(alias=region + table["alias"].astype("string"))
    kept = ("patient_id", "study_date", "alias", "diameter_mm", "node", "category", "status")
    return table[[name for name in kept if name in table]]


def clean_timepoints(timepoints: pd.DataFrame) -> Timepoints:
    """Check every cell of a table, and leave out what means nothing.

    Parameters
    ----------
    timepoints
        As of `lesionzarr.features.response.evaluate`.

    Returns
    -------
    Timepoints
        A cell that means nothing is empty, and the row stays; a row is left out where it has no patient, date or alias,
        or its category is unknown. Of rows for one lesion at one study the first stays, unmeasured where they differ.

    Raises
    ------
    SettingError
        A column is missing.
    """
    _check(timepoints, timepoints)
    issues: list[Issue] = []
    defaults: dict[str, Any] = {"node": False, "category": TARGET, "status": None}
    table = timepoints.assign(**{name: value for name, value in defaults.items() if name not in timepoints})
    given = table
    table = table.assign(
        study_date=parse_dates(table["study_date"]),
        alias=_text(table["alias"]),
        diameter_mm=_lengths(table["diameter_mm"]),
        node=_text(table["node"]).str.lower().map(YES_OR_NO).astype("boolean"),
        category=_text(table["category"]).str.lower(),
        status=_text(table["status"]).str.lower(),
    )
    table["status"] = table["status"].where(table["status"].isin(STATES))
    _note_cells(issues, given, table)
    faults: dict[str, tuple[pd.Series[bool], Callable[[dict[str, Any]], str]]] = {
        "no-patient": (_text(table["patient_id"]).isna(), lambda _: "no patient; the row is left out"),
        "bad-date": (table["study_date"].isna(), _bad_date),
        "no-alias": (table["alias"].isna(), _no_alias),
        "bad-category": (~table["category"].isin(CATEGORIES), _bad_category),
    }
    lost = pd.Series(data=False, index=table.index)
    for kind, (faulty, say) in faults.items():
        note_rows(issues, kind, given[faulty & ~lost], say)
        lost |= faulty
    return Timepoints(_merge(table[~lost], issues), frozenset(table.loc[lost, "patient_id"].dropna().tolist()), issues)


def _check(table: pd.DataFrame, given: pd.DataFrame) -> None:
    for name in ("patient_id", "study_date", "alias", "diameter_mm"):
        if name not in table:
            others = [other for other, new in NAMES.items() if new == name]
            columns = ", ".join(map(str, given))
            raise SettingError(f"no column {' or '.join([name, *others])}; add it, or rename one of {columns}")


def _text(cells: pd.Series[Any]) -> pd.Series[str]:
    """Give cells as text, null where there is none."""
    text = cells.astype("string").str.strip()
    return text.mask(text == "")


def _lengths(cells: pd.Series[Any]) -> pd.Series[float]:
    numbers = pd.to_numeric(cells, errors="coerce").astype("float64")
    return numbers.where(np.isfinite(numbers) & (numbers >= 0))


def _note_cells(issues: list[Issue], given: pd.DataFrame, table: pd.DataFrame) -> None:
    unmeasured = table["diameter_mm"].isna()
    empty = _text(given["diameter_mm"]).isna()
    note_rows(
        issues,
        "bad-diameter",
        given[unmeasured & ~empty],
        lambda row: f"diameter {row['diameter_mm']!r} is no length in mm; it counts as not measured",
    )
    note_rows(
        issues,
        NO_DIAMETER,
        given[unmeasured & empty & (table["category"] == TARGET)],
        lambda _: "no diameter; the target counts as not measured",
    )
    note_rows(
        issues,
        "bad-status",
        given[table["status"].isna() & _text(given["status"]).notna()],
        lambda row: (
            f"status {row['status']!r} is none of {', '.join(STATES)}; the diameter tells it, where there is one"
        ),
    )
    note_rows(
        issues,
        "bad-node",
        given[table["node"].isna() & _text(given["node"]).notna()],
        lambda row: f"node {row['node']!r} is neither true nor false; the lesion counts as none",
    )
    table["node"] = table["node"].fillna(value=False).astype(bool)


def _bad_date(row: dict[str, Any]) -> str:
    return f"{tell_fault('study date', row['study_date'], 'is none')}, {DATE_REMEDY}; {_left_out(row)}"


def _no_alias(row: dict[str, Any]) -> str:
    return f"no alias, which names the lesion over the studies; {_left_out(row)}"


def _bad_category(row: dict[str, Any]) -> str:
    fault = tell_fault("category", row["category"], f"is none of {', '.join(CATEGORIES)}")
    return f"{fault}; {_left_out(row)}"


def _left_out(row: dict[str, Any]) -> str:
    return f"the row is left out, and patient {row['patient_id']} is not evaluated"


def _merge(table: pd.DataFrame, issues: list[Issue]) -> pd.DataFrame:
    """Make one row of those for a lesion at a study."""
    key = ["patient_id", "study_date", "alias"]
    again = table.duplicated(key)
    if not again.any():
        return table
    differing = [name for name in ("diameter_mm", "category", "status", "node") if name in table]
    unlike = table.groupby(key, sort=False)[differing].transform(lambda cells: cells.nunique(dropna=False)).gt(1)
    unlike_rows = unlike.any(axis=1)
    note_rows(
        issues,
        "double-row",
        table[again],
        lambda row: (
            f"a second row for {row['alias']} of patient {row['patient_id']} at {row['study_date']:%Y-%m-%d}; "
            "the first stays, and counts as not measured where they differ"
        ),
    )
    table = table.assign(diameter_mm=table["diameter_mm"].mask(unlike_rows), status=table["status"].mask(unlike_rows))
    return table[~again]
