"""``export png``, ``coco``, ``voc`` and ``yolo``: key slices, and where the lesions are on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import add_command, add_store, add_window, open_store
from lesionzarr.cli._lesions import chosen
from lesionzarr.cli._print import print_exported
from lesionzarr.export import coco, voc, yolo
from lesionzarr.export.key_slices import CLASSES, DEPTHS, LESION, find_key_slices, write_key_slices
from lesionzarr.export.outcome import Exported

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

NO_PICTURES = "none"


def add_detection(formats: Any) -> None:
    _add(formats, "png", _png, "write key slices as PNG, named as DeepLesion's", classes=False)
    parser = _add(
        formats, "coco", _coco, "write COCO detection JSON, one file per split", depths=(NO_PICTURES, *DEPTHS)
    )
    _add_convention(
        parser, coco.CONVENTIONS, coco.COCO, "from 0, edges of pixels; as MVP-Net's file; as DL_info.csv has it"
    )
    parser.add_argument(
        "--segmentation",
        choices=coco.SEGMENTATIONS,
        default=coco.NONE,
        help="outline of a lesion: its box, the ellipse of its RECIST axes, its mask (default: %(default)s)",
    )
    parser = _add(formats, "voc", _voc, "write PASCAL VOC XML, one file per key slice")
    _add_convention(parser, voc.ORIGINS, voc.VOC, "the first pixel is 1, or 0")
    _add(formats, "yolo", _yolo, "write YOLO labels, one file per key slice, and data.yaml")


def _add(
    formats: Any,
    name: str,
    run: Callable[[argparse.Namespace], int],
    text: str,
    *,
    depths: Sequence[str] = DEPTHS,
    classes: bool = True,
) -> argparse.ArgumentParser:
    parser = add_command(formats, name, run, text)
    add_store(parser)
    add_choice(parser)
    parser.add_argument(
        "--pictures",
        choices=depths,
        default=depths[0],
        help="uint8: grey levels of the window, uint16: HU + 32768 as DeepLesion's (default: %(default)s)",
    )
    add_window(parser, many=False, default="that of the lesions on the slice, else soft-tissue")
    if classes:
        add_classes(parser)
    return parser


def add_choice(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("lesions", nargs="*", metavar="LESION", help="lesion ids; none for all")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where to write")


def add_classes(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--classes", choices=CLASSES, default=LESION, help="one class, or one for each type (default: %(default)s)"
    )


def _add_convention(parser: argparse.ArgumentParser, names: Any, default: str, text: str) -> None:
    parser.add_argument("--convention", choices=tuple(names), default=default, help=f"{text} (default: %(default)s)")


def _png(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    slices, failed = find_key_slices(catalog, chosen(catalog, arguments).values())
    written, files, unread = write_key_slices(
        catalog,
        slices,
        lambda each: Path(arguments.output) / each.path,
        depth=arguments.pictures,
        window=arguments.window,
    )
    counts = {"images": len(written), "lesions": sum(len(each.findings) for each in written)}
    return print_exported(Exported(tuple(files), counts, (*failed, *unread)), as_json=arguments.json)


def _coco(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    exported = coco.export_coco(
        catalog,
        chosen(catalog, arguments).values(),
        arguments.output,
        convention=arguments.convention,
        segmentation=arguments.segmentation,
        classes=arguments.classes,
        pictures=None if arguments.pictures == NO_PICTURES else arguments.pictures,
        window=arguments.window,
    )
    return print_exported(exported, as_json=arguments.json)


def _voc(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    exported = voc.export_voc(
        catalog,
        chosen(catalog, arguments).values(),
        arguments.output,
        convention=arguments.convention,
        classes=arguments.classes,
        pictures=arguments.pictures,
        window=arguments.window,
    )
    return print_exported(exported, as_json=arguments.json)


def _yolo(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    exported = yolo.export_yolo(
        catalog,
        chosen(catalog, arguments).values(),
        arguments.output,
        classes=arguments.classes,
        pictures=arguments.pictures,
        window=arguments.window,
    )
    return print_exported(exported, as_json=arguments.json)
