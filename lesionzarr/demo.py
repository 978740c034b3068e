"""The main job from end to end on synthetic data: make, convert, read, draw. Offline, in seconds, 10 MB."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

from lesionzarr.converters._base import load_converter
from lesionzarr.converters._run import convert
from lesionzarr.errors import SettingError
from lesionzarr.export.pictures import caption, contact_sheet, render_slice, save
from lesionzarr.readers.crop import CropReader
from lesionzarr.readers.stack import StackReader
from lesionzarr.store.catalog import open_catalog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


MARKER = ".lesionzarr-demo"
"""Empty file that says that a folder is the demo's own, and may be made anew."""


def run_demo(folder: Path, workers: int = 1, seed: int = 0, say: Callable[[str], None] = print) -> dict[str, Any]:
    """Run the demo and tell what it does.

    Parameters
    ----------
    folder
        Where everything goes; made anew if it is the demo's own.
    workers
        Processes that convert.
    seed
        Of the synthetic dataset.
    say
        Called with every line.

    Returns
    -------
    dict
        What was made: paths, numbers, seconds.

    Raises
    ------
    SettingError
        The folder holds something else.
    """
    _clear(folder)
    source, store, sheet = folder / "DeepLesion", folder / "deeplesion.zarr", folder / "contact-sheet.png"
    began = time.perf_counter()
    load_converter("deeplesion").example(source, seed)
    say(f"made       {source}: a synthetic DeepLesion of {_megabytes(source):.1f} MB, PNG slices and DL_info.csv")
    report = convert("deeplesion", source, store, workers=workers)
    say(
        f"converted  {store}: {len(report.converted)} volumes, {report.counts['slices converted']} slices, "
        f"{_megabytes(store):.1f} MB of Zarr v3"
    )
    catalog = open_catalog(store)
    crops = CropReader(catalog, size=(9, 128, 128), window="dicom").read_batch(catalog.lesions)
    stacks = StackReader(catalog, slices=9, interval_mm=2, size=(128, 128), window=["full", "lung"])
    batch = stacks.read_batch(catalog.lesions)
    say(f"read       {len(crops)} crops {crops.image.shape} {crops.image.dtype}, each lesion in its own window")
    say(f"           {len(batch)} context stacks {batch.image.shape}, 9 slices 2 mm apart, two windows")
    save(contact_sheet([(render_slice(crop), caption(crop.lesion)) for crop in crops.crops]), sheet)
    say(f"drew       {sheet}: every lesion with its box and RECIST axes")
    seconds = time.perf_counter() - began
    say(f"took       {seconds:.1f} s")
    say(f'\nTry next:\n  lesionzarr info {store}\n  lesionzarr lesions {store} --query "long_mm > 15"')
    say(f"  lesionzarr render {store} -o {folder / 'key-slices'}")
    say(f"  python -c \"import lesionzarr; print(lesionzarr.open('{store}').volumes)\"")
    return {
        "source": str(source),
        "store": str(store),
        "contact sheet": str(sheet),
        "volumes": len(report.converted),
        "lesions": len(crops),
        "seconds": round(seconds, 2),
    }


def _clear(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARKER).exists():
            raise SettingError(f"{folder}: not empty, and not made by the demo; name another folder with --output")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER).touch()


def _megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
