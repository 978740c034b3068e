"""What the layout of a store costs and gains: chunk shape, depth of the blocks that decode on their own, and codec.

    python benchmarks/layout.py [--data FOLDER --csv NAME] [--positions CSV] [--copies 20] [--only TEXT]

FOLDER is a DeepLesion with a table `--csv`, as in ``crops.py``. Each layout is written and read in processes of its
own, by one thread; the time is that of the CPU, and the least of the repeats, so that other work on the machine counts
little.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from _data import POOL, Data, dataset, make, spread_lesions
from _peers import PEERS
from _peers_stores import Lesionzarr

BATCH, THREADS = 64, 1
READERS = ("lesionzarr", "tensorstore, batched")
COLUMNS = (
    *("chunk", "slices/block", "codec", "ratio", "written MB/s"),
    *(f"{size}: {column}" for size in POOL for column in ("KB", "requests", "CPU ms", "tensorstore")),
)


class Layout(NamedTuple):
    """How voxels are stored."""

    chunk: tuple[int, int, int]
    block: int
    """Slices of a block of Blosc."""
    codec: str
    level: int
    shuffle: str

    @property
    def cells(self) -> list[str]:
        """First cells of its row."""
        bits = " bitshuffle" if self.shuffle == "bitshuffle" else ""
        return ["x".join(map(str, self.chunk)), str(self.block), f"{self.codec} {self.level}{bits}"]


ZSTD, LZ4, LZ4HC_BITS = ("zstd", 5, "shuffle"), ("lz4", 5, "shuffle"), ("lz4hc", 9, "bitshuffle")
LAYOUTS = [
    *(Layout((8, 64, 64), block, *ZSTD) for block in (8, 4, 2)),
    Layout((16, 64, 64), 8, *ZSTD),
    Layout((4, 128, 128), 2, *ZSTD),
    *(Layout((8, 128, 128), block, *ZSTD) for block in (2, 1)),
    Layout((16, 128, 128), 2, *ZSTD),
    Layout((8, 64, 64), 8, "zstd", 1, "shuffle"),
    Layout((8, 64, 64), 8, "zstd", 5, "bitshuffle"),
    Layout((8, 64, 64), 8, *LZ4),
    Layout((8, 64, 64), 8, *LZ4HC_BITS),
    Layout((16, 128, 128), 1, *LZ4HC_BITS),
]


def main() -> None:
    """Print one row for each layout."""
    arguments = _arguments()
    if arguments.row:
        print(json.dumps(_measure(**json.loads(arguments.row))))
        return
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    with tempfile.TemporaryDirectory() as name:
        source = dataset(Path(name) / "source", arguments.data, arguments.csv, arguments.copies)
        spread_lesions(source, arguments.positions)
        for layout in LAYOUTS:
            if arguments.only in " | ".join(layout.cells):
                print(f"| {' | '.join([*layout.cells, *_row(source, layout, arguments)])} |", flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, help="a DeepLesion; default: synthetic")
    parser.add_argument("--csv", default="DL_info.csv", help="its table (default: %(default)s)")
    parser.add_argument("--positions", type=Path, help="a table of DeepLesion; default: the lesions of the store")
    parser.add_argument("--copies", type=int, default=20, help="how often its series are repeated")
    parser.add_argument("--repeats", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement; default: %(default)s")
    parser.add_argument("--only", default="", help="layouts whose first cells hold this text")
    parser.add_argument("--row", help=argparse.SUPPRESS)  # of the processes that measure
    return parser.parse_args()


def _row(source: Path, layout: Layout, arguments: argparse.Namespace) -> list[str]:
    folder = source.parent / "layout"
    written = _run("write", layout, folder=str(folder), source=str(source))
    cells = [f"{written['ratio']:.2f}", f"{written['rate'] / 1e6:.0f}"]
    for size in POOL:
        work = {"folder": str(folder), "size": size, "seconds": arguments.seconds}
        # readers take turns
        runs = [[_run("read", layout, peer=peer, **work) for peer in READERS] for _ in range(arguments.repeats)]
        times = [min(run["cpu_ms"] for run in each) for each in zip(*runs, strict=True)]
        own = runs[0][0]
        cells += [f"{own['bytes'] / 1000:.0f}", f"{own['requests']:.1f}", *(f"{time:.2f}" for time in times)]
    shutil.rmtree(folder)
    return cells


def _run(task: str, layout: Layout, **work: Any) -> dict[str, float]:
    command = [sys.executable, __file__, "--row", json.dumps({"task": task, "layout": layout, **work})]
    done = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - this script
    if done.returncode:
        raise SystemExit(f"{layout}: {done.stderr.strip() or done.returncode}")
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _measure(*, task: str, layout: list[Any], **work: Any) -> dict[str, float]:
    chunk, *codec = layout
    if task == "read":
        return _read(**work)
    return _write(Layout(tuple(chunk), *codec), **work)


def _write(layout: Layout, *, folder: str, source: str) -> dict[str, float]:
    from lesionzarr.store import layout as format_
    from lesionzarr.store.shards import encode_shard

    format_.CHUNK, format_.BLOCK_SLICES = layout.chunk, layout.block
    settings = {"cname": layout.codec, "clevel": layout.level, "shuffle": layout.shuffle, "typesize": 2}
    format_.PROFILES["portable"][1]["configuration"] = settings
    Path(folder).mkdir()
    make(Path(folder), Path(source), (), list(POOL), ("portable",))
    data = Data.load(Path(folder))
    stored = sum(path.stat().st_size for path in data.store("portable").glob("volumes/*/hu/c/*/0/0"))
    voxels = np.load(data.path("npy", max(data.shapes, key=lambda name: data.shapes[name])))[: format_.SHARD_SLICES]
    shape, codecs = format_.shard_shape(voxels.shape), format_.volume_codecs("portable")
    began = time.process_time()
    encode_shard(voxels, shape, layout.chunk, -1024, codecs)
    taken = time.process_time() - began
    return {"ratio": sum(map(math.prod, data.shapes.values())) * 2 / stored, "rate": voxels.nbytes / taken}


def _read(*, folder: str, size: str, seconds: float, peer: str) -> dict[str, float]:
    data = Data.load(Path(folder))
    crops, _ = data.crops(size, "many")
    out = np.empty((BATCH, *crops[0].size), dtype=np.uint8)
    reader = PEERS[peer](data, THREADS, "portable")
    batches = [tuple(crops[at : at + BATCH]) for at in range(0, len(crops) - BATCH + 1, BATCH)]
    for batch in batches:
        reader.batch(batch, out)
    done, cpu, began = 0, time.process_time(), time.perf_counter()
    while time.perf_counter() - began < seconds:
        reader.batch(batches[done % len(batches)], out)
        done += 1
    cpu = time.process_time() - cpu
    costs = [reader.explain(batch) for batch in batches] if isinstance(reader, Lesionzarr) else []
    return {
        "cpu_ms": 1000 * cpu / (BATCH * done),
        "bytes": sum(cost.read_bytes for cost in costs) / (BATCH * len(batches)),
        "requests": sum(cost.requests for cost in costs) / (BATCH * len(batches)),
    }


if __name__ == "__main__":
    main()
