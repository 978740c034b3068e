"""``export nnunet``, ``parquet`` and ``croissant``: stores as datasets of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import (
    add_command,
    add_store,
    add_window,
    open_store,
    parse_positive,
    parse_size,
    parse_spacing,
)
from lesionzarr.cli._detection import add_choice, add_classes
from lesionzarr.cli._lesions import chosen
from lesionzarr.cli._print import print_exported
from lesionzarr.errors import SettingError
from lesionzarr.export import crops
from lesionzarr.export.croissant import croissant, to_json
from lesionzarr.export.nnunet import DATASET_ID, export_nnunet
from lesionzarr.window import OWN

if TYPE_CHECKING:
    import argparse


def add_datasets(formats: Any) -> None:
    _add_nnunet(formats)
    _add_parquet(formats)
    _add_croissant(formats)


def _add_nnunet(formats: Any) -> None:
    parser = add_command(formats, "nnunet", _nnunet, "write volumes and masks in nnU-Net's raw format")
    add_store(parser)
    add_choice(parser)
    add_classes(parser)
    parser.add_argument(
        "--pseudo-masks",
        action="store_true",
        help="where a volume has no mask: ellipses of the RECIST axes on key slices, the other slices ignored",
    )
    parser.add_argument(
        "--dataset-id", type=parse_positive, default=DATASET_ID, metavar="N", help="1 to 999 (default: %(default)s)"
    )


def _nnunet(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    exported = export_nnunet(
        catalog,
        chosen(catalog, arguments).values(),
        arguments.output,
        classes=arguments.classes,
        pseudo_masks=arguments.pseudo_masks,
        dataset_id=arguments.dataset_id,
    )
    return print_exported(exported, as_json=arguments.json)


def _add_parquet(formats: Any) -> None:
    text = "write crops as Parquet, one row per lesion, for Hugging Face datasets"
    parser = add_command(formats, "parquet", _parquet, text)
    add_store(parser)
    add_choice(parser)
    parser.add_argument(
        "--size", type=parse_size, default=(9, 128, 128), metavar="Z,Y,X", help="voxels (default: 9,128,128)"
    )
    parser.add_argument(
        "--spacing", type=parse_spacing, metavar="Z,Y,X", help="mm to resample to (default: as they are)"
    )
    add_window(parser, many=True)
    parser.add_argument(
        "--image", choices=crops.FORMATS, default=crops.ARRAY, help="(window, z, y, x), or a PNG (default: %(default)s)"
    )


def _parquet(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    windows = arguments.window or []
    if crops.HU in windows and len(windows) > 1:
        raise SettingError("window hu: HU stand alone, with no other window")
    exported = crops.export_crops(
        catalog,
        chosen(catalog, arguments).values(),
        arguments.output,
        size=arguments.size,
        spacing_mm=arguments.spacing,
        window=windows[0] if len(windows) == 1 and windows[0] in {crops.HU, OWN} else windows or None,
        image=arguments.image,
    )
    return print_exported(exported, as_json=arguments.json)


def _add_croissant(formats: Any) -> None:
    text = "describe a store as Croissant metadata (JSON-LD), for search engines and mlcroissant"
    parser = add_command(formats, "croissant", _croissant, text)
    add_store(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="(default: print it)")
    parser.add_argument(
        "--url", help="where the store is published (default: names relative to the file, which belongs into the store)"
    )


def _croissant(arguments: argparse.Namespace) -> int:
    output = arguments.output
    if output is not None and not arguments.url and output.resolve().parent != Path(arguments.store).resolve():
        raise SettingError(f"{output}: outside of the store its names lead nowhere; write it into that, or name --url")
    text = to_json(croissant(open_store(arguments), arguments.url))
    if arguments.output is None:
        print(text)
        return 0
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(text, encoding="utf-8")
    written = str(arguments.output)
    print(json.dumps({"written": [written], "failed": []}) if arguments.json else f"written to {written}")
    return 0
