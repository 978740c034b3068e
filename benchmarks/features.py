"""How fast lesions are measured, beside pyradiomics run on one lesion after the other.

    python benchmarks/features.py [--lesions 4889] [--image-size 256] [--slices 3] [--sample 100]

A synthetic DeepLesion is converted, and all lesions are measured on their ellipses with one and with two workers, which
have to give the same table; a third run is killed half way and gone on with, and has to give it too. pyradiomics takes
a sample of the lesions, from arrays that are in memory already or, one after the other, from the same store. The
package alone, and not the reading, is in the rows ``arrays``.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

import lesionzarr
from lesionzarr.features._bulk import Part
from lesionzarr.features.pseudo_mask import pseudo_mask
from lesionzarr.features.radiomics import Extraction, measure_parts
from lesionzarr.features.regions import ELLIPSE, plan_region
from lesionzarr.samples import deeplesion

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lesionzarr.store.catalog import Catalog

SETS = {"firstorder+shape": ("firstorder", "shape"), "texture": ("texture",)}
THEIRS = {
    "firstorder+shape": ("firstorder", "shape"),
    "texture": ("glcm", "glrlm", "glszm", "gldm", "ngtdm"),
}
ALL = ("shape", "firstorder", "texture")
SPACING_MM = (5.0, 0.8, 0.8)
"""Of the solids, whose size is that of a large lesion."""


def main() -> None:
    """Measure and print the tables."""
    arguments = _arguments()
    if arguments.killed:
        _run_until_half(*arguments.killed)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = _make_store(folder, arguments)
        catalog = lesionzarr.open(store)
        _print_versions()
        print(f"{len(catalog):,} lesions, {len(catalog.volumes):,} volumes")
        print("\n| row | lesions/s | of pyradiomics |\n|---|---|---|")
        ids = list(catalog.lesions.index[: arguments.sample])
        parts = list(_parts(catalog, ids))
        solids = [_solid() for _ in range(8)]
        for which, sets in SETS.items():
            _print_row(f"{which}, ellipses: pyradiomics", base := _pyradiomics(parts, which), base)
            _print_row(f"{which}, ellipses: arrays", _rate(parts * 4, sets), base)
            _print_row(
                f"{which}, ellipses: pyradiomics, store", base := _pyradiomics(_parts(catalog, ids), which), base
            )
            _print_row(f"{which}, ellipses: store", _extract(catalog, sets), base)
            _print_row(
                f"{which}, solids of {_voxels(solids):,} voxels: pyradiomics", base := _pyradiomics(solids, which), base
            )
            _print_row(f"{which}, solids: arrays", _rate(solids, sets), base)
        _compare(store, folder)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lesions", type=int, default=4889, help="(default: %(default)s)")
    parser.add_argument("--image-size", type=int, default=256, help="rows of a slice (default: %(default)s)")
    parser.add_argument("--slices", type=int, default=3, help="of a volume (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=100, help="lesions of pyradiomics (default: %(default)s)")
    parser.add_argument("--killed", type=Path, nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args()


def _make_store(folder: Path, arguments: argparse.Namespace) -> Path:
    source = deeplesion(
        folder / "source", lesions=arguments.lesions, image_size=arguments.image_size, slices=arguments.slices
    )
    report = lesionzarr.convert("deeplesion", source, folder / "store.zarr", workers=2)
    if report.failed:
        raise SystemExit(report.failed[0].message)
    return folder / "store.zarr"


def _parts(catalog: Catalog, ids: Sequence[str]) -> Iterator[Part]:
    """Read the ellipses of lesions as arrays, one after the other."""
    for lesion in catalog.find_lesions(list(ids)):
        grid, mark = catalog.grid(lesion.volume_id), lesion.mark
        region = plan_region(lesion, grid, ELLIPSE)
        if mark is None:
            continue
        hu = catalog.volume(lesion.volume_id)["hu"][region.slices].to_numpy()
        mask = pseudo_mask(mark.shift(-region.start[1], -region.start[2]), region.shape[1:])
        yield Part(hu, mask[None], grid.spacing_mm)


def _solid() -> Part:
    """Make an ellipsoid of noise, 24 mm high and 40 mm wide."""
    rng = np.random.default_rng(0)
    z, y, x = np.ogrid[-3:4, -26:27, -26:27]
    mask = (z / 2.9) ** 2 + (y / 25) ** 2 + (x / 25) ** 2 < 1
    return Part(rng.normal(40, 60, mask.shape).astype(np.int16), mask, SPACING_MM)


def _voxels(parts: Sequence[Part]) -> int:
    return int(np.mean([np.count_nonzero(part.mask) for part in parts]))


def _rate(parts: Sequence[Part], sets: tuple[str, ...]) -> float:
    settings = Extraction(sets, ELLIPSE)
    measure_parts(parts[:8], settings)
    began = time.perf_counter()
    measure_parts(parts, settings)
    return len(parts) / (time.perf_counter() - began)


def _extract(catalog: Catalog, sets: tuple[str, ...]) -> float:
    began = time.perf_counter()
    found = lesionzarr.extract_features(catalog, sets=sets, region=ELLIPSE)
    return len(found) / (time.perf_counter() - began)


def _pyradiomics(parts: Iterable[Part], which: str) -> float:
    """Give the lesions per second of pyradiomics; NaN where it is not installed."""
    try:
        import radiomics
        from radiomics import featureextractor
        from SimpleITK import GetImageFromArray
    except ImportError:
        return float("nan")
    radiomics.setVerbosity(60)
    extractor = featureextractor.RadiomicsFeatureExtractor(binWidth=25, additionalInfo=False)
    extractor.disableAllFeatures()
    for name in THEIRS[which]:
        extractor.enableFeatureClassByName(name)

    def measure(part: Part) -> None:
        # it takes a mask without a voxel outside for one without a lesion
        padded = (np.pad(array, ((0, 0), (1, 1), (1, 1))) for array in (part.hu, part.mask.astype(np.uint8)))
        images: list[Any] = [GetImageFromArray(array) for array in padded]
        for image in images:
            image.SetSpacing([float(side or 1) for side in part.spacing_mm[::-1]])
        extractor.execute(*images)

    measure(_solid())
    began = time.perf_counter()
    count = 0
    for part in parts:
        measure(part)
        count += 1
    return count / (time.perf_counter() - began)


def _compare(store: Path, folder: Path) -> None:
    """Measure with one and two workers, and killed and gone on with; all tables have to be equal."""
    tables, seconds = [], []
    killed = folder / "killed.parquet"
    command = [sys.executable, __file__, "--killed", str(store), str(killed)]
    if subprocess.run(command, check=False).returncode != -signal.SIGKILL:  # noqa: S603 - this very script
        raise SystemExit("the run that was to be killed was not")
    left = len(list(killed.rglob("part-*.parquet")))
    for output, workers in ((folder / "one.parquet", 1), (folder / "two.parquet", 2), (killed, 1)):
        began = time.perf_counter()
        catalog = lesionzarr.open(store)
        tables.append(lesionzarr.extract_features(catalog, sets=ALL, region=ELLIPSE, workers=workers, output=output))
        seconds.append(time.perf_counter() - began)
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0], check_exact=True)
    count = len(tables[0])
    print(f"\nall sets, {count:,} lesions: {seconds[0]:.1f} s with one worker, {seconds[1]:.1f} s with two")
    print(f"killed after {left} files, then {seconds[2]:.1f} s; the three tables are equal")


def _run_until_half(store: Path, output: Path) -> None:
    def kill(done: int, total: int) -> None:
        if done > total / 2:
            os.kill(os.getpid(), signal.SIGKILL)

    lesionzarr.extract_features(lesionzarr.open(store), sets=ALL, region=ELLIPSE, output=output, progress=kill)


def _print_row(name: str, rate: float, base: float) -> None:
    print(f"| {name} | {rate:,.0f} | {rate / base:.1f} |", flush=True)


def _print_versions() -> None:
    names: dict[str, Any] = {"Python": platform.python_version()}
    for name in ("lesionzarr", "numpy", "pandas", "pyradiomics"):
        try:
            names[name] = version(name)
        except PackageNotFoundError:
            names[name] = "absent"
    print(", ".join(f"{name} {number}" for name, number in names.items()))


if __name__ == "__main__":
    main()
