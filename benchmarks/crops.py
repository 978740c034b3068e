"""How fast windowed crops come out of a store, beside every other way to read the same voxels.

    python benchmarks/crops.py [--data FOLDER --csv NAME] [--positions CSV] [--copies 20] [--chart FILE]
    python benchmarks/crops.py --quick

FOLDER is a DeepLesion with a table `--csv`; its series are repeated under other patient numbers. Without it a synthetic
one is made. Lesions are spread over its volumes as those of the table `--positions` lie in theirs, or as its own do,
and crops are read round them. Every row runs in a process of its own, rows take turns, and medians are printed. Files
are in the page cache, but with `--cold`.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

import numpy as np
from _data import POOL, PROFILES, VOLUMES, Data, dataset, make, spread_lesions
from _peers import BY_PROFILE, PEERS

if TYPE_CHECKING:
    from _data import Crop
    from _peer import Peer
    from numpy.typing import NDArray

PACKAGES = (
    *("lesionzarr", "numpy", "numcodecs", "zarr", "zarrs", "tensorstore", "blosc2", "xarray", "dask", "nibabel"),
    *("pydicom", "opencv-python-headless", "monai", "torchio"),
)
COLUMNS = (
    *("peer", "crops/s", "lesionzarr is faster by", "CPU ms/crop", "KB/crop", "requests/crop"),
    *("peak MB", "first crop ms"),
)


class Scenario(NamedTuple):
    """What is measured at once."""

    size: str
    volumes: str
    """``one`` or ``many``."""
    batch: int
    threads: int

    @property
    def title(self) -> str:
        """How the table is called."""
        volumes = "one volume" if self.volumes == "one" else "many volumes"
        return f"{self.size}, {volumes}, batches of {self.batch}, threads: {self.threads}"


class Row(NamedTuple):
    """A peer, and the profile of the store that it reads."""

    peer: str
    profile: str

    @property
    def title(self) -> str:
        """How the row is called."""
        return f"{self.peer}, {self.profile}" if PEERS[self.peer] in BY_PROFILE else self.peer


QUICK = Scenario("9x128x128", "many", 64, 2)


def main() -> None:
    """Make the data, measure every row in turns and print the tables."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(**json.loads(arguments.row))))
        return
    rows, missing = _rows(arguments.peers)
    scenarios = [QUICK] if arguments.quick else [Scenario(*each) for each in product(POOL, VOLUMES, (64, 1), (2, 1))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = dataset(folder / "source", arguments.data, arguments.csv, arguments.copies)
        spread_lesions(source, arguments.positions)
        kinds = {kind for row in rows if (kind := PEERS[row.peer].needs(row.profile))}
        make(folder, source, kinds, sorted({scenario.size for scenario in scenarios}))
        _print_head(folder, missing)
        for number, scenario in enumerate(scenarios):
            able = [row for row in rows if PEERS[row.peer].anywhere or scenario.volumes == "many"]
            found: dict[Row, list[dict[str, Any]]] = {row: [] for row in able}
            for _ in range(arguments.repeats):
                for row in able:
                    found[row].append(_run(folder, row, scenario, arguments.seconds, cold=arguments.cold))
            _print(scenario, found)
            if arguments.chart and not number:
                _draw(arguments.chart, scenario, found)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a DeepLesion; default: synthetic")
    parser.add_argument("--csv", default="DL_info.csv", help="its table (default: %(default)s)")
    parser.add_argument("--positions", type=Path, help="a table of DeepLesion; default: the lesions of the store")
    parser.add_argument(
        "--copies", type=int, default=20, help="how often its series are repeated (default: %(default)s)"
    )
    parser.add_argument("--repeats", type=int, help="default: 3, or 1 with --quick")
    parser.add_argument("--seconds", type=float, help="of each measurement; default: 1, or 0.5 with --quick")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"only {QUICK.title}")
    parser.add_argument(
        "--cold", action="store_true", help="drop the files from the page cache; each crop is read once"
    )
    parser.add_argument("--chart", type=Path, help="a PNG to draw the first table to")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # of the processes that measure
    arguments = parser.parse_args()
    arguments.repeats = arguments.repeats or (1 if arguments.quick else 3)
    arguments.seconds = arguments.seconds or (0.5 if arguments.quick else 1.0)
    return arguments


def _rows(peers: list[str]) -> tuple[list[Row], list[str]]:
    """Give the rows to measure, lesionzarr first, and the peers that are not installed."""
    rows, missing = [], []
    for peer in dict.fromkeys(["lesionzarr", *peers]):
        if not all(map(_installed, PEERS[peer].packages)):
            missing.append(peer)
            continue
        profiles = PROFILES if PEERS[peer] in BY_PROFILE else PROFILES[:1]
        rows += [Row(peer, profile) for profile in profiles]
    return rows, missing


def _installed(package: str) -> bool:
    """Tell whether a package is there, or, of ``module:name``, whether this version has the name."""
    module, _, name = package.partition(":")
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        return False
    return not name or hasattr(importlib.import_module(module), name)


def _run(folder: Path, row: Row, scenario: Scenario, seconds: float, *, cold: bool) -> dict[str, Any]:
    work = {"folder": str(folder), "seconds": seconds, "cold": cold, **row._asdict(), **scenario._asdict()}
    command = [sys.executable, __file__, "--row", json.dumps(work)]
    # threads of libraries that take their number from the environment
    environment = {**os.environ, "RAYON_NUM_THREADS": str(scenario.threads), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - this script
        command, check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{row.title} ({scenario.title}): {done.stderr.strip() or done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _measure(  # noqa: PLR0913 - what a process is asked for
    *,
    folder: str,
    seconds: float,
    cold: bool,
    peer: str,
    profile: str,
    size: str,
    volumes: str,
    batch: int,
    threads: int,
) -> dict[str, Any]:
    kind = PEERS[peer]
    for package in kind.packages:
        importlib.import_module(package.partition(":")[0])
    data = Data.load(Path(folder))
    crops, checksums = data.crops(size, volumes)
    step = min(batch, kind.most)
    out = np.empty((step, *crops[0].size), dtype=np.uint8)
    batches = [tuple(crops[at : at + step]) for at in range(0, len(crops) - step + 1, step)]

    began = time.perf_counter()
    reader = kind(data, threads, profile)
    reader.batch((crops[0],), out[:1])
    first = time.perf_counter() - began

    reader.prepare({crop.volume for crop in crops})
    if cold:
        _drop_from_cache(Path(folder))
    else:
        _compare(reader, batches, checksums, out, seconds)
    done, before = 0, _reads()
    cpu, began = time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds and not (cold and done == step * len(batches)):
        asked = batches[done // step % len(batches)]
        reader.batch(asked, out)
        done += step
    taken, cpu = time.perf_counter() - began, time.process_time() - cpu
    after = _reads()
    if cold:
        _compare(reader, batches, checksums, out, seconds)
    read = [(a - b) / done for a, b in zip(after, before, strict=True)] if after and before and not kind.mapped else []
    return {
        "rate": done / taken,
        "cpu_ms": 1000 * cpu / done,
        "reads": read,
        "peak_mb": _peak() / 1e6,
        "first_ms": 1000 * first,
    }


def _compare(
    reader: Peer, batches: list[tuple[Crop, ...]], checksums: list[int], out: NDArray[np.uint8], seconds: float
) -> None:
    """Read batches for a while, and compare every crop with the source."""
    began = time.perf_counter()
    for number, asked in enumerate(batches):
        out[...] = 1
        reader.batch(asked, out)
        expected = checksums[number * len(out) : (number + 1) * len(out)]
        if reader.delivers and [crc32(crop.data) for crop in out] != expected:
            raise SystemExit("its voxels differ from the source")
        if time.perf_counter() - began > seconds:
            break


def _drop_from_cache(folder: Path) -> None:
    """Ask the system to forget the content of files, which it does for all that nobody holds mapped."""
    for path in folder.rglob("*"):
        if path.is_file():
            file = os.open(path, os.O_RDONLY)
            os.fsync(file)
            os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(file)


def _reads() -> tuple[int, int] | None:
    """Give the bytes and the number of all read calls of this process, where the system counts them."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]), int(counts["syscr"])


def _peak() -> int:
    """Give the most memory that this process has held; getrusage would begin with that of the steering process."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def _print_head(folder: Path, missing: list[str]) -> None:
    data = Data.load(folder)
    print(f"Python {platform.python_version()}, {', '.join(filter(None, map(_version, PACKAGES)))}")
    slices = sum(shape[0] for shape in data.shapes.values())
    sizes = [sum(path.stat().st_size for path in data.store(name).rglob("*") if path.is_file()) for name in PROFILES]
    stores = ", ".join(f"{name} {size / 1e6:.0f} MB" for name, size in zip(PROFILES, sizes, strict=True))
    print(f"{os.cpu_count()} cores, {len(data.shapes)} volumes, {slices} slices; stores: {stores}")
    if missing:
        print(f"not installed, or too old: {', '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _print(scenario: Scenario, found: dict[Row, list[dict[str, Any]]]) -> None:
    print(f"\n### {scenario.title}\n\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for row, runs in found.items():
        own = found[Row("lesionzarr", row.profile)]
        ratio = statistics.median(ours["rate"] / theirs["rate"] for ours, theirs in zip(own, runs, strict=True))
        reads = [statistics.median(each) for each in zip(*(run["reads"] for run in runs), strict=True)]
        cells = [
            row.title,
            _rounded(_median(runs, "rate")),
            f"{ratio:.2f}",
            f"{_median(runs, 'cpu_ms'):.2f}",
            *([f"{reads[0] / 1000:.0f}", f"{reads[1]:.1f}"] if reads else ["", ""]),
            f"{_median(runs, 'peak_mb'):.0f}",
            f"{_median(runs, 'first_ms'):.0f}",
        ]
        print(f"| {' | '.join(cells)} |", flush=True)


def _rounded(rate: float) -> str:
    return f"{rate:.0f}" if rate >= 100 else f"{rate:.1f}"


def _draw(path: Path, scenario: Scenario, found: dict[Row, list[dict[str, Any]]]) -> None:
    from matplotlib.figure import Figure

    rates = sorted((_median(runs, "rate"), row.title, row.peer) for row, runs in found.items())
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(rates)), layout="constrained")
    axes = figure.add_subplot()
    colours = {"lesionzarr": "tab:orange", "bare decode": "lightgrey", "npy mmap": "lightgrey"}
    bars = axes.barh(
        [title for _, title, _ in rates],
        [rate for rate, _, _ in rates],
        color=[colours.get(peer, "tab:blue") for _, _, peer in rates],
    )
    axes.bar_label(bars, [_rounded(rate) for rate, _, _ in rates], padding=3)
    axes.set(xscale="log", xlabel="crops/s (grey: limits)", title=scenario.title)
    axes.margins(x=0.15)
    figure.savefig(path, dpi=150)


def _median(runs: list[dict[str, Any]], key: str) -> float:
    return float(statistics.median(run[key] for run in runs))


if __name__ == "__main__":
    main()
