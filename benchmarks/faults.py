"""Convert a made-up dataset, and real slices, into a bucket while workers, server and network fail.

Usage: python benchmarks/faults.py [--lesions 390] [--kills 20] [--restarts 2] [--seed 0] [--data FOLDER --csv TABLE]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from proxy import Proxy
from servers import SeaweedFS
from turmoil import convert_under_fire, digests, digests_of_folder

import lesionzarr
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.samples import deeplesion
from lesionzarr.store._bucket import Bucket

URL = "s3://faults/deeplesion.zarr"


def main() -> None:
    """Run it and print what happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lesions", type=int, default=390, help="of the made-up dataset; 390 make 200 volumes")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--restarts", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", type=Path, help="folder of real DeepLesion slices")
    parser.add_argument("--csv", help="its table")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = deeplesion(folder / "made", lesions=arguments.lesions, image_size=128, slices=12, seed=arguments.seed)
        sources: list[tuple[Path, dict[str, Any]]] = [(made, {})]
        if arguments.data is not None:
            sources.append((arguments.data, {"csv": arguments.data / arguments.csv}))
        began = time.monotonic()
        for source, options in sources:
            report = lesionzarr.convert("deeplesion", source, folder / "local.zarr", workers=2, **options)
            _check(not report.failed, "the local conversion failed")
        print(f"local conversion: {time.monotonic() - began:.1f} s")
        (folder / "server").mkdir()
        with SeaweedFS(folder / "server") as server, Proxy(server.endpoint, seed=arguments.seed) as proxy:
            server.create_bucket("faults")
            for source, options in sources:
                _one(source, options, server, proxy, arguments)
            same = digests(Bucket(URL, server.options)) == digests_of_folder(folder / "local.zarr")
            _check(same, "the store differs from that of the local conversion")
            print("every object of the store is that of the local conversion, byte by byte")
            found = lesionzarr.verify(URL, storage_options=server.options)
            _check(not found.issues, "\n".join(str(issue) for issue in found.issues))
            print(f"verify: nothing wrong, {len(found.leftovers)} leftovers")


def _one(source: Path, options: dict[str, Any], server: SeaweedFS, proxy: Proxy, arguments: argparse.Namespace) -> None:
    count = len(DeepLesion(source, **options).scan().volumes)
    words = [word for key, value in options.items() for word in (f"--{key}", value)]
    wanted = {"kills": min(arguments.kills, (count - 1) // 2), "restarts": min(arguments.restarts, (count - 1) // 2)}
    proxy.reset_counts()
    told = convert_under_fire(source, URL, server, proxy, *words, volumes=count, seed=arguments.seed, **wanted)
    print(told.errors, file=sys.stderr)
    print(
        f"{count} volumes: {told.seconds:.1f} s, {told.kills} workers killed, {told.restarts} restarts of the server "
        f"({', '.join(f'{down:.1f} s' for down in told.downtimes)}), {told.broken} of {len(proxy.log)} requests broken"
    )
    print({name: number for name, number in told.report["counts"].items() if number})
    _check(len(told.report["converted"]) == count, str(told.report["failed"]))


def _check(holds: bool, fault: str) -> None:  # noqa: FBT001 - reads as a sentence
    if not holds:
        raise SystemExit(fault)


if __name__ == "__main__":
    main()
