"""How fast slices become a store, beside a bare loop that only decodes the same PNG files.

    python benchmarks/convert.py [--data FOLDER] [--copies 20] [--repeats 3]

FOLDER is a DeepLesion with a table `--csv`; its series are repeated under other patient numbers until
there are enough slices to measure. Without it a synthetic dataset of the same slice size is made. Every row runs in a
process of its own, rows take turns, and the median is printed. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _data import dataset

if TYPE_CHECKING:
    from collections.abc import Callable

WORKERS = (1, 2)
PROFILES = ("portable", "fast", "dense")


def main() -> None:
    """Measure every row in turns and print the table."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(arguments.row, arguments.source, arguments.store)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = dataset(folder / "source", arguments.data, arguments.csv, arguments.copies)
        slices = sorted(source.glob("Images_png/*/*.png"))
        rows = ["decode:pillow", "decode:opencv", *(f"convert:portable:{n}" for n in WORKERS)]
        rows += [f"convert:{profile}:1" for profile in PROFILES[1:]]
        found: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
        for repeat in range(arguments.repeats):
            for row in rows:
                found[row].append(_run(row, source, folder / f"{row.replace(':', '-')}-{repeat}.zarr"))
        _print(found, len(slices), sum(path.stat().st_size for path in slices))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a DeepLesion; default: synthetic")
    parser.add_argument("--csv", default="DL_info.csv", help="its table (default: %(default)s)")
    parser.add_argument(
        "--copies", type=int, default=20, help="how often its series are repeated (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, default=3, help="(default: %(default)s)")
    for name in ("--row", "--source", "--store"):  # of the processes that measure
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def _run(row: str, source: Path, store: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", row, "--source", str(source), "--store", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this script
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _measure(row: str, source: str, store: str) -> dict[str, Any]:
    verb, *settings = row.split(":")
    if verb == "decode":
        return {"seconds": _decode(settings[0], source)}
    import lesionzarr

    began = time.perf_counter()
    report = lesionzarr.convert("deeplesion", source, store, workers=int(settings[1]), profile=settings[0])
    seconds = time.perf_counter() - began
    if report.failed:
        raise SystemExit(f"{row}: {report.failed[0].message}")
    peaks = [resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    size = sum(path.stat().st_size for path in Path(store).rglob("*") if path.is_file())
    return {"seconds": seconds, "bytes": size, "peak": peaks[0], "worker": peaks[1]}


def _decode(library: str, source: str) -> float:
    paths = [str(path) for path in sorted(Path(source).glob("Images_png/*/*.png"))]
    decode = _pillow() if library == "pillow" else _opencv()
    began = time.perf_counter()
    for path in paths:
        decode(path)
    return time.perf_counter() - began


def _pillow() -> Callable[[str], Any]:
    import numpy as np
    from PIL import Image

    def decode(path: str) -> Any:
        with Image.open(path) as image:
            return np.asarray(image)

    return decode


def _opencv() -> Callable[[str], Any]:
    import cv2

    cv2.setNumThreads(1)
    return lambda path: cv2.imread(path, cv2.IMREAD_UNCHANGED)


def _print(found: dict[str, list[dict[str, Any]]], slices: int, png_bytes: int) -> None:
    names = ("lesionzarr", "zarr", "numcodecs", "numpy", "pillow", "distributed", "opencv-python-headless")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}")
    print(f"{os.cpu_count()} cores, {slices} slices, {png_bytes / 1e6:.1f} MB of PNG\n")
    print("| row | slices/s | of the Pillow loop | store / PNG | peak MB: steering process, largest worker |")
    print("|---|---|---|---|---|")
    bare = _median(found["decode:pillow"], "seconds")
    for row, runs in found.items():
        seconds = _median(runs, "seconds")
        cells = [row, f"{slices / seconds:.0f}", f"{bare / seconds:.2f}"]
        if "bytes" in runs[0]:
            worker = _median(runs, "worker") if row.endswith(":2") else 0
            cells += [f"{runs[0]['bytes'] / png_bytes:.2f}", f"{_median(runs, 'peak') / 1e6:.0f}"]
            cells[-1] += f", {worker / 1e6:.0f}" if worker else ""
        else:
            cells += ["", ""]
        print(f"| {' | '.join(cells)} |")


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


if __name__ == "__main__":
    main()
