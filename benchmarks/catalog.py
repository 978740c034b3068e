"""How fast a store of many lesions opens.

    python benchmarks/catalog.py [--lesions 4889] [--repeats 5]

Makes a synthetic DeepLesion with tiny images, converts it, and opens it in a fresh process.
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
import sys, time
import lesionzarr
began = time.perf_counter()
catalog = lesionzarr.open(sys.argv[1])
print(len(catalog), time.perf_counter() - began)
"""


def main() -> None:
    """Print the median of opening, imports left out."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--lesions", type=int, default=4889, help="(default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        source = deeplesion(Path(name) / "source", lesions=arguments.lesions, image_size=16, slices=5)
        report = lesionzarr.convert("deeplesion", source, Path(name) / "store.zarr")
        seconds = []
        for _ in range(arguments.repeats):
            command = [sys.executable, "-c", OPEN, f"{name}/store.zarr"]
            done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - this interpreter
            lesions, time = done.stdout.split()
            seconds.append(float(time))
        print(f"{len(report.converted)} volumes, {lesions} lesions: opened in {statistics.median(seconds):.3f} s")


if __name__ == "__main__":
    main()
