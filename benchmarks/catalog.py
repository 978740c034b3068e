"""How fast a store of many lesions opens, and gives its first crop.

    python benchmarks/catalog.py [--lesions 4889] [--repeats 5]

Makes a synthetic DeepLesion with tiny images, converts it, and opens it in fresh processes.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import lesionzarr
from lesionzarr.samples import deeplesion

OPEN = """
import re, sys, time
import lesionzarr
began = time.perf_counter()
catalog = lesionzarr.open(sys.argv[1])
opened = time.perf_counter()
lesionzarr.CropReader(catalog, size=(9, 128, 128), window="lung").read(catalog.lesions.index[len(catalog) // 2])
read = time.perf_counter()
peak_kb = re.search(r"VmHWM:\\s*(\\d+)", open("/proc/self/status").read())[1]
print(opened - began, read - opened, int(peak_kb) / 1e3)
"""


def main() -> None:
    """Print medians, imports left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lesions", type=int, default=4889, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source = deeplesion(Path(name) / "source", lesions=arguments.lesions, image_size=16, slices=5)
        report = lesionzarr.convert("deeplesion", source, Path(name) / "store.zarr")
        found = []
        for _ in range(arguments.repeats):
            command = [sys.executable, "-c", OPEN, f"{name}/store.zarr"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this interpreter
            found.append([float(number) for number in done.stdout.split()])
        opened, read, peak = map(statistics.median, zip(*found, strict=True))
        print(
            f"{len(report.converted)} volumes, {arguments.lesions} lesions: opened in {opened:.3f} s, "
            f"first crop {read:.3f} s later, {peak:.0f} MB at most"
        )


if __name__ == "__main__":
    main()
