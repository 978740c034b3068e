"""``convert`` and ``demo``."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr._progress import show_progress
from lesionzarr.cli._arguments import (
    add_command,
    add_source_options,
    add_storage_options,
    parse_count,
    parse_positive,
    storage_options,
)
from lesionzarr.cli._print import print_counts, print_issues
from lesionzarr.converters._base import converter_names, load_converter
from lesionzarr.converters._run import convert, plan
from lesionzarr.demo import run_demo
from lesionzarr.store.layout import PROFILES

if TYPE_CHECKING:
    import argparse


def add_convert(commands: Any) -> None:
    text = "convert a dataset into a store, or go on with a conversion that was stopped"
    names = commands.add_parser("convert", help=text, description=text).add_subparsers(required=True, metavar="DATASET")
    for name in converter_names():
        try:
            kind = load_converter(name)
        except (ImportError, AttributeError) as error:
            print(f"lesionzarr: converter {name} cannot be loaded ({error})", file=sys.stderr)
            continue
        parser = add_command(names, name, _convert, f"convert {kind.title}")
        parser.add_argument("source", help="folder of the dataset: path or URL")
        parser.add_argument("destination", help="path or URL of the store")
        add_storage_options(parser)
        add_source_options(parser)
        for item in fields(kind):
            if item.name != "source":
                add_setting(parser, f"--{item.name.replace('_', '-')}", **item.metadata)
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parser.add_argument(
            "--workers", type=parse_positive, default=cpus, metavar="N", help="processes (default: %(default)s)"
        )
        parser.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of this dask.distributed scheduler")
        parser.add_argument("--profile", choices=PROFILES, default="portable", help="codecs (default: %(default)s)")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
        parser.set_defaults(converter=name)


def add_setting(
    parser: argparse.ArgumentParser,
    name: str,
    *,
    text: str,
    many: bool = False,
    flag: bool = False,
    number: int | None = None,
) -> None:
    if flag:
        parser.add_argument(name, action="store_true", default=None, help=text)
    elif number is not None:
        parser.add_argument(name, metavar="N", type=parse_positive, help=f"{text} (default: {number})")
    else:
        parser.add_argument(name, metavar="PATH", nargs="+" if many else None, help=text)


def _convert(arguments: argparse.Namespace) -> int:
    names = [item.name for item in fields(load_converter(arguments.converter)) if item.name != "source"]
    options = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    where = (arguments.converter, arguments.source, arguments.destination)
    if arguments.dry_run:
        return _dry_run(where, arguments, options)
    with show_progress() as progress:
        report = convert(
            *where,
            workers=arguments.workers,
            scheduler=arguments.scheduler,
            profile=arguments.profile,
            storage_options=storage_options(arguments, arguments.destination),
            source_options=dict(arguments.source_options),
            progress=progress,
            **options,
        )
    if arguments.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        print_counts(report.counts)
        print_issues("missing", report.missing)
        print_issues("noted", report.issues)
        print_issues("failed", report.failed)
        print(f"store: {arguments.destination}; all of this: {arguments.destination}/catalog/report.json")
    return 1 if report.failed else 0


def _dry_run(where: tuple[str, str, str], arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    scan, what = plan(
        *where,
        profile=arguments.profile,
        storage_options=storage_options(arguments, arguments.destination),
        source_options=dict(arguments.source_options),
        **options,
    )
    counts = {
        "volumes to convert": len(what.convert),
        "volumes to update": len(what.update),
        "volumes to skip": len(what.skip),
        "volumes missing": len(scan.missing),
        "slices to read": what.slices,
        "bytes before compression": what.raw_bytes,
        "lesions": sum(len(volume.lesions) for volume in scan.volumes),
    }
    issues = (*scan.issues, *what.issues)
    if arguments.json:
        lists = {"missing": scan.missing, "issues": issues, "failed": scan.failed}
        texts = {name: [asdict(issue) for issue in values] for name, values in lists.items()}
        print(json.dumps({**counts, **texts}, indent=1))
    else:
        print_counts(counts)
        print_issues("missing", scan.missing)
        print_issues("noted", issues)
        print_issues("failed", scan.failed)
    return 1 if scan.failed else 0


def add_demo(commands: Any) -> None:
    text = "make synthetic data, convert it, read crops and draw them; no download"
    parser = add_command(commands, "demo", _demo, text)
    folder = Path("lesionzarr-demo")
    parser.add_argument("-o", "--output", type=Path, default=folder, metavar="DIR", help="(default: %(default)s)")
    parser.add_argument(
        "--workers", type=parse_positive, default=1, metavar="N", help="processes (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=parse_count, default=0, metavar="N", help="of the synthetic data (default: %(default)s)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    lines: list[str] = []
    facts = run_demo(arguments.output, arguments.workers, arguments.seed, say=lines.append if arguments.json else print)
    if arguments.json:
        print(json.dumps(facts, indent=1))
    return 0
