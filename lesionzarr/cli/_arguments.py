"""Arguments that several commands take, and how they are read."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError
from lesionzarr.store._options import parse_option
from lesionzarr.store.catalog import Catalog, open_catalog
from lesionzarr.store.location import is_url
from lesionzarr.window import OWN, PRESETS, WindowLike

if TYPE_CHECKING:
    from collections.abc import Callable

TABLES = (".csv", ".parquet", ".json")
PICTURES = (".png", ".svg", ".pdf")


def add_command(
    commands: Any, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.set_defaults(run=run)
    return parser


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", help="path or URL")
    add_storage_options(parser)


def add_storage_options(parser: argparse.ArgumentParser) -> None:
    text = "of the object store of a URL, such as endpoint=https://s3.example.org or anonymous=true; may be repeated"
    parser.add_argument(
        "--storage-option",
        type=parse_option_text,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest="options",
        help=text,
    )


def add_source_options(parser: argparse.ArgumentParser) -> None:
    text = "of the object store of a source that is a URL, as --storage-option; may be repeated"
    name = "source_options"
    parser.add_argument(
        "--source-option",
        type=parse_option_text,
        action="append",
        default=[],
        metavar="NAME=VALUE",
        dest=name,
        help=text,
    )


def storage_options(arguments: argparse.Namespace, url: str) -> dict[str, Any] | None:
    """Give the storage options of a command for one of its stores; None where there are none."""
    if not is_url(url) and arguments.options:
        stores = [getattr(arguments, name, None) for name in ("store", "destination")]
        if any(name is not None and is_url(name) for name in stores):
            # they are meant for the other one
            return None
        if getattr(arguments, "source", None) is not None and is_url(arguments.source):
            raise SettingError(f"--storage-option is of the store, which is a folder ({url}); --source-option is meant")
    return dict(arguments.options) or None


def open_store(arguments: argparse.Namespace) -> Catalog:
    """Open the store that a command is about."""
    return open_catalog(arguments.store, storage_options(arguments, arguments.store))


def add_window(parser: argparse.ArgumentParser, *, many: bool, default: str = "the lesion's own") -> None:
    names = ", ".join([OWN, *PRESETS])
    text = f"{names}, or low,high in HU as --window=-175,275 (default: {default})"
    if many:
        text += "; hu for HU in an NPY; may be repeated, one channel each"
    parser.add_argument("--window", type=_window, action="append" if many else "store", metavar="WINDOW", help=text)


def parse_option_text(text: str) -> tuple[str, Any]:
    try:
        return parse_option(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE, such as region=eu-central-1") from None


def _window(text: str) -> WindowLike:
    if "," not in text:
        return text
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a preset nor low,high in HU") from None
    return low, high


def parse_size(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not z,y,x in voxels, such as 9,128,128") from None
    return z, y, x


def parse_spacing(text: str) -> tuple[float, float, float]:
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not z,y,x in mm, such as 2,0.8,0.8") from None
    return z, y, x


def parse_count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 0")
    return int(text)


def parse_positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def parse_table(text: str) -> Path:
    return _parse_path(text, "table", TABLES)


def parse_picture(text: str) -> Path:
    return _parse_path(text, "picture", PICTURES)


def _parse_path(text: str, what: str, endings: tuple[str, ...]) -> Path:
    # before hours of work, not after them
    if Path(text).suffix not in endings:
        raise argparse.ArgumentTypeError(f"{text!r}: a {what} ends in {', '.join(endings)}")
    return Path(text)
