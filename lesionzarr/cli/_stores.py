"""``info``, ``lesions`` and ``index``: what a store holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import add_command, add_store, open_store, parse_count, storage_options
from lesionzarr.cli._lesions import choose
from lesionzarr.cli._print import SHOWN, print_issues
from lesionzarr.errors import SettingError
from lesionzarr.export.tables import to_json, to_text, write_table
from lesionzarr.store.claims import check_writable
from lesionzarr.store.index import write_catalog
from lesionzarr.store.location import open_location
from lesionzarr.store.verify import reach_store

if TYPE_CHECKING:
    import argparse

COLUMNS = ("volume_id", "key_z", "type", "long_mm", "short_mm", "split")


def add_info(commands: Any) -> None:
    parser = add_command(commands, "info", _info, "say what a store holds")
    add_store(parser)


def _info(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    counts = catalog.counts()
    if arguments.json:
        print(json.dumps({"store": catalog.info, "counts": counts}, indent=1))
        return 0
    for name, value in catalog.info.items():
        print(f"{name:9} {value}")
    for name, number in counts.items():
        if isinstance(number, dict):
            print(f"{name}: {', '.join(f'{key} {value:,}' for key, value in number.items())}")
        else:
            print(f"{name}: {number:,}")
    return 0


def add_lesions(commands: Any) -> None:
    parser = add_command(commands, "lesions", _lesions, "print or write the lesion table")
    add_store(parser)
    parser.add_argument("--query", metavar="TEXT", help="pandas query, such as \"type == 'lung' and long_mm > 10\"")
    parser.add_argument("--columns", metavar="NAMES", help="comma-separated columns to show")
    parser.add_argument(
        "--limit", type=parse_count, metavar="N", help=f"rows to print (default: {SHOWN}, all with --json; 0: all)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write all rows to a .csv, .parquet or .json")


def _lesions(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    frame = choose(catalog, arguments.query)
    if arguments.columns or not (arguments.json or arguments.output):
        names = [name.strip() for name in arguments.columns.split(",")] if arguments.columns else list(COLUMNS)
        # the id is there anyway
        names = [name for name in names if name != frame.index.name]
        unknown = [name for name in names if name not in frame]
        if unknown:
            raise SettingError(f"no column {', '.join(unknown)}; the columns are {', '.join(map(str, frame))}")
        frame = frame[names]
    limit = arguments.limit if arguments.limit is not None else 0 if arguments.json else SHOWN
    if arguments.output:
        write_table(frame, arguments.output)
        written = {"lesions": len(frame), "written": str(arguments.output)}
        print(json.dumps(written) if arguments.json else f"{len(frame):,} lesions written to {arguments.output}")
    elif arguments.json:
        print(to_json(frame.head(limit) if limit else frame))
    else:
        print(to_text(frame.head(limit) if limit else frame))
        if 0 < limit < len(frame):
            print(f"... and {len(frame) - limit:,} more (--limit 0 prints all)")
    return 0


def add_index(commands: Any) -> None:
    parser = add_command(commands, "index", _index, "derive the catalog of a store anew from its volumes")
    add_store(parser)


def _index(arguments: argparse.Namespace) -> int:
    location = reach_store(open_location(arguments.store, storage_options(arguments, arguments.store)))
    check_writable(location)
    lesions, damaged = write_catalog(location)
    if arguments.json:
        print(json.dumps({"lesions": lesions, "damaged": [issue.message for issue in damaged]}, indent=1))
    else:
        print(f"{lesions:,} lesions in the catalog")
        print_issues("failed", damaged)
    return 1 if damaged else 0
