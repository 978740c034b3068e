"""``features``, ``statistics`` and ``intensities``: what is measured on the voxels of a store."""

from __future__ import annotations

import argparse
import functools
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from lesionzarr._progress import show_count
from lesionzarr.cli._arguments import (
    add_command,
    add_store,
    open_store,
    parse_picture,
    parse_positive,
    parse_table,
)
from lesionzarr.cli._objects import read_objects
from lesionzarr.cli._print import IN_JSON, print_issues, print_table, write_or_print
from lesionzarr.errors import LesionzarrError, SettingError
from lesionzarr.export.tables import to_json, to_text, write_table
from lesionzarr.features.axes import METHODS
from lesionzarr.features.counts import count_tables
from lesionzarr.features.intensities import EDGES_HU, describe_intensities, intensity_density
from lesionzarr.features.measure import UNCONNECTED, measure_mask
from lesionzarr.features.plots import plot_intensities
from lesionzarr.features.radiomics import SETS, extract_features
from lesionzarr.features.regions import MASK, REGIONS
from lesionzarr.features.release import lesions_of_store, series_of_store, targets_of_store
from lesionzarr.features.statistics import summarise
from lesionzarr.features.store import features_of_store, intensities_of_store
from lesionzarr.features.upstream import ELLIPSE, OBB, measure_as_upstream
from lesionzarr.report import Issue
from lesionzarr.store.location import shown

if TYPE_CHECKING:
    from lesionzarr.features.statistics import Measure
    from lesionzarr.store.catalog import Catalog

UPSTREAM = {f"upstream-{name}": name for name in (OBB, ELLIPSE)}
SHOWN = {
    "recist": (
        *("label_description", "voxels_count", "volume_ml", "slices_count", "mean_HU", "std_HU"),
        *("major_axis_mm", "minor_axis_mm", "major_axis_slice_idx"),
    ),
    "shape": ("voxels", "slices", "morph_volume", "morph_diam", "plane_area"),
    "firstorder": ("stat_mean", "stat_var", "stat_p10", "stat_p90"),
    "texture": ("cm_contrast", "rlm_sre", "szm_z_perc"),
}
"""Columns that are printed, by set."""


def add_features(commands: Any) -> None:
    text = "measure lesions: RECIST-like sizes, and first-order, shape and texture features as IBSI defines them"
    parser = add_command(commands, "features", _features, text)
    add_store(parser)
    text = f"some of {','.join(SETS)} (default: recist)"
    parser.add_argument("--set", type=_parse_sets, default=("recist",), metavar="SETS", dest="sets", help=text)
    text = "voxels to measure; the set recist takes masks alone (default: %(default)s)"
    parser.add_argument("--region", choices=REGIONS, default=MASK, help=text)
    bins = parser.add_mutually_exclusive_group()
    text = "size of the bins of grey levels (IBSI: fixed bin size; default: 25)"
    bins.add_argument("--bin-size", type=float, metavar="HU", help=text)
    text = "number of bins of every region instead (IBSI: fixed bin number)"
    bins.add_argument("--bin-number", type=parse_positive, metavar="N", help=text)
    _add_measure(parser, None)
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    text = "processes (default: %(default)s); any number gives the same values"
    parser.add_argument("--workers", type=parse_positive, default=1, metavar="N", help=text)
    parser.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of this dask.distributed scheduler")
    text = (
        "write them to a .csv or .json, or to a folder NAME.parquet: a dataset partitioned by split, which the same "
        "command goes on with after it was stopped"
    )
    parser.add_argument("-o", "--output", type=parse_table, metavar="PATH", help=text)


def _parse_sets(text: str) -> tuple[str, ...]:
    names = tuple(text.split(","))
    if not set(names) <= set(SETS):
        raise argparse.ArgumentTypeError(f"{text!r}: the sets are {', '.join(SETS)}; several as shape,firstorder")
    return names


def _add_measure(parser: argparse.ArgumentParser, method: str | None) -> None:
    text = f"how to measure the axes; upstream-: as recist-dataset, errors included (default: {method or 'feret'})"
    parser.add_argument("--method", choices=(*METHODS, *UPSTREAM), default=method, help=text)
    text = "what to do with several pieces on one slice (default: join; as upstream: largest-area)"
    parser.add_argument("--unconnected", choices=UNCONNECTED, help=text)


def _features(arguments: argparse.Namespace) -> int:
    if "recist" not in arguments.sets and (arguments.method or arguments.unconnected):
        raise SettingError("--method and --unconnected are of the set recist: add it to --set, or leave them out")
    catalog = open_store(arguments)
    lesions = None if arguments.query is None else catalog.select(arguments.query)
    if lesions is not None and lesions.empty:
        raise SettingError(f"--query {arguments.query}: no such lesion")
    folder = arguments.output if arguments.output and arguments.output.suffix == ".parquet" else None
    with show_count("lesions") as progress:
        table = extract_features(
            catalog,
            lesions,
            sets=arguments.sets,
            region=arguments.region,
            bin_size=arguments.bin_size,
            bin_number=arguments.bin_number,
            measure=_how(arguments),
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            output=folder,
            progress=progress,
        )
    if folder is None:
        shown = [column for name in arguments.sets for column in SHOWN[name]]
        write_or_print(table, shown, arguments, "lesions")
    else:
        told = {"lesions": len(table), "written": str(folder)}
        print(json.dumps(told) if arguments.json else f"{len(table):,} lesions written to {folder}")
    failed = _faults(table)
    print_issues("failed", failed, "in the column fault")
    return 1 if failed else 0


def _how(arguments: argparse.Namespace) -> Measure:
    """Give the function that measures a mask."""
    settings = {} if arguments.unconnected is None else {"unconnected": arguments.unconnected}
    method = arguments.method or "feret"
    if method not in UPSTREAM:
        return functools.partial(measure_mask, method=method, **settings)
    if (method, arguments.unconnected) == (f"upstream-{ELLIPSE}", "join"):
        raise SettingError("upstream has no ellipse of joined pieces: choose another --unconnected or --method")
    return functools.partial(measure_as_upstream, method=UPSTREAM[method], **settings)


def _measure(catalog: Catalog, arguments: argparse.Namespace) -> pd.DataFrame:
    table = features_of_store(catalog, measure=_how(arguments))
    if table.empty:
        raise SettingError(f"{shown(arguments.store)}: no lesion has a mask, on which features are measured")
    return table


def _faults(table: pd.DataFrame) -> list[Issue]:
    faults = table["fault"].dropna()
    return [
        Issue("not-measured", str(name), "", text if str(name) in text else f"{name}: {text}", (str(name),))
        for name, text in faults.items()
    ]


def add_statistics(commands: Any) -> None:
    text = "count and describe patients, series and lesions, as the published statistics of recist-dataset do"
    parser = add_command(commands, "statistics", _statistics, text)
    add_store(parser)
    _add_measure(parser, f"upstream-{OBB}")
    text = (
        "objects_results.csv of upstream, or masks of categories (NIfTI, or folders of them): the objects that were "
        "there before small ones were taken away, which a store does not have"
    )
    parser.add_argument("--objects", type=Path, nargs="+", metavar="PATH", help=text)
    text = "write statistics.json and each table of counts as CSV into this folder"
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=text)


def _statistics(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    objects, failed = (None, []) if arguments.objects is None else read_objects(arguments.objects)
    table = _measure(catalog, arguments)
    failed += _faults(table)
    lesions = lesions_of_store(catalog, table[table["fault"].isna()])
    described = _without_nan(
        summarise(lesions, series=series_of_store(catalog), objects=objects, targets=targets_of_store(catalog))
    )
    tables = count_tables(lesions)
    written: list[str] = []
    if arguments.output:
        written = _write_statistics(described, tables, arguments.output)
    if arguments.json:
        counts = {name: json.loads(to_json(frame.set_index(frame.columns[0]))) for name, frame in tables.items()}
        told = {"tables": counts, "failed": [issue.message for issue in failed], "written": written}
        print(json.dumps({**described, **told}, indent=1))
    else:
        _print_statistics(described)
        if written:
            print(f"{len(written)} files written to {arguments.output}")
    print_issues("failed", failed, IN_JSON)
    return 1 if failed else 0


def _write_statistics(described: dict[str, Any], tables: dict[str, pd.DataFrame], folder: Path) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "statistics.json").write_text(json.dumps(described, indent=1) + "\n")
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False)
    return ["statistics.json", *(f"{name}.csv" for name in tables)]


def _print_statistics(described: dict[str, Any]) -> None:
    for name, value in described["summary"].items():
        print(f"{name + ':':28} {_show(value)}")
    parts = {name: values for name, values in described.items() if name != "summary"}
    spread = {name: {key: one for key, one in own.items() if key != "note"} for name, own in parts.items()}
    print()
    print(to_text(pd.DataFrame(spread).T.rename_axis("spread of")))
    for name, values in parts.items():
        if "note" in values:
            print(f"{name}: {values['note']}")


def _show(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {number:,}" for key, number in value.items())
    return f"{value:,}" if isinstance(value, int) else value or "unknown"


def _without_nan(value: Any) -> Any:
    """Give null for NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _without_nan(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value


def add_intensities(commands: Any) -> None:
    text = "describe the distribution of the densities of every CT: mean, deviation, quartiles, histogram"
    parser = add_command(commands, "intensities", _intensities, text)
    add_store(parser)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="where to write stats.csv and densities.csv"
    )
    parser.add_argument(
        "--plot", type=parse_picture, metavar="FILE", help="draw the distributions, as .png, .svg or .pdf"
    )


def _intensities(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    rows: list[dict[str, Any]] = []
    densities: dict[str, Any] = {}
    failed: list[Issue] = []
    volumes = [str(name) for name in catalog.volumes.index[catalog.volumes["modality"] == "CT"]]
    if not volumes:
        raise SettingError(f"{shown(arguments.store)}: no volume of CT, and no other has HU")
    for name in volumes:
        try:
            counted = intensities_of_store(catalog, name)
            rows.append(describe_intensities(counted, name))
            densities[name], _ = intensity_density(counted)
        except LesionzarrError as error:
            failed.append(Issue("no-intensities", name, "", f"{name}: {error}"))
    stats = pd.DataFrame(rows).set_index("filename") if rows else pd.DataFrame()
    bins = pd.DataFrame({"low_hu": EDGES_HU[:-1], "high_hu": EDGES_HU[1:], **densities}).set_index("low_hu")
    if rows:
        write_table(stats, arguments.output / "stats.csv")
        write_table(bins, arguments.output / "densities.csv")
    if rows and arguments.plot:
        middles = pd.DataFrame(densities, index=(EDGES_HU[:-1] + EDGES_HU[1:]) / 2)
        plot_intensities(middles, arguments.plot, groups=_regions(catalog))
    if arguments.json:
        told = {"volumes": json.loads(to_json(stats)), "failed": [issue.message for issue in failed]}
        print(json.dumps(told, indent=1))
    elif rows:
        print_table(stats.drop(columns=["dtype"]), "volumes")
        print(f"{len(rows):,} volumes; stats.csv and densities.csv written to {arguments.output}")
    print_issues("failed", failed, IN_JSON)
    return 1 if failed else 0


def _regions(catalog: Catalog) -> dict[str, str]:
    tags = {str(name): json.loads(cell) for name, cell in catalog.volumes["tags"].items()}
    return {name: own["Region"] for name, own in tags.items() if "Region" in own}
