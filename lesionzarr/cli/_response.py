"""``response`` and ``tracks``: lesions followed over the studies of a patient."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr.cli._arguments import (
    add_command,
    add_storage_options,
    add_store,
    open_store,
    parse_picture,
    parse_table,
)
from lesionzarr.cli._print import IN_JSON, print_issues, print_table
from lesionzarr.errors import SettingError, SourceError
from lesionzarr.export.tables import to_json, write_table
from lesionzarr.features._pyrecist import to_pyrecist
from lesionzarr.features.plots import KINDS, SPIDER, plot_response
from lesionzarr.features.release import add_looks, fill_baselines, fill_studies
from lesionzarr.features.response import MODES, PYRECIST, RECIST, evaluate
from lesionzarr.features.timepoints import NO_DIAMETER, to_timepoints
from lesionzarr.features.tracks import link_lesions, name_lesions, summarise_tracks
from lesionzarr.formats.table import read_csv
from lesionzarr.report import Issue

if TYPE_CHECKING:
    import argparse

    from lesionzarr.store.catalog import Catalog

SHOWN = {
    RECIST: (
        *("study_date", "sum_mm", "change_from_baseline_percent", "change_from_nadir_mm"),
        *("change_from_nadir_percent", "new_lesions", "response"),
    ),
    PYRECIST: (
        *("current_date", "current_burden", "burden_percentual_variation_from_baseline"),
        *("burden_difference_from_nadir", "burden_percentual_variation_from_nadir", "classification"),
    ),
}
TRACK = ("visits", "is_new", "is_vanished", "first_long_mm", "last_long_mm", "first_short_mm", "last_short_mm")
NODES = ("node", "lesion_label_type")
"""Columns that tell lymph nodes."""


def add_response(commands: Any) -> None:
    text = "evaluate the response of each patient at each study by RECIST 1.1, from the diameters of the target lesions"
    parser = add_command(commands, "response", _response, text)
    parser.add_argument("store", nargs="?", help="path or URL")
    add_storage_options(parser)
    text = (
        "instead of a store, a CSV with patient_id, study_date, an alias (lesion_label_alias) and a diameter "
        "(measurement or recist_measurement_mm) in each row"
    )
    parser.add_argument("--measurements", type=Path, metavar="CSV", help=text)
    text = "rules; pyrecist also writes its columns (default: %(default)s)"
    parser.add_argument("--mode", choices=MODES, default=RECIST, help=text)
    parser.add_argument(
        "-o", "--output", type=parse_table, metavar="FILE", help="write the table to .csv, .parquet or .json"
    )
    parser.add_argument("--plot", type=parse_picture, metavar="FILE", help="draw it, as .png, .svg or .pdf")
    parser.add_argument("--kind", choices=KINDS, default=SPIDER, help="of the plot (default: %(default)s)")


def _response(arguments: argparse.Namespace) -> int:
    if (arguments.store is None) == (arguments.measurements is None):
        raise SettingError("give either a store or --measurements CSV")
    if arguments.measurements:
        file, lesions, noted = arguments.measurements.name, _read_measurements(arguments.measurements), []
        if arguments.mode == RECIST and not any(name in lesions for name in NODES):
            text = f"{file}: no column {' or '.join(NODES)}; no lesion counts as a lymph node, gone under 10 mm"
            noted = [Issue("no-nodes", "", file, text)]
    else:
        catalog = open_store(arguments)
        file, (lesions, noted) = "", fill_baselines(catalog, _targets(catalog, arguments.store))
        filled, unmeasured = fill_studies(catalog, lesions)
        noted = [*noted, *unmeasured]
        # pyrecist takes a study without any length for one of 0 mm
        lesions = filled if arguments.mode == RECIST else lesions
    try:
        table, issues = evaluate(to_timepoints(lesions), mode=arguments.mode)
    except SettingError as error:
        raise SettingError(f"{file}: {error}" if file else str(error)) from error
    # those of rows that were added are noted already
    issues = [_of_file(issue, file) for issue in issues if issue.item]
    if arguments.plot:
        plot_response(table, arguments.plot, kind=arguments.kind)
    written = to_pyrecist(table) if arguments.mode == PYRECIST else table
    _put(written.set_index("patient_id"), SHOWN[arguments.mode], [*noted, *issues], arguments, "studies")
    return 1 if any(issue.kind != NO_DIAMETER for issue in issues) else 0


def _put(
    table: pd.DataFrame, columns: tuple[str, ...], issues: list[Issue], arguments: argparse.Namespace, what: str
) -> None:
    """Write a table, or print it, and what was odd."""
    table = _with_days(table)
    paths = [str(path) for path in (arguments.output, getattr(arguments, "plot", None)) if path]
    if arguments.output:
        write_table(table, arguments.output)
    if arguments.json:
        told = {what: json.loads(to_json(table)), "issues": [issue.message for issue in issues], "written": paths}
        print(json.dumps(told, indent=1))
        return
    if paths:
        print(f"{len(table):,} {what} written to {' and '.join(paths)}")
    else:
        print_table(table[list(columns)], what)
    print_issues("noted", issues, IN_JSON)


def _with_days(table: pd.DataFrame) -> pd.DataFrame:
    """Give dates as text, without a time of day."""
    dates = table.select_dtypes("datetime")
    return table.assign(**{str(name): dates[name].dt.strftime("%Y-%m-%d") for name in dates})


def _read_measurements(path: Path) -> pd.DataFrame:
    rows = read_csv(path, ("patient_id", "study_date"))
    if not rows:
        raise SourceError(f"{path.name}: no rows below the header; give one per lesion and study")
    table = pd.DataFrame(rows, dtype="string").replace("", pd.NA)
    patients = table["patient_id"]
    # so that patient 10 comes after 9
    return table.assign(patient_id=patients.astype("Int64")) if patients.str.fullmatch(r"\d{1,18}").all() else table


def _targets(catalog: Catalog, store: str) -> pd.DataFrame:
    """Give the lesions of a store that have an alias."""
    lesions = name_lesions(catalog.lesions)
    named = lesions[lesions["alias"].notna()]
    if named.empty:
        raise SettingError(f"{store}: no lesion has an alias, which names it over the studies of its patient")
    return named


def _of_file(issue: Issue, file: str) -> Issue:
    return replace(issue, file=file, message=f"{file}: {issue.message}") if file else issue


def add_tracks(commands: Any) -> None:
    text = "follow lesions over the studies of each patient, from the first study that has them to the last"
    parser = add_command(commands, "tracks", _tracks, text)
    add_store(parser)
    parser.add_argument(
        "-o", "--output", type=parse_table, metavar="FILE", help="write the table to .csv, .parquet or .json"
    )


def _tracks(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    linked, issues = link_lesions(add_looks(catalog, _targets(catalog, arguments.store)))
    _put(summarise_tracks(linked), TRACK, issues, arguments, "tracks")
    return 1 if issues else 0
