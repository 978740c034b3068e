"""The command line: parse, call one public function, print.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 some items failed (listed, with reasons),
2 misuse, 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr._progress import show_progress
from lesionzarr._version import __version__
from lesionzarr.converters._base import converter_names, load_converter
from lesionzarr.converters._run import convert, plan
from lesionzarr.demo import run_demo
from lesionzarr.errors import GeometryError, IntegrityError, LesionzarrError, NotFoundError, SettingError
from lesionzarr.export import pictures
from lesionzarr.export.pack import pack
from lesionzarr.export.tables import to_json, to_text, write_table
from lesionzarr.readers.crop import CropReader
from lesionzarr.store.catalog import Catalog, open_catalog, write_catalog
from lesionzarr.store.layout import PROFILES
from lesionzarr.store.location import open_location
from lesionzarr.window import OWN, PRESETS, WindowLike, resolve_window

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue

COLUMNS = ("volume_id", "key_z", "type", "long_mm", "short_mm", "split")
SHOWN = 20
HU = "hu"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except BrokenPipeError:
        # the reader of the output, such as `head`, has seen enough; Python would complain again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LesionzarrError, OSError, MemoryError, KeyboardInterrupt) as error:
        text, code = _explain(error)
        print(text, file=sys.stderr)
        return code


def _explain(error: BaseException) -> tuple[str, int]:
    """Give the line that says what went wrong, and the exit code."""
    match error:
        case SettingError() | NotFoundError():
            return f"lesionzarr: {error}", 2
        case LesionzarrError():
            return f"lesionzarr: {error}", 1
        case OSError():
            # of files that the user named: those of a store are StoreErrors
            return f"lesionzarr: {error.filename or 'input or output'}: {error.strerror or error}", 1
        case MemoryError():
            return f"lesionzarr: out of memory ({error}); ask for less at a time", 1
        case _:
            return "\nlesionzarr: stopped; a conversion goes on where it was when it is run again", 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lesionzarr", description="CT lesion datasets as Zarr, and crops from them.")
    parser.add_argument("--version", action="version", version=f"lesionzarr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_convert(commands)
    _add_info(commands)
    _add_lesions(commands)
    _add_crop(commands)
    _add_render(commands)
    _add_index(commands)
    _add_pack(commands)
    _add_demo(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def _add_convert(commands: Any) -> None:
    text = "convert a dataset into a store, or go on with a conversion that was stopped"
    names = commands.add_parser("convert", help=text, description=text).add_subparsers(required=True, metavar="DATASET")
    for name in converter_names():
        try:
            kind = load_converter(name)
        except (ImportError, AttributeError) as error:
            print(f"lesionzarr: converter {name} cannot be loaded ({error})", file=sys.stderr)
            continue
        parser = _command(names, name, _convert, f"convert {kind.title}")
        parser.add_argument("source", help="folder of the dataset")
        parser.add_argument("destination", help="path or URL of the store")
        for item in fields(kind):
            if item.name != "source":
                _add_setting(parser, f"--{item.name.replace('_', '-')}", **item.metadata)
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parser.add_argument(
            "--workers", type=_positive, default=cpus, metavar="N", help="processes (default: %(default)s)"
        )
        parser.add_argument("--scheduler", metavar="ADDRESS", help="use the workers of this dask.distributed scheduler")
        parser.add_argument("--profile", choices=PROFILES, default="portable", help="codecs (default: %(default)s)")
        parser.add_argument("--dry-run", action="store_true", help="say what would be done, and write nothing")
        parser.set_defaults(converter=name)


def _add_setting(
    parser: argparse.ArgumentParser, name: str, *, text: str, many: bool = False, flag: bool = False
) -> None:
    if flag:
        parser.add_argument(name, action="store_true", default=None, help=text)
    else:
        parser.add_argument(name, metavar="PATH", type=Path, nargs="+" if many else None, help=text)


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
            progress=progress,
            **options,
        )
    if arguments.json:
        print(json.dumps(report.to_json(), indent=1))
    else:
        _print_counts(report.counts)
        _print_issues("missing", report.missing)
        _print_issues("noted", report.issues)
        _print_issues("failed", report.failed)
        print(f"store: {arguments.destination}; all of this: {arguments.destination}/catalog/report.json")
    return 1 if report.failed else 0


def _dry_run(where: tuple[str, str, str], arguments: argparse.Namespace, options: dict[str, Any]) -> int:
    scan, what = plan(*where, profile=arguments.profile, **options)
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
        _print_counts(counts)
        _print_issues("missing", scan.missing)
        _print_issues("noted", issues)
        _print_issues("failed", scan.failed)
    return 1 if scan.failed else 0


def _add_info(commands: Any) -> None:
    parser = _command(commands, "info", _info, "say what a store holds")
    parser.add_argument("store", help="path or URL")


def _info(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments.store)
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


def _add_lesions(commands: Any) -> None:
    parser = _command(commands, "lesions", _lesions, "print or write the lesion table")
    parser.add_argument("store", help="path or URL")
    parser.add_argument("--query", metavar="TEXT", help="pandas query, such as \"type == 'lung' and long_mm > 10\"")
    parser.add_argument("--columns", metavar="NAMES", help="comma-separated columns to show")
    parser.add_argument(
        "--limit", type=_count, metavar="N", help=f"rows to print (default: {SHOWN}, all with --json; 0: all)"
    )
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="write all rows to a .csv, .parquet or .json")


def _lesions(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments.store)
    frame = _choose(catalog, arguments.query)
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


def _add_crop(commands: Any) -> None:
    parser = _command(commands, "crop", _crop, "read crops and write them as PNG mosaics or NPY arrays")
    parser.add_argument("store", help="path or URL")
    parser.add_argument("lesions", nargs="*", metavar="LESION", help="lesion ids")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument(
        "--size", type=_size, default=(9, 128, 128), metavar="Z,Y,X", help="voxels (default: 9,128,128)"
    )
    _add_window(parser, many=True)
    parser.add_argument("--format", choices=("png", "npy"), default="png", help="(default: %(default)s)")


def _crop(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments.store)
    windows = arguments.window or [None]
    if HU in windows and (len(windows) > 1 or arguments.format == "png"):
        raise SettingError("window hu: a PNG holds grey levels; use --format npy, with no other window")
    # what is wrong with size or windows is said once, not for every lesion
    CropReader(catalog, size=arguments.size, window=[name for name in windows if name not in {None, HU}] or None)

    def write(lesion: Lesion) -> Path:
        window: Any = [_own_or_default(lesion) if item is None else item for item in windows]
        reader = CropReader(catalog, size=arguments.size, window=None if HU in windows else window)
        crop = reader.read(lesion)
        path: Path = arguments.output / f"{lesion.lesion_id}.{arguments.format}"
        if arguments.format == "png":
            pictures.save(pictures.mosaic(crop.image), path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, crop.image)
        return path

    return _for_each(_chosen(catalog, arguments), write, as_json=arguments.json)


def _add_render(commands: Any) -> None:
    parser = _command(commands, "render", _render, "draw key slices with box and RECIST axes, and a contact sheet")
    parser.add_argument("store", help="path or URL")
    parser.add_argument("lesions", nargs="*", metavar="LESION", help="lesion ids; none for all")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--size", type=_positive, metavar="N", help="pixels round the lesion (default: the whole slice)"
    )
    parser.add_argument("--scale", type=_positive, default=1, metavar="N", help="enlarge (default: %(default)s)")
    parser.add_argument(
        "--sheet", type=_count, default=64, metavar="N", help="lesions on contact-sheet.png (default: %(default)s)"
    )
    _add_window(parser, many=False)


def _render(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments.store)
    if arguments.window not in {None, OWN}:
        resolve_window(arguments.window)
    sheet: list[tuple[Any, list[str]]] = []

    def write(lesion: Lesion) -> Path:
        picture = pictures.render_lesion(
            catalog, lesion, window=arguments.window, size=arguments.size, scale=arguments.scale
        )
        if len(sheet) < arguments.sheet:
            close = pictures.render_lesion(catalog, lesion, window=arguments.window, size=128, scale=2)
            sheet.append((close, pictures.caption(lesion)))
        path: Path = arguments.output / f"{lesion.lesion_id}.png"
        pictures.save(picture, path)
        return path

    code = _for_each(_chosen(catalog, arguments), write, as_json=arguments.json)
    if sheet:
        pictures.save(pictures.contact_sheet(sheet), arguments.output / "contact-sheet.png")
    return code


def _add_index(commands: Any) -> None:
    parser = _command(commands, "index", _index, "derive the catalog of a store anew from its volumes")
    parser.add_argument("store", help="path or URL")


def _index(arguments: argparse.Namespace) -> int:
    lesions, damaged = write_catalog(open_location(arguments.store))
    if arguments.json:
        print(json.dumps({"lesions": lesions, "damaged": [issue.message for issue in damaged]}, indent=1))
    else:
        print(f"{lesions:,} lesions in the catalog")
        _print_issues("failed", damaged)
    return 1 if damaged else 0


def _add_pack(commands: Any) -> None:
    parser = _command(commands, "pack", _pack, "write lesions as one array, a chunk each, for training loops")
    parser.add_argument("store", help="path or URL")
    parser.add_argument("destination", help="path or URL of the pack")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument(
        "--size", type=_size, default=(9, 128, 128), metavar="Z,Y,X", help="voxels (default: 9,128,128)"
    )
    parser.add_argument(
        "--margin", type=_size, default=(0, 0, 0), metavar="Z,Y,X", help="voxels on both sides, for random shifts"
    )
    parser.add_argument("--spacing", type=_spacing, metavar="Z,Y,X", help="mm to resample to (default: as they are)")
    parser.add_argument("--profile", choices=PROFILES, default="portable", help="codecs (default: %(default)s)")


def _pack(arguments: argparse.Namespace) -> int:
    catalog = open_catalog(arguments.store)
    lesions = None if arguments.query is None else list(catalog.select(arguments.query).index)
    number = pack(
        catalog,
        arguments.destination,
        size=arguments.size,
        margin=arguments.margin,
        spacing_mm=arguments.spacing,
        lesions=lesions,
        profile=arguments.profile,
    )
    told = {"lesions": number, "pack": arguments.destination}
    print(json.dumps(told) if arguments.json else f"{number:,} lesions packed into {arguments.destination}")
    return 0


def _add_demo(commands: Any) -> None:
    text = "make synthetic data, convert it, read crops and draw them; no download"
    parser = _command(commands, "demo", _demo, text)
    folder = Path("lesionzarr-demo")
    parser.add_argument("-o", "--output", type=Path, default=folder, metavar="DIR", help="(default: %(default)s)")
    parser.add_argument("--workers", type=_positive, default=1, metavar="N", help="processes (default: %(default)s)")
    parser.add_argument(
        "--seed", type=_count, default=0, metavar="N", help="of the synthetic data (default: %(default)s)"
    )


def _demo(arguments: argparse.Namespace) -> int:
    lines: list[str] = []
    facts = run_demo(arguments.output, arguments.workers, arguments.seed, say=lines.append if arguments.json else print)
    if arguments.json:
        print(json.dumps(facts, indent=1))
    return 0


def _add_window(parser: argparse.ArgumentParser, *, many: bool) -> None:
    names = ", ".join([OWN, *PRESETS])
    text = f"{names}, or low,high in HU as --window=-175,275 (default: the lesion's own)"
    if many:
        text += "; hu for HU in an NPY; may be repeated, one channel each"
    parser.add_argument("--window", type=_window, action="append" if many else "store", metavar="WINDOW", help=text)


def _window(text: str) -> WindowLike:
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a preset nor low,high in HU") from None
    return low, high


def _size(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not z,y,x in voxels, such as 9,128,128") from None
    return z, y, x


def _spacing(text: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not z,y,x in mm, such as 2,0.8,0.8") from None
    return z, y, x


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _own_or_default(lesion: Lesion) -> str:
    return OWN if lesion.window else pictures.FALLBACK


def _choose(catalog: Catalog, query: str | None) -> pd.DataFrame:
    return catalog.lesions if query is None else catalog.select(query)


def _chosen(catalog: Catalog, arguments: argparse.Namespace) -> list[Lesion]:
    if arguments.lesions and arguments.query:
        raise SettingError("lesion ids and --query: give one of the two")
    ids = arguments.lesions or list(_choose(catalog, arguments.query).index)
    if not ids:
        raise SettingError(f"--query {arguments.query}: no lesion is like that" if arguments.query else "no lesions")
    return catalog.find_lesions(ids)


def _for_each(lesions: list[Lesion], write: Callable[[Lesion], Path], *, as_json: bool) -> int:
    """Write something per lesion; one that cannot be read is listed, and costs the others nothing."""
    written, failed = [], []
    for lesion in lesions:
        try:
            written.append(str(write(lesion)))
        except (GeometryError, SettingError, IntegrityError) as error:
            failed.append(f"{lesion.lesion_id}: {error}")
    if as_json:
        print(json.dumps({"written": written, "failed": failed}, indent=1))
    else:
        print(f"{len(written):,} written, such as {written[0]}" if written else "nothing written")
        for text in failed:
            print(f"failed: {text}", file=sys.stderr)
    return 1 if failed else 0


def _print_counts(counts: dict[str, int]) -> None:
    for name, number in counts.items():
        print(f"{name + ':':26} {number:,}")


def _print_issues(word: str, issues: Sequence[Issue]) -> None:
    for issue in issues[:SHOWN]:
        print(f"{word}: {issue.message}", file=sys.stderr)
    if len(issues) > SHOWN:
        print(f"{word}: ... and {len(issues) - SHOWN:,} more, in report.json", file=sys.stderr)
