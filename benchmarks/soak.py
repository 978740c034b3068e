"""Whether memory stays flat, no handle is lost and every crop is right, over a long time of reads of all kinds.

    python benchmarks/soak.py [--minutes 30] [--readers 4] [--faults 0.01]

Reads a store in a bucket (SeaweedFS) through a line on which a part of all requests fails: reset, answered and lost,
refused, cut off or stalled. Readers are threads of one process, which do at random what users do: single crops,
batches, stacks, explanations, epochs that they leave before the end, stores opened anew, with and without caches. Every
image is compared with that from the disk. Prints what the process holds, and ends with 1 if something was wrong: an
image, an error, or more memory, handles or threads in the last quarter of the time than in the one before, since in the
first half threads, connections and heaps still come into being.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from _network import network, upload

import lesionzarr
from lesionzarr.samples import deeplesion

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from _network import Line
    from numpy.typing import NDArray

    from lesionzarr.readers._reader import Reader
    from lesionzarr.store.catalog import Catalog

FAULTS = ("reset", "lost", "unavailable", "truncated", "stalled")
TIMEOUT_S = 1.0
CACHE_BYTES = 8 * 1024**2
SAMPLES = 240
ROWS = 12
ALLOWED = {"memory_mb": 10, "handles": 8, "threads": 2}
"""How much more in the last quarter than in the third is no leak: heaps of threads and connections come and go."""


class Sample(NamedTuple):
    """What the process holds."""

    seconds: float
    memory_mb: float
    handles: int
    threads: int
    reads: int
    requests: int
    failed: int


@dataclass
class Soak:
    """Reads of all kinds, by any number of threads."""

    url: str
    options: dict[str, Any]
    folder: Path
    ids: list[str]
    crops: NDArray[np.uint8]
    stacks: NDArray[np.uint8]
    """(lesion, window, z, y, x), from the disk."""
    over: Event = field(default_factory=Event)
    done: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    _lock: Lock = field(default_factory=Lock)

    def __post_init__(self) -> None:
        self._plain = self._open()
        self._cached = self._open(cache_bytes=CACHE_BYTES)
        self._local = self._open(local_cache=self.folder / "cache", local_cache_bytes=CACHE_BYTES)
        self._reads: Sequence[Callable[[np.random.Generator], None]] = (
            self._crop,
            partial(self._batch, self._plain),
            partial(self._batch, self._cached),
            partial(self._batch, self._local),
            self._stack,
            self._explain,
            self._epoch,
            self._anew,
        )

    def run(self, seed: int) -> None:
        """Read until it is over."""
        rng = np.random.default_rng(seed)
        while not self.over.is_set():
            read = self._reads[int(rng.integers(len(self._reads)))]
            try:
                read(rng)
            except Exception:  # noqa: BLE001 - whatever it is, it is told in the end
                self.wrong.append(traceback.format_exc())
            name = getattr(read, "func", read).__name__.strip("_")
            with self._lock:
                self.done[name] += 1

    def _open(self, **settings: Any) -> Catalog:
        return lesionzarr.open(self.url, self.options, **settings)

    def _some(self, rng: np.random.Generator) -> list[int]:
        chosen: list[int] = rng.choice(len(self.ids), rng.integers(1, 17), replace=False).tolist()
        return chosen

    def _compare(self, image: NDArray[Any], expected: NDArray[np.uint8], what: str) -> None:
        if not np.array_equal(image, expected):
            self.wrong.append(f"{what}: other voxels than from the disk")

    def _crop(self, rng: np.random.Generator) -> None:
        number = int(rng.integers(len(self.ids)))
        image = crop_reader(self._plain).read(self.ids[number]).image
        self._compare(image, self.crops[number], "crop")

    def _batch(self, catalog: Catalog, rng: np.random.Generator) -> None:
        chosen = self._some(rng)
        image = crop_reader(catalog).read_batch([self.ids[number] for number in chosen]).image
        self._compare(image, self.crops[chosen], "batch")

    def _stack(self, rng: np.random.Generator) -> None:
        chosen = self._some(rng)
        image = stack_reader(self._plain).read_batch([self.ids[number] for number in chosen]).image
        self._compare(image, self.stacks[chosen], "stack")

    def _explain(self, rng: np.random.Generator) -> None:
        chosen = [self.ids[number] for number in self._some(rng)]
        told = crop_reader(self._plain).explain(chosen, run=bool(rng.integers(2)))
        if told.images != len(chosen) or not told.requests:
            self.wrong.append(f"explain: {told}")

    def _epoch(self, rng: np.random.Generator) -> None:
        places = {lesion: number for number, lesion in enumerate(self.ids)}
        batches = crop_reader(self._plain).batches(self.ids, batch_size=8, seed=int(rng.integers(1000)))
        for batch in islice(batches, int(rng.integers(1, 5))):
            chosen = [places[crop.lesion.lesion_id] for crop in batch.crops]
            self._compare(batch.image, self.crops[chosen], "epoch")
        # left before its end, while it reads ahead

    def _anew(self, rng: np.random.Generator) -> None:
        self._batch(self._open(), rng)


def crop_reader(catalog: Catalog) -> Reader:
    """Give a reader of crops."""
    return lesionzarr.CropReader(catalog, size=(9, 96, 96), window="lung")


def stack_reader(catalog: Catalog) -> Reader:
    """Give a reader of stacks, interpolated between slices and pixels."""
    return lesionzarr.StackReader(catalog, slices=5, interval_mm=2.0, spacing_mm=0.9, size=(96, 96), window="lung")


def main() -> None:
    """Read for some minutes, and tell."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--minutes", type=float, default=30.0, help="(default: %(default)s)")
    parser.add_argument("--readers", type=int, default=4, help="(default: %(default)s)")
    parser.add_argument("--faults", type=float, default=0.01, help="part of all requests (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=5.0, help="in ms (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, network(Path(name) / "server") as place:
        store = Path(name) / "store.zarr"
        source = deeplesion(Path(name) / "source", image_size=256, slices=13, lesions=32)
        lesionzarr.convert("deeplesion", source, store, workers=1)
        catalog = lesionzarr.open(store)
        ids = [lesion.lesion_id for lesion in catalog.find_lesions(list(catalog.lesions.index)) if lesion.box]
        crops, stacks = crop_reader(catalog).read_batch(ids).image, stack_reader(catalog).read_batch(ids).image
        line = place.line()
        line.set(arguments.latency, dict.fromkeys(FAULTS, arguments.faults / len(FAULTS)))
        options = {**place.options, "timeout_s": TIMEOUT_S}
        soak = Soak(upload(place, store, store.name), options, Path(name), ids, crops, stacks)
        samples = _run(soak, line, 60 * arguments.minutes, arguments.readers)
    _print(samples)
    print(f"\n{', '.join(f'{count} {what}' for what, count in sorted(soak.done.items()))}")
    faults = _faults(samples, soak)
    print("\n".join(faults) or "no image wrong, nothing leaked")
    sys.exit(bool(faults))


def _run(soak: Soak, line: Line, seconds: float, readers: int) -> list[Sample]:
    """Let threads read, and look at the process from time to time."""
    threads = [Thread(target=soak.run, args=(seed,)) for seed in range(readers)]
    for thread in threads:
        thread.start()
    samples: list[Sample] = []
    began, requests, failed = time.perf_counter(), 0, 0
    while (now := time.perf_counter() - began) < seconds:
        spent = line.spent()
        requests, failed = requests + spent.requests, failed + line.faults()
        line.set()
        samples.append(Sample(now, *_held(), sum(soak.done.values()), requests, failed))
        time.sleep(seconds / SAMPLES)
    soak.over.set()
    for thread in threads:
        thread.join()
    return samples


def _held() -> tuple[float, int, int]:
    """Give memory in MB, open handles and threads of this process.

    What the allocator keeps of freed memory is handed back first: how much that is depends on how threads took turns.
    """
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    status = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmRSS"].split()[0]) / 1e3, len(list(Path("/proc/self/fd").iterdir())), int(status["Threads"])


def _faults(samples: list[Sample], soak: Soak) -> list[str]:
    """Tell what is wrong, a line each."""
    quarter = len(samples) // 4
    faults = []
    for name, allowed in ALLOWED.items():
        held = [float(getattr(sample, name)) for sample in samples]
        medians = [statistics.median(held[number * quarter : (number + 1) * quarter]) for number in range(4)]
        print(f"{name}: medians of the quarters {', '.join(f'{median:g}' for median in medians)}")
        if medians[3] > medians[2] + allowed:
            faults.append(f"{name} grew by more than {allowed}")
    return [*faults, *soak.wrong[:3], *([f"{len(soak.wrong)} reads were wrong"] if soak.wrong else [])]


def _print(samples: list[Sample]) -> None:
    print("| minute | MB | handles | threads | reads | requests | of them failed |\n|---|---|---|---|---|---|---|")
    for sample in [samples[0], *samples[len(samples) // ROWS :: len(samples) // ROWS], samples[-1]]:
        minute, memory = f"{sample.seconds / 60:.1f}", f"{sample.memory_mb:.0f}"
        print(f"| {' | '.join([minute, memory, *map(str, sample[2:])])} |")


if __name__ == "__main__":
    main()
