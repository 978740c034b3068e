"""``crop``, ``render`` and ``pack``: voxels of lesions as files."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.cli._arguments import (
    add_command,
    add_store,
    add_window,
    open_store,
    parse_count,
    parse_positive,
    parse_size,
    parse_spacing,
    storage_options,
)
from lesionzarr.cli._lesions import chosen, for_each, own_or_default
from lesionzarr.errors import SettingError
from lesionzarr.export import pictures
from lesionzarr.export.pack import pack
from lesionzarr.features.axes import METHODS
from lesionzarr.features.measure import measure_mask
from lesionzarr.features.store import measure_lesion
from lesionzarr.readers.crop import CropReader
from lesionzarr.store.layout import PROFILES
from lesionzarr.window import OWN, resolve_window

if TYPE_CHECKING:
    import argparse

    from lesionzarr.lesion import Lesion

HU = "hu"
MEASURED, GIVEN = "measured", "given"


def add_crop(commands: Any) -> None:
    parser = add_command(commands, "crop", _crop, "read crops and write them as PNG mosaics or NPY arrays")
    add_store(parser)
    parser.add_argument("lesions", nargs="*", metavar="LESION", help="lesion ids")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path(), metavar="DIR", help="where to write (default: here)"
    )
    parser.add_argument(
        "--size", type=parse_size, default=(9, 128, 128), metavar="Z,Y,X", help="voxels (default: 9,128,128)"
    )
    add_window(parser, many=True)
    parser.add_argument("--format", choices=("png", "npy"), default="png", help="(default: %(default)s)")


def _crop(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    windows = arguments.window or [None]
    if HU in windows and (len(windows) > 1 or arguments.format == "png"):
        raise SettingError("window hu: a PNG holds grey levels; use --format npy, with no other window")
    # what is wrong with size or windows is said once, not for every lesion
    CropReader(catalog, size=arguments.size, window=[name for name in windows if name not in {None, HU}] or None)

    def write(lesion: Lesion) -> list[Path]:
        window: Any = [own_or_default(lesion) if item is None else item for item in windows]
        reader = CropReader(catalog, size=arguments.size, window=None if HU in windows else window)
        crop = reader.read(lesion)
        path: Path = arguments.output / f"{lesion.lesion_id}.{arguments.format}"
        if arguments.format == "png":
            pictures.save(pictures.mosaic(crop.image), path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, crop.image)
        return [path]

    return for_each(chosen(catalog, arguments), write, as_json=arguments.json)


def add_render(commands: Any) -> None:
    text = "draw key slices with box or outline, both axes and their lengths, and a contact sheet"
    parser = add_command(commands, "render", _render, text)
    add_store(parser)
    parser.add_argument("lesions", nargs="*", metavar="LESION", help="lesion ids; none for all")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--size", type=parse_positive, metavar="N", help="pixels round the lesion (default: the whole slice)"
    )
    parser.add_argument("--scale", type=parse_positive, default=1, metavar="N", help="enlarge (default: %(default)s)")
    parser.add_argument(
        "--axes",
        choices=(MEASURED, GIVEN),
        help="measured on the mask, on the slice that RECIST 1.1 takes, or given by the source "
        "(default: measured where there is a mask)",
    )
    parser.add_argument(
        "--method", choices=tuple(METHODS), default="feret", help="of measured axes (default: %(default)s)"
    )
    parser.add_argument(
        "--sheet", type=parse_count, default=64, metavar="N", help="lesions on contact-sheet.png (default: %(default)s)"
    )
    add_window(parser, many=False)


def _render(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    if arguments.window not in {None, OWN}:
        resolve_window(arguments.window)
    measure = partial(measure_mask, method=arguments.method)
    sheet: list[tuple[Any, list[str]]] = []

    def write(lesion: Lesion) -> list[Path]:
        has_mask = lesion.mask_label is not None and catalog.mask_array(lesion.volume_id) is not None
        if arguments.axes == MEASURED or (arguments.axes is None and has_mask):
            lesion = measure_lesion(catalog, lesion, measure=measure)
        picture = pictures.render_lesion(
            catalog, lesion, window=arguments.window, size=arguments.size, scale=arguments.scale
        )
        if len(sheet) < arguments.sheet:
            close = pictures.render_close(catalog, lesion, window=arguments.window)
            sheet.append((close, pictures.caption(lesion)))
        path: Path = arguments.output / f"{lesion.lesion_id}.png"
        pictures.save(picture, path)
        return [path]

    code = for_each(chosen(catalog, arguments), write, as_json=arguments.json)
    if sheet:
        pictures.save(pictures.contact_sheet(sheet), arguments.output / "contact-sheet.png")
    return code


def add_pack(commands: Any) -> None:
    parser = add_command(commands, "pack", _pack, "write lesions as one array, a chunk each, for training loops")
    add_store(parser)
    parser.add_argument("destination", help="path or URL of the pack")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument(
        "--size", type=parse_size, default=(9, 128, 128), metavar="Z,Y,X", help="voxels (default: 9,128,128)"
    )
    parser.add_argument(
        "--margin", type=parse_size, default=(0, 0, 0), metavar="Z,Y,X", help="voxels on both sides, for random shifts"
    )
    parser.add_argument(
        "--spacing", type=parse_spacing, metavar="Z,Y,X", help="mm to resample to (default: as they are)"
    )
    parser.add_argument("--profile", choices=PROFILES, default="portable", help="codecs (default: %(default)s)")


def _pack(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    lesions = None if arguments.query is None else list(catalog.select(arguments.query).index)
    number = pack(
        catalog,
        arguments.destination,
        size=arguments.size,
        margin=arguments.margin,
        spacing_mm=arguments.spacing,
        lesions=lesions,
        profile=arguments.profile,
        storage_options=storage_options(arguments, arguments.destination),
    )
    told = {"lesions": number, "pack": arguments.destination}
    print(json.dumps(told) if arguments.json else f"{number:,} lesions packed into {arguments.destination}")
    return 0
