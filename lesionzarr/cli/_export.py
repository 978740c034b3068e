"""``export`` and ``metadata``: volumes as NIfTI, and what their headers say; other formats are in their own files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import (
    add_command,
    add_storage_options,
    add_store,
    add_window,
    open_store,
    storage_options,
)
from lesionzarr.cli._datasets import add_datasets
from lesionzarr.cli._detection import add_detection
from lesionzarr.cli._lesions import choose, for_each
from lesionzarr.cli._print import print_issues
from lesionzarr.errors import SettingError
from lesionzarr.export import nifti
from lesionzarr.export.dl_save_nifti import export_dl_nifti
from lesionzarr.export.tables import to_text
from lesionzarr.store.catalog import open_catalog
from lesionzarr.window import OWN, resolve_window

if TYPE_CHECKING:
    import argparse

    from lesionzarr.store.catalog import Catalog

ANATOMICAL, DL_SAVE_NIFTI = "anatomical", "dl-save-nifti"
METADATA, RESOLUTION = "metadata.json", "resolution.csv"


def add_export(commands: Any) -> None:
    text = "write volumes, key slices or crops in other formats"
    formats = commands.add_parser("export", help=text, description=text).add_subparsers(required=True, metavar="FORMAT")
    text = "write volumes as NIfTI, with their masks and labels on the same grid"
    parser = add_command(formats, "nifti", _export_nifti, text)
    add_store(parser)
    parser.add_argument("volumes", nargs="*", metavar="ID", help="of volumes, or of lesions in them; none for all")
    parser.add_argument("--query", metavar="TEXT", help="pandas query of lesions: the volumes that these lie in")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="where to write")
    parser.add_argument(
        "--convention",
        choices=(ANATOMICAL, DL_SAVE_NIFTI),
        default=ANATOMICAL,
        help="axes: (x, y, z) in images/, with masks/ and labels/; or (row, column, slice) as DL_save_nifti.py of "
        "DeepLesion, HU alone (default: %(default)s)",
    )
    add_window(parser, many=False, default="none: HU as they are stored")
    parser.add_argument(
        "--windowed",
        dest="window",
        action="store_const",
        const=OWN,
        help=f"as --window {OWN}: the window that the source gives (recist-dataset: windows_mapping.json)",
    )
    parser.add_argument(
        "--levels",
        choices=nifti.LEVELS,
        default=nifti.WINDOW,
        help="what grey levels go from and to: the window's ends, or the clipped voxels' as recist-dataset's "
        "normalize_ct_images.py (default: %(default)s)",
    )
    parser.add_argument(
        "--dtype", choices=("uint8", "float32"), default="uint8", help="of grey levels (default: %(default)s)"
    )
    add_detection(formats)
    add_datasets(formats)


def _export_nifti(arguments: argparse.Namespace) -> int:
    catalog = open_store(arguments)
    upstream = arguments.convention == DL_SAVE_NIFTI
    if upstream and arguments.window is not None:
        raise SettingError(f"--convention {DL_SAVE_NIFTI} writes HU; leave --window out")
    if arguments.window not in {None, OWN}:
        resolve_window(arguments.window)

    def write(volume_id: str) -> list[Path]:
        if upstream:
            return export_dl_nifti(catalog, volume_id, arguments.output)
        return nifti.export_nifti(
            catalog,
            volume_id,
            arguments.output,
            window=arguments.window,
            dtype=arguments.dtype,
            levels=arguments.levels,
        )

    ids = _chosen_volumes(catalog, arguments)
    return for_each({volume_id: volume_id for volume_id in ids}, write, as_json=arguments.json)


def _chosen_volumes(catalog: Catalog, arguments: argparse.Namespace) -> list[str]:
    if arguments.volumes and arguments.query:
        raise SettingError("ids and --query: give one of the two")
    if arguments.query:
        ids = list(dict.fromkeys(choose(catalog, arguments.query)["volume_id"]))
        if not ids:
            raise SettingError(f"--query {arguments.query}: no lesion is like that")
        return ids
    of_lesions = catalog.lesions["volume_id"]
    ids = [of_lesions.get(name, name) for name in arguments.volumes]
    for volume_id in ids:
        catalog.grid(volume_id)
    return list(dict.fromkeys(ids)) or list(catalog.volumes.index)


def add_metadata(commands: Any) -> None:
    text = "tell size, resolution and NIfTI headers, as recist-dataset's get_nifti_metadata.py"
    parser = add_command(commands, "metadata", _metadata, text)
    parser.add_argument("source", help="store, whose headers are those of its export; or folder or zip of NIfTI images")
    add_storage_options(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help=f"write {METADATA} and {RESOLUTION} there")


def _metadata(arguments: argparse.Namespace) -> int:
    root = Path(arguments.source)
    if root.suffix == ".zip" or (root.is_dir() and not (root / "zarr.json").exists()):
        headers, failed = nifti.headers_of_files(root)
        if not headers and not failed:
            raise SettingError(f"{root.name}: neither a store nor NIfTI images")
        resolution = nifti.resolution_of_headers(headers)
    else:
        catalog = open_catalog(arguments.source, storage_options(arguments, arguments.source))
        headers, failed = nifti.headers_of_store(catalog), []
        resolution = nifti.resolution_table(catalog)
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        written = [arguments.output / name for name in (METADATA, RESOLUTION)]
        written[0].write_text(json.dumps(headers, indent=4), encoding="utf-8")
        resolution.to_csv(written[1], index=False)
        told = {"images": len(headers), "written": [str(path) for path in written]}
        print(json.dumps(told) if arguments.json else f"{len(headers):,} images told in {arguments.output}")
    elif arguments.json:
        print(json.dumps(headers, indent=1))
    else:
        print(to_text(resolution.set_index("filename")))
    print_issues("failed", failed)
    return 1 if failed else 0
