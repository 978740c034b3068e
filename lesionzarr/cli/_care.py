"""``verify``, ``repair`` and ``sync``: checking, mending and copying stores."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lesionzarr._progress import show_count, show_progress
from lesionzarr.cli._arguments import (
    add_command,
    add_source_options,
    add_store,
    parse_count,
    parse_option_text,
    parse_positive,
    storage_options,
)
from lesionzarr.cli._convert import add_setting
from lesionzarr.cli._print import IN_JSON, print_counts, print_issues
from lesionzarr.converters._base import converter_names, load_converter
from lesionzarr.converters._care import open_source, repair, verify
from lesionzarr.store._parallel import cores
from lesionzarr.store.claims import check_writable
from lesionzarr.store.location import open_location, shown
from lesionzarr.store.sync import THREADS, sync
from lesionzarr.store.verify import reach_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lesionzarr.converters._care import Repair


def add_verify(commands: Any) -> None:
    text = "check that every object of a store is there and as it was written; ends with 1 if something is wrong"
    parser = add_command(commands, "verify", _verify, text)
    add_store(parser)
    text = "share of the volumes whose voxels are read (default: 1; metadata are read of all)"
    parser.add_argument("--sample", type=_share, default=1.0, metavar="P", help=text)
    parser.add_argument("--seed", type=parse_count, default=0, metavar="N", help="of the sample (default: %(default)s)")
    _add_threads(parser, cores())
    _add_source(parser, "folder of the dataset; volumes that it has in another way, or the store has not, are told too")


def _verify(arguments: argparse.Namespace) -> int:
    with show_count("B") as progress:
        found = verify(
            arguments.store,
            sample=arguments.sample,
            seed=arguments.seed,
            source=arguments.source,
            threads=arguments.threads,
            storage_options=storage_options(arguments, arguments.store),
            source_options=dict(arguments.source_options),
            progress=progress,
            **_options(arguments),
        )
    if arguments.json:
        print(json.dumps(found.to_json(), indent=1))
    else:
        print_counts(found.counts)
        for issue in found.issues:
            print(f"{issue.kind}: {issue.message}")
        print_issues("left over", found.leftovers, IN_JSON)
    return 1 if found.issues else 0


def add_repair(commands: Any) -> None:
    text = "write the damaged volumes of a store anew from their source, and then the catalog"
    parser = add_command(commands, "repair", _repair, text)
    add_store(parser)
    _add_source(parser, "folder of the dataset; without it, only what needs no source is done")
    parser.add_argument(
        "--workers", type=parse_positive, default=1, metavar="N", help="processes that convert (default: %(default)s)"
    )
    _add_threads(parser, cores())


def _repair(arguments: argparse.Namespace) -> int:
    options = storage_options(arguments, arguments.store)
    # before hours of reading, not after them
    location = reach_store(open_location(arguments.store, options))
    check_writable(location)
    if arguments.source is not None:
        open_source(location, arguments.source, dict(arguments.source_options), _options(arguments))
    with show_count("B") as progress:
        found = verify(arguments.store, threads=arguments.threads, storage_options=options, progress=progress)
    with show_progress() as slices:
        done = repair(
            arguments.store,
            arguments.source,
            verification=found,
            workers=arguments.workers,
            storage_options=options,
            source_options=dict(arguments.source_options),
            progress=slices,
            **_options(arguments),
        )
    if arguments.json:
        print(json.dumps(done.to_json(), indent=1))
    else:
        _print_repair(done, is_damaged=bool(found.issues))
    return 1 if done.remaining else 0


def _print_repair(done: Repair, *, is_damaged: bool) -> None:
    for name in done.rewritten:
        print(f"rewritten: volume {name}")
    for name in done.by_others:
        print(f"rewritten by another: volume {name}")
    for name in done.deleted:
        print(f"deleted: {name}, a copy of another volume")
    if done.groups:
        print("rewritten: the groups round the volumes")
    if done.catalog:
        print("rewritten: the catalog")
    if not is_damaged:
        print("nothing is damaged")
    for issue in done.changed:
        print(f"noted: {issue.message}")
    for issue in done.remaining:
        print(f"remaining: {issue.message}", file=sys.stderr)


def add_sync(commands: Any) -> None:
    text = "copy a store to another place, or go on with a copy that was stopped; what is there already is skipped"
    parser = add_command(commands, "sync", _sync, text)
    add_store(parser)
    parser.add_argument("destination", help="path or URL of the copy")
    text = "of the destination, where both are URLs and its options are others"
    parser.add_argument(
        "--destination-option",
        type=parse_option_text,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="destination_options",
        help=text,
    )
    parser.add_argument("--verify", action="store_true", help="compare by content what is there and what was written")
    parser.add_argument("--delete", action="store_true", help="delete volumes from the copy that the store has not")
    _add_threads(parser, THREADS)


def _sync(arguments: argparse.Namespace) -> int:
    own = dict(arguments.destination_options)
    with show_count("B") as progress:
        done = sync(
            arguments.store,
            arguments.destination,
            storage_options=storage_options(arguments, arguments.store),
            destination_options=own or storage_options(arguments, arguments.destination),
            verify=arguments.verify,
            delete=arguments.delete,
            threads=arguments.threads,
            progress=progress,
        )
    if arguments.json:
        print(json.dumps(done.to_json(), indent=1))
    else:
        print_counts(done.counts)
        for name in done.kept:
            print(f"kept: volume {name}, which {shown(arguments.store)} does not have (--delete deletes it)")
        for name in done.deleted:
            print(f"deleted: volume {name}")
        for issue in done.failed:
            print(f"failed: {issue.message}", file=sys.stderr)
    return 1 if done.failed else 0


def _add_threads(parser: argparse.ArgumentParser, default: int) -> None:
    parser.add_argument(
        "--threads", type=parse_positive, default=default, metavar="N", help="volumes at a time (default: %(default)s)"
    )


def _add_source(parser: argparse.ArgumentParser, text: str) -> None:
    """Add the source, and the settings of every converter, of which those of the store's own are good."""
    parser.add_argument("--source", metavar="SRC", help=text)
    add_source_options(parser)
    for name, metadata in _all_settings():
        add_setting(parser, f"--{name.replace('_', '-')}", **metadata)


def _all_settings() -> Iterator[tuple[str, dict[str, Any]]]:
    told: set[str] = set()
    for name in converter_names():
        try:
            items = fields(load_converter(name))
        except (ImportError, AttributeError):
            # `convert` says so
            continue
        for item in items:
            if item.name != "source" and item.name not in told:
                told.add(item.name)
                yield item.name, dict(item.metadata)


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    values = {name: getattr(arguments, name) for name, _ in _all_settings()}
    return {name: value for name, value in values.items() if value is not None}


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1, such as 0.1")
    return share
