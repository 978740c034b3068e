"""How fast a store of many lesions opens, and gives its first crop, from a disk and from a bucket.

    python benchmarks/catalog.py [--volumes 20000 --lesions 32735] [--latency 20] [--repeats 5]
    python benchmarks/catalog.py --volumes 600000 --lesions 1000000

Converts a small synthetic DeepLesion, and writes the two tables of the catalog anew with as many rows as asked for:
those of the small one again and again, with ids, checksums, lengths and places of their own. Opens it in fresh
processes. Through the bucket (SeaweedFS, where it is installed) each round trip takes `--latency` milliseconds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _network import network, upload

import lesionzarr
from lesionzarr.samples import deeplesion
from lesionzarr.store.generations import read_generation
from lesionzarr.store.index import LESIONS, VOLUMES
from lesionzarr.store.location import open_location
from lesionzarr.store.tables import read_table, write_frame

if TYPE_CHECKING:
    import pandas as pd
    from _network import Line

OPEN = """
import json, re, sys, time
import lesionzarr
from lesionzarr.store.generations import read_generation
from lesionzarr.store.location import open_location
url, options, first = json.loads(sys.argv[1])
def held(name):
    return int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1]) / 1e3
if options:
    open_location(url, options).size("zarr.json")  # imports, and a connection
before = held("VmRSS")
began = time.perf_counter()
catalog = lesionzarr.open(url, options)
opened = time.perf_counter()
after = held("VmRSS")
lesionzarr.CropReader(catalog, size=(9, 128, 128), window="lung").read(first)
read = time.perf_counter()
print(json.dumps([opened - began, read - opened, before, after, held("VmHWM")]))
"""
COLUMNS = (
    *("store", "opened s", "first crop after another s", "requests", "MB fetched"),
    *("MB before", "MB with the catalog", "MB at most"),
)


def main() -> None:
    """Print medians, imports left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--volumes", type=int, default=20_000, help="(default: %(default)s)")
    parser.add_argument("--lesions", type=int, default=32_735, help="(default: %(default)s)")
    parser.add_argument("--latency", type=float, default=20.0, help="in ms (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        store = Path(name) / "store.zarr"
        source = deeplesion(Path(name) / "source", lesions=8, image_size=128, slices=9)
        lesionzarr.convert("deeplesion", source, store)
        first = _grow(store, arguments.volumes, arguments.lesions)
        sizes = [(store / key).stat().st_size / 1e6 for key in read_generation(open_location(store)).tables]
        print(f"{arguments.volumes} volumes, {sizes[0]:.1f} MB; {arguments.lesions} lesions, {sizes[1]:.1f} MB\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        _print("disk", _measure([str(store), None, first], arguments.repeats))
        with network(Path(name) / "server") as place:
            url, line = upload(place, store, store.name), place.line()
            line.set(latency_ms=arguments.latency)
            found = _measure([url, place.options, first], arguments.repeats, line)
            _print(f"bucket, {arguments.latency:g} ms", found)


def _grow(store: Path, volumes: int, lesions: int) -> str:
    """Give the tables of a store as many rows; give the id of a lesion whose volume is there."""
    location = open_location(store)
    tables = read_generation(location).tables
    own = read_table(location, tables[0], "volume_id").reset_index()
    marks = read_table(location, tables[1], "lesion_id").reset_index()
    rng = np.random.default_rng(0)
    all_volumes = _repeated(own, volumes)
    copies, place = np.divmod(np.arange(volumes), len(own))
    all_volumes["voxels"] = [f"sha256:{rng.bytes(32).hex()}" for _ in range(volumes)]
    lengths = rng.integers(1_000_000, 20_000_000, size=(volumes, 2)).tolist()
    all_volumes["shards"] = [json.dumps({"voxels": [[size, head]]}) for size, head in lengths]
    for column in ("series_id", "study_id", "patient_id"):
        all_volumes[column] = _numbered(own[column].to_numpy()[place], copies)
    # what is there stays as it is
    all_volumes.iloc[: len(own)] = own
    all_lesions = _repeated(marks, lesions)
    owner = np.sort(rng.integers(volumes, size=lesions))
    for column in ("volume_id", "series_id", "study_id", "patient_id"):
        all_lesions[column] = all_volumes[column].to_numpy()[owner]
    for column in ("x0", "y0", "x1", "y1", "long_mm", "short_mm"):
        all_lesions[column] += rng.uniform(0, 1, lesions).round(4)
    recist = [None if each is None else np.asarray(each, dtype=float) for each in all_lesions["recist"]]
    shifts = rng.uniform(0, 1, (lesions, 8)).round(3)
    all_lesions["recist"] = [None if a is None else (a + b).round(3) for a, b in zip(recist, shifts, strict=True)]
    all_lesions["source_row"] = np.arange(lesions)
    all_lesions.iloc[: len(marks)] = marks
    (store / tables[0]).write_bytes(write_frame(all_volumes, VOLUMES))
    (store / tables[1]).write_bytes(write_frame(all_lesions, LESIONS))
    return str(marks["lesion_id"][0])


def _repeated(table: pd.DataFrame, rows: int) -> pd.DataFrame:
    """Repeat a table, with numbers before the ids in its first column."""
    copies, place = np.divmod(np.arange(rows), len(table))
    repeated = table.iloc[place].reset_index(drop=True)
    name = str(table.columns[0])
    repeated[name] = _numbered(table[name].to_numpy()[place], copies)
    return repeated


def _numbered(names: Any, copies: Any) -> list[str]:
    return [f"{int(str(name)[:6]) + 1000 * copy:06d}{str(name)[6:]}" for name, copy in zip(names, copies, strict=True)]


def _measure(work: list[Any], repeats: int, line: Line | None = None) -> list[float]:
    """Give medians: seconds to open, seconds to the first crop, requests and bytes of both, three sizes of memory."""
    found = []
    for _ in range(repeats):
        if line is not None:
            line.set()
        command = [sys.executable, "-c", OPEN, json.dumps(work)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this interpreter
        opened, read, *memory = json.loads(done.stdout)
        spent = line.spent()[:2] if line is not None else (0, 0)
        found.append([opened, read, *spent, *memory])
    return [statistics.median(column) for column in zip(*found, strict=True)]


def _print(title: str, found: list[float]) -> None:
    opened, read, requests, size, before, after, peak = found
    # the request before the clock runs is not told
    traffic = [f"{requests - 1:.0f}", f"{size / 1e6:.1f}"] if requests else ["", ""]
    cells = [title, f"{opened:.2f}", f"{read:.3f}", *traffic, f"{before:.0f}", f"{after:.0f}", f"{peak:.0f}"]
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
