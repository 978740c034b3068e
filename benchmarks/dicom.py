"""How fast DICOM is listed and converted, beside bare loops of pydicom over the same files.

    python benchmarks/dicom.py [--data ZIP ...] [--copies 4] [--headers 100000] [--repeats 2]

The CT series in each ZIP are repeated under other UIDs until there is enough to measure; without `--data` a synthetic
Lung-PET-CT-Dx of 512 x 512 pixels is. Then `--headers` small objects are made, and listed with an index, in a process
that tells its memory before and after. Every row runs in a process of its own, rows take turns, and medians are
printed. Files are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

WORKERS = (1, 2)
SCAN_ROWS = ["read:bytes", "read:pydicom", *(f"scan:{n}" for n in WORKERS), "scan:index"]
CONVERT_ROWS = ["decode:pydicom", *(f"convert:{n}" for n in WORKERS)]
SERIES_SLICES = 500
"""Objects in a folder of the headers that are made."""


def main() -> None:
    """Measure every row in turns and print the tables."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(arguments.row, Path(arguments.source), Path(arguments.store))))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _source(folder / "source", arguments.data, arguments.copies)
        files = sorted(source.rglob("*.dcm"))
        rows = [*SCAN_ROWS, *CONVERT_ROWS]
        found: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
        for repeat in range(arguments.repeats):
            for row in rows:
                found[row].append(_run(row, source, folder / f"{row.replace(':', '-')}-{repeat}"))
        _print(found, len(files), sum(path.stat().st_size for path in files))
        many = _headers(folder / "headers", files[0], arguments.headers)
        runs = [_run(row, many, folder / "many") for row in ("many", "many")]
        _print_many(runs, arguments.headers)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, nargs="+", help="zips with CT series; default: synthetic")
    parser.add_argument("--copies", type=int, default=4, help="how often they are repeated (default: %(default)s)")
    parser.add_argument("--headers", type=int, default=100_000, help="objects to list (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=2, help="(default: %(default)s)")
    for name in ("--row", "--source", "--store"):  # of the processes that measure
        parser.add_argument(name, help=argparse.SUPPRESS)
    return parser.parse_args()


def _source(folder: Path, zips: list[Path] | None, copies: int) -> Path:
    """Write every object `copies` times, with the UIDs of its series and its own replaced."""
    import pydicom

    originals = folder.parent / "originals"
    if zips:
        for number, path in enumerate(zips):
            with zipfile.ZipFile(path) as archive:
                archive.extractall(originals / str(number))
    else:
        from lesionzarr.samples import lung_pet_ct_dx

        lung_pet_ct_dx(originals, subjects=1, image_size=512, slices=60)
    slices = [path for path in sorted(originals.rglob("*")) if path.is_file() and _is_dicom(path)]
    for copy in range(copies):
        for number, path in enumerate(slices):
            dataset = pydicom.dcmread(path)
            for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
                setattr(dataset, name, f"{dataset[name].value[:56]}.{copy + 1}")
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
            # one folder for each series of each copy
            place = folder / str(copy) / str(dataset.SeriesInstanceUID)
            place.mkdir(parents=True, exist_ok=True)
            dataset.save_as(place / f"{number:05d}.dcm")
    return folder


def _is_dicom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _headers(folder: Path, original: Path, count: int) -> Path:
    """Write objects that are the header of a slice and four pixels, with other UIDs and positions."""
    import pydicom
    from pydicom.filebase import DicomBytesIO

    dataset = pydicom.dcmread(original)
    dataset.Rows = dataset.Columns = 2
    dataset.PixelData = bytes(8)
    series, instance, height = "1.2.3.4.1000000", "1.2.3.4.1000000.1000000", "1000000.5"
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID = series, instance
    dataset.ImagePositionPatient = ["0", "0", height]
    buffer = DicomBytesIO()
    dataset.save_as(buffer)
    made = buffer.getvalue()
    for number in range(count):
        part, row = divmod(number, SERIES_SLICES)
        place = folder / f"{part:04d}"
        if row == 0:
            place.mkdir(parents=True)
        changed = made.replace(instance.encode(), f"1.2.3.4.{1000001 + part}.{1000001 + row}".encode())
        changed = changed.replace(series.encode(), f"1.2.3.4.{1000001 + part}".encode())
        (place / f"{row:04d}.dcm").write_bytes(changed.replace(height.encode(), f"{1000001 + row}.5".encode()))
    return folder


def _run(row: str, source: Path, store: Path) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", row, "--source", str(source), "--store", str(store)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this script
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _measure(row: str, source: Path, store: Path) -> dict[str, Any]:
    verb, _, setting = row.partition(":")
    if verb == "scan":
        return _scan(setting, source, store)
    if verb == "convert":
        return _convert(int(setting), source, store)
    if verb == "many":
        return _many(source, store)
    return _loop(setting if verb == "read" else "decode", source)


def _loop(what: str, source: Path) -> dict[str, Any]:
    import numpy as np
    import pydicom

    paths = sorted(source.rglob("*.dcm"))
    began = time.perf_counter()
    for path in paths:
        if what == "bytes":
            with path.open("rb") as file:
                file.read(4096)
        elif what == "pydicom":
            # parsed when asked for, as the keys of a volume are
            dataset = pydicom.dcmread(path, stop_before_pixels=True)
            _ = dataset.SeriesInstanceUID, dataset.ImagePositionPatient, dataset.ImageOrientationPatient
        else:
            dataset = pydicom.dcmread(path)
            (dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)).astype(np.int16)
    return {"seconds": time.perf_counter() - began, "peak": _peak()}


def _scan(setting: str, source: Path, store: Path) -> dict[str, Any]:
    import pydicom  # noqa: F401 - so that its import is not measured

    from lesionzarr.formats.dicom import scan_headers

    index = store.with_suffix(".parquet") if setting == "index" else None
    if index:
        scan_headers([source], index=index)
    began = time.perf_counter()
    headers = scan_headers([source], index=index, workers=1 if index else int(setting))
    seconds = time.perf_counter() - began
    if headers.issues:
        raise SystemExit(headers.issues[0].message)
    return {"seconds": seconds, "peak": _peak()}


def _convert(workers: int, source: Path, store: Path) -> dict[str, Any]:
    import resource

    import lesionzarr

    began = time.perf_counter()
    report = lesionzarr.convert("lung-pet-ct-dx", source, store, workers=workers)
    seconds = time.perf_counter() - began
    if report.failed:
        raise SystemExit(report.failed[0].message)
    size = sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    catalog = lesionzarr.open(store)
    voxels = sum(math.prod(catalog.grid(volume_id).shape) for volume_id in catalog.volumes.index)
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {"seconds": seconds, "peak": _peak(), "worker": worker, "bytes": size, "voxel_bytes": 2 * voxels}


def _many(source: Path, store: Path) -> dict[str, Any]:
    import pydicom  # noqa: F401 - as above

    from lesionzarr.formats.dicom import find_stacks, scan_headers

    index = store.with_suffix(".parquet")
    stages = [_memory()]
    began = time.perf_counter()
    headers = scan_headers([source], index=index, workers=2)
    seconds = time.perf_counter() - began
    stages.append(_memory())
    began = time.perf_counter()
    stacks = find_stacks(headers)
    grouped = time.perf_counter() - began
    stages.append(_memory())
    told = {"rows": headers.table.num_rows, "table": headers.table.nbytes, "stacks": len(stacks.stacks)}
    return {**told, "seconds": seconds, "grouped": grouped, "stages": stages, "peak": _peak()}


def _memory() -> int:
    return _status("VmRSS")


def _peak() -> int:
    # not ru_maxrss, which begins at the size of the process that forked this one
    return _status("VmHWM")


def _status(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) * 1024 if found else 0


def _print(found: dict[str, list[dict[str, Any]]], files: int, size: int) -> None:
    names = ("lesionzarr", "pydicom", "numpy", "pyarrow", "zarr", "numcodecs", "distributed")
    print(f"Python {platform.python_version()}, {', '.join(f'{name} {version(name)}' for name in names)}")
    print(f"{os.cpu_count()} cores, {files} files, {size / 1e6:.1f} MB\n")
    print("| row | files/s | of the pydicom loop | peak MB |")
    print("|---|---|---|---|")
    for row in SCAN_ROWS:
        _print_row(found, row, "read:pydicom", files, 0)
    voxels = found["convert:1"][0]["voxel_bytes"]
    print(
        "\n| row | MB/s of voxels | of the pydicom loop | peak MB: steering process, largest worker | store / files |"
    )
    print("|---|---|---|---|---|")
    for row in CONVERT_ROWS:
        _print_row(found, row, "decode:pydicom", voxels / 1e6, size)


def _print_row(found: dict[str, list[dict[str, Any]]], row: str, bare: str, amount: float, size: int) -> None:
    seconds = _median(found[row], "seconds")
    cells = [row, f"{amount / seconds:.0f}", f"{_median(found[bare], 'seconds') / seconds:.2f}"]
    cells.append(f"{_median(found[row], 'peak') / 1e6:.0f}")
    if row == "convert:2":
        cells[-1] += f", {_median(found[row], 'worker') / 1e6:.0f}"
    if size:
        cells.append(f"{found[row][0]['bytes'] / size:.2f}" if "bytes" in found[row][0] else "")
    print(f"| {' | '.join(cells)} |")


def _print_many(runs: list[dict[str, Any]], headers: int) -> None:
    print(f"\n{headers} headers:\n")
    print("| row | files/s | MB before, with the table, with the stacks | peak MB | table MB |")
    print("|---|---|---|---|---|")
    for name, run in zip(("first scan, two processes", "second scan, from the index"), runs, strict=True):
        stages = ", ".join(f"{stage / 1e6:.0f}" for stage in run["stages"])
        rate = f"{run['rows'] / run['seconds']:.0f}"
        print(f"| {name} | {rate} | {stages} | {run['peak'] / 1e6:.0f} | {run['table'] / 1e6:.0f} |")
    print(f"\n{runs[0]['stacks']} stacks found in {runs[0]['grouped']:.1f} s")


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


if __name__ == "__main__":
    main()
