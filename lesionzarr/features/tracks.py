"""Lesions followed over the studies of a patient.

Two rows are the same lesion where patient, region and alias are the same, as for `lesionzarr.features.response`. An
alias alone is not enough: recist-dataset has a patient with an A in the abdomen and another A in the thorax on one day.
Nothing else is guessed: a row without an alias, and rows that share all three at one study, belong to no track.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.errors import SettingError
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

KEY = ("patient_id", "region", "alias")
"""What makes a track."""

NODE = "n"
"""Type of a lymph node, in the labels of recist-dataset."""
NODES = (NODE, "lymph node")
"""The same, and the word that a store has for it."""
DATE_REMEDY = "write it as YYYY-MM-DD or YYYYMMDD"


def link_lesions(lesions: pd.DataFrame) -> tuple[pd.DataFrame, list[Issue]]:
    """Say to which track and visit each lesion belongs.

    Parameters
    ----------
    lesions
        One row per lesion and study: ``patient_id``, ``alias``, and ``study_date`` or ``timepoint`` to order by (the
        date where both are there); ``region``, ``location``, ``long_mm`` and ``short_mm`` where they are known; further
        columns are kept. Series of one day are one visit. A row without an alias tells that there was a study, and
        which region it shows.

    Returns
    -------
    pandas.DataFrame
        The rows as given, with

        - ``visit``: 0 for the patient's first study, 1 for the second, and so on; null without a date;
        - ``track_id``: patient, region and alias, joined by ``/``; null where a row cannot be placed;
        - ``status``: ``"vanished"`` where a length is 0, else ``"baseline"`` at the first visit, ``"new"`` where the
          track begins later, ``"follow-up"`` after that; null without a track.
    list of Issue
        Rows without a date or timepoint, such that cannot be told apart, and tracks whose location changes.

    Raises
    ------
    SettingError
        A column is missing.
    """
    issues: list[Issue] = []
    order = _order(lesions, issues)
    linked = lesions.copy()
    linked["visit"] = order.groupby(lesions["patient_id"]).rank(method="dense").astype("Int64") - 1
    named = [lesions[name].astype("string") if name in lesions else pd.NA for name in KEY]
    keys = pd.DataFrame(dict(zip(KEY, named, strict=True)), index=lesions.index).astype("string")
    track = keys["patient_id"] + "/" + (keys["region"] + "/").fillna("") + keys["alias"]
    track = track.mask(linked["visit"].isna())
    again = linked.assign(track=track).duplicated(["track", "visit"], keep=False)
    note_rows(
        issues,
        "double-lesion",
        linked.assign(track=track)[again & track.notna()],
        lambda row: f"another row of one study is {row['track']} too; both belong to no track",
    )
    linked["track_id"] = track.mask(again)
    _note_moves(linked, issues)
    gone = _is_gone(linked)
    first = linked["visit"].mask(gone).groupby(linked["track_id"]).transform("min")
    status = pd.Series("follow-up", index=linked.index, dtype="string")
    is_first = (linked["visit"] == first).fillna(value=False)
    status = status.mask(is_first, "new").mask((linked["visit"] == 0).fillna(value=False), "baseline")
    linked["status"] = status.mask(gone, "vanished").mask(linked["track_id"].isna())
    return linked, issues


def _is_gone(lesions: pd.DataFrame) -> pd.Series[bool]:
    lengths = [lesions[name] == 0 for name in ("long_mm", "short_mm") if name in lesions]
    gone = pd.concat(lengths, axis=1).any(axis=1) if lengths else pd.Series(data=False, index=lesions.index)
    return gone.astype(bool)


def _note_moves(linked: pd.DataFrame, issues: list[Issue]) -> None:
    if "location" not in linked:
        return
    location = linked["location"].astype("string")
    ordered = linked.assign(location=location).sort_values("visit", kind="stable")
    first = ordered.groupby("track_id")["location"].first()
    before = linked["track_id"].map(first).astype("string")
    note_rows(
        issues,
        "moved-lesion",
        linked.assign(before=before)[(location != before).fillna(value=False).astype(bool)],
        lambda row: f"{row['track_id']} is in {row['location']!r}, and was in {row['before']!r}; it stays one track",
    )


def summarise_tracks(linked: pd.DataFrame) -> pd.DataFrame:
    """Give one row per track, from baseline to the last study.

    Parameters
    ----------
    linked
        As `link_lesions` gives it, with the lengths ``long_mm`` and ``short_mm``.

    Returns
    -------
    pandas.DataFrame
        Indexed by ``track_id``: ``patient_id``, ``region``, ``alias``, ``location``, ``first_visit`` and ``last_visit``
        that have the lesion, the number of ``visits`` that do, ``is_new`` (not there at the patient's first visit),
        ``is_vanished`` (not there at the last that shows its region), and for both lengths the first and last one and
        their difference: ``first_long_mm``, ``last_long_mm``, ``change_long_mm``, and so on with ``short``. A lesion
        that is measured as 0 mm is not there; one that no visit has is left out.
    """
    told = linked[linked["track_id"].notna()].sort_values("visit", kind="stable")
    placed = told[~_is_gone(told)]
    groups = placed.groupby("track_id", sort=True)
    names = [name for name in (*KEY, "location") if name in placed]
    tracks = groups[names].first()
    tracks["first_visit"], tracks["last_visit"] = groups["visit"].min(), groups["visit"].max()
    tracks["visits"] = groups.size()
    tracks["is_new"] = tracks["first_visit"] > 0
    shown = [name for name in KEY[:2] if name in linked]
    last = linked.groupby(shown, dropna=False)["visit"].transform("max").groupby(linked["track_id"]).first()
    tracks["is_vanished"] = tracks["last_visit"] < last.reindex(tracks.index)
    measured = told[told["track_id"].isin(tracks.index)]
    ends = [measured.drop_duplicates("track_id", keep=keep).set_index("track_id") for keep in ("first", "last")]
    for name in ("long", "short"):
        tracks[f"first_{name}_mm"], tracks[f"last_{name}_mm"] = (end[f"{name}_mm"] for end in ends)
        tracks[f"change_{name}_mm"] = tracks[f"last_{name}_mm"] - tracks[f"first_{name}_mm"]
    return tracks


def name_lesions(lesions: pd.DataFrame) -> pd.DataFrame:
    """Give lesions of a store the columns that a track needs.

    Parameters
    ----------
    lesions
        Rows of `lesionzarr.Catalog.lesions`.

    Returns
    -------
    pandas.DataFrame
        The rows with ``alias`` and ``region`` from the column ``extra``, ``location``, the first of the ``labels``, and
        ``node``: whether the source calls the lesion a lymph node (`NODES`). Of a target without a type, such as one
        that is gone and has no label any more, other studies tell it, where they agree; then ``long_mm`` or
        ``short_mm`` is the measured length.
    """
    extras = [json.loads(text) if isinstance(text, str) else {} for text in lesions["extra"]]
    locations = [labels[0] if labels is not None and len(labels) else None for labels in lesions["labels"]]
    named = lesions.assign(
        alias=pd.array([extra.get("alias") for extra in extras], dtype="string"),
        region=pd.array([extra.get("region") for extra in extras], dtype="string"),
        location=pd.array(locations, dtype="string"),
        node=lesions["type"].isin(NODES).astype(bool),
    )
    measured = pd.Series([extra.get("recist_measurement_mm") for extra in extras], lesions.index, dtype="float64")
    return _fill_types(named, measured)


def _fill_types(named: pd.DataFrame, measured_mm: pd.Series[float]) -> pd.DataFrame:
    """Take the type of a target from its other studies, and its measured length with it."""
    groups = (
        named["node"].astype("Float64").mask(named["type"].isna()).groupby([named[name] for name in KEY], dropna=False)
    )
    least, most = groups.transform("min"), groups.transform("max")
    is_found = named["type"].isna() & named["alias"].notna() & (least == most).fillna(value=False).astype(bool)
    node = named["node"].mask(is_found, most == 1).astype(bool)
    # 0 mm is the length of both axes
    for name, counts in (("long_mm", ~node & is_found), ("short_mm", node & is_found)):
        named[name] = named[name].mask(named[name].isna() & (counts | (measured_mm == 0)), measured_mm)
    return named.assign(node=node)


def _order(lesions: pd.DataFrame, issues: list[Issue]) -> pd.Series[Any]:
    check_columns(lesions, ("patient_id", "alias"))
    if "study_date" in lesions:
        dates = parse_dates(lesions["study_date"])
        note_rows(
            issues,
            "bad-date",
            lesions[dates.isna()],
            lambda row: f"{tell_fault('study date', row['study_date'], 'is none')}; {DATE_REMEDY}",
        )
        return dates
    check_columns(lesions, ("timepoint",))
    numbers = pd.to_numeric(lesions["timepoint"], errors="coerce")
    note_rows(
        issues,
        "bad-timepoint",
        lesions[numbers.isna()],
        lambda row: f"{tell_fault('timepoint', row['timepoint'], 'is no number')}; count the studies from 0",
    )
    return numbers


def check_columns(frame: pd.DataFrame, names: Iterable[str]) -> None:
    """Raise SettingError where a table lacks one of the columns."""
    missing = [name for name in names if name not in frame]
    if missing:
        raise SettingError(f"no column {', '.join(missing)}; add it, or rename one of {', '.join(map(str, frame))}")


def note_rows(issues: list[Issue], kind: str, rows: pd.DataFrame, say: Callable[[dict[str, Any]], str]) -> None:
    """Add an issue for each row of a table; those of a store are named by their lesion, others by their number."""
    is_store = rows.index.name == "lesion_id"
    for name, row in zip(rows.index, rows.to_dict("records"), strict=True):
        item = str(name) if is_store else f"row {name}"
        text = say({str(column): cell for column, cell in row.items()})
        issues.append(Issue(kind, item, "", f"{item}: {text}", (item,) if is_store else ()))


def tell_fault(name: str, cell: Any, text: str) -> str:
    """Say what is wrong with a cell, or that there is nothing in it."""
    return f"no {name}" if pd.isna(cell) or not str(cell).strip() else f"{name} {cell!r} {text}"


def parse_dates(dates: pd.Series[Any]) -> pd.Series[pd.Timestamp]:
    """Read dates as ISO 8601 or YYYYMMDD, also as numbers; NaT where one is none."""
    text = dates.astype("string").str.strip().str.removesuffix(" 00:00:00").str.removesuffix(".0")
    digits = text.where(text.str.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{8}").fillna(value=False)).str.replace("-", "")
    return pd.to_datetime(digits, format="%Y%m%d", errors="coerce")
