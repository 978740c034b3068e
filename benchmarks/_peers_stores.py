"""Peers that read the stores."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from threading import local
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from _data import WINDOW, overlap
from _peer import Peer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _data import Crop, Data
    from _peer import Inside
    from numpy.typing import NDArray


class Lesionzarr(Peer):
    """`read_batch` of this package."""

    packages = ("lesionzarr",)

    def __init__(self, data: Data, threads: int, profile: str) -> None:
        super().__init__(data, threads, profile)
        import lesionzarr

        self._catalog = lesionzarr.open(data.store(profile))
        self._lesion = self._catalog.find_lesions([self._catalog.lesions.index[0]])[0]
        self._moved: dict[Crop, Any] = {}
        self._readers: dict[tuple[int, int, int], Any] = {}

    def prepare(self, volumes: Iterable[str]) -> None:
        """Nothing: shards are opened by the passes before the clock runs."""

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:
        """Read lesions moved to where the crops are."""
        reader = self._reader(crops[0].size)
        reader.read_batch([self._move(crop) for crop in crops], out=out[:, None], threads=self.threads)

    def explain(self, crops: Sequence[Crop]) -> Any:
        """Tell what a batch costs."""
        return self._reader(crops[0].size).explain([self._move(crop) for crop in crops])

    def _reader(self, size: tuple[int, int, int]) -> Any:
        from lesionzarr import CropReader

        if size not in self._readers:
            self._readers[size] = CropReader(self._catalog, size=size, window=WINDOW)
        return self._readers[size]

    def _move(self, crop: Crop) -> Any:
        if crop not in self._moved:
            z, y, x = crop.centre
            box = {"y0": float(y), "y1": float(y), "x0": float(x), "x1": float(x)}
            row: dict[str, Any] = {"volume_id": crop.volume, "key_z": z, "z0": None, "z1": None, **box}
            self._moved[crop] = replace(self._lesion, **row)
        return self._moved[crop]


class LesionzarrPacked(Peer):
    """`read_batch` of this package, on a pack of the lesions."""

    packages = ("lesionzarr",)
    anywhere = False

    def prepare(self, volumes: Iterable[str]) -> None:
        """Nothing: shards are opened by the passes before the clock runs."""

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:
        """Read lesions."""
        reader = self._reader(crops[0].size)
        reader.read_batch([crop.lesion for crop in crops], out=out[:, None], threads=self.threads)

    def _reader(self, size: tuple[int, int, int]) -> Any:
        import lesionzarr

        if size not in self._handles:
            pack = lesionzarr.open_pack(self.data.pack(self.profile, size))
            self._handles[size] = lesionzarr.PackReader(pack, window=WINDOW)
        return self._handles[size]


class BareDecode(Peer):
    """The limit: every chunk of a batch read, checked and decoded once, by numcodecs; nothing is planned or copied."""

    packages = ("numcodecs.blosc", "google_crc32c")
    delivers = False

    def __init__(self, data: Data, threads: int, profile: str) -> None:
        super().__init__(data, threads, profile)
        from numcodecs import blosc

        blosc.use_threads = False
        self._plans: dict[tuple[Crop, ...], list[Any]] = {}
        self._local = local()

    def open(self, volume: str) -> Any:
        """Read the indexes of the shards."""
        path = self.data.store(self.profile) / "volumes" / volume / "hu"
        metadata = json.loads((path / "zarr.json").read_text())
        shard = metadata["chunk_grid"]["configuration"]["chunk_shape"]
        chunk = metadata["codecs"][0]["configuration"]["chunk_shape"]
        grid = [outer // inner for outer, inner in zip(shard, chunk, strict=True)]
        size = 16 * int(np.prod(grid)) + 4
        shards = []
        for number in range(-(-metadata["shape"][0] // shard[0])):
            file = os.open(path / "c" / str(number) / "0" / "0", os.O_RDONLY)
            index = np.frombuffer(os.pread(file, size, os.fstat(file).st_size - size)[:-4], dtype="<i8")
            shards.append((file, index.reshape(*grid, 2)))
        return chunk, grid[0], shards

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:  # noqa: ARG002 - nothing is delivered
        """Decode the chunks of crops; which they are is found out once."""
        key = tuple(crops)
        if key not in self._plans:
            self._plans[key] = self._plan(crops)
        self.map(self._decode, self._plans[key])

    def _plan(self, crops: Sequence[Crop]) -> list[Any]:
        """Give for each thread the runs of neighbouring chunks: file, offset and lengths."""
        entries = sorted({entry for crop in crops for entry in self._entries(crop)})
        runs: list[tuple[int, int, list[int]]] = []
        for file, offset, length in entries:
            if runs and runs[-1][0] == file and runs[-1][1] + sum(runs[-1][2]) == offset:
                runs[-1][2].append(length)
            else:
                runs.append((file, offset, [length]))
        return [runs[first :: self.threads] for first in range(self.threads)]

    def _entries(self, crop: Crop) -> Iterable[tuple[int, int, int]]:
        chunk, deep, shards = self.handle(crop.volume)
        parts = overlap(crop, self.data.shapes[crop.volume])
        if parts is None:
            return
        z, y, x = (range(p.start // c, -(-p.stop // c)) for p, c in zip(parts[0], chunk, strict=True))
        for row in z:
            file, index = shards[row // deep]
            block = index[row % deep, y.start : y.stop, x.start : x.stop].reshape(-1, 2)
            yield from ((file, offset, length) for offset, length in block.tolist())

    def _decode(self, runs: list[tuple[int, int, list[int]]]) -> None:
        import google_crc32c
        from numcodecs import blosc

        known = self._local.__dict__
        for file, offset, lengths in runs:
            stored = np.frombuffer(os.pread(file, sum(lengths), offset), dtype=np.uint8)
            end = 0
            for length in lengths:
                begin, end = end, end + length
                payload = stored[begin : end - 4]
                if google_crc32c.value(payload) != int.from_bytes(stored[end - 4 : end].tobytes(), "little"):
                    raise ValueError("the checksum of a chunk is wrong")
                if "buffer" not in known:
                    known["buffer"] = np.frombuffer(bytearray(blosc.decompress(payload)), dtype=np.uint8)
                blosc.decompress(payload, known["buffer"])


class ZarrPython(Peer):
    """zarr-python as it comes."""

    packages: ClassVar[tuple[str, ...]] = ("zarr",)
    alone = True
    settings: ClassVar[dict[str, Any]] = {}

    def open(self, volume: str) -> Any:
        """Open the array."""
        import zarr

        zarr.config.set({"threading.max_workers": self.threads, **self.settings})
        return zarr.open_array(self.data.store(self.profile) / "volumes" / volume / "hu", mode="r", zarr_format=3)

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Slice the array."""
        return np.asarray(handle[inside])


class ZarrFused(ZarrPython):
    """zarr-python with its fused pipeline."""

    packages = ("zarr.core.codec_pipeline:FusedCodecPipeline",)
    settings: ClassVar[dict[str, Any]] = {"codec_pipeline.path": "zarr.core.codec_pipeline.FusedCodecPipeline"}


class Zarrs(ZarrPython):
    """zarr-python with the pipeline of zarrs."""

    packages = ("zarr", "zarrs")
    settings: ClassVar[dict[str, Any]] = {
        "codec_pipeline.path": "zarrs.ZarrsCodecPipeline",
        "codec_pipeline.strict": True,
        "codec_pipeline.validate_checksums": True,
    }


class XarrayDask(Peer):
    """xarray on dask, chunks as stored, one computation a batch."""

    packages = ("xarray.backends.zarr", "dask.array", "zarr")
    most = 16

    def open(self, volume: str) -> Any:
        """Open the volume as a dataset."""
        import xarray as xr

        path = self.data.store(self.profile) / "volumes" / volume
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return xr.open_zarr(path, consolidated=False)["hu"]

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:
        """Compute all crops at once, then window each."""
        import dask

        parts = [overlap(crop, self.data.shapes[crop.volume]) for crop in crops]
        lazy = [self.handle(crop.volume)[part[0]] if part else None for crop, part in zip(crops, parts, strict=True)]
        scheduler = "threads" if self.threads > 1 else "synchronous"
        read = dask.compute(*lazy, scheduler=scheduler, num_workers=self.threads)
        self.map(lambda n: self.show(crops[n], lambda _: read[n].values, out[n]), range(len(crops)))


class Tensorstore(Peer):
    """Tensorstore, one read a crop, all under way at once; no cache."""

    packages = ("tensorstore",)

    def __init__(self, data: Data, threads: int, profile: str) -> None:
        super().__init__(data, threads, profile)
        import tensorstore as ts

        limit = {"limit": threads}
        pools = {"data_copy_concurrency": limit, "file_io_concurrency": limit}
        self._context = ts.Context({"cache_pool": {"total_bytes_limit": 0}, **pools})

    def open(self, volume: str) -> Any:
        """Open the array."""
        import tensorstore as ts

        path = f"{self.data.store(self.profile)}/volumes/{volume}/hu/"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": path}}
        return ts.open(spec, context=self._context, open=True, read=True).result()

    def batch(self, crops: Sequence[Crop], out: NDArray[np.uint8]) -> None:
        """Read all crops, and window each when it is there."""
        reads = self.start(crops)
        self.map(lambda n: self.show(crops[n], lambda _: reads[n].result(), out[n]), range(len(crops)))

    def start(self, crops: Sequence[Crop], **settings: Any) -> list[Any]:
        """Begin the reads."""
        parts = [overlap(crop, self.data.shapes[crop.volume]) for crop in crops]
        pairs = zip(crops, parts, strict=True)
        return [self.handle(crop.volume)[part[0]].read(**settings) if part else None for crop, part in pairs]


class TensorstoreBatched(Tensorstore):
    """Tensorstore, the crops of a batch in one of its own batches; no cache."""

    def start(self, crops: Sequence[Crop], **settings: Any) -> list[Any]:
        """Begin the reads when all are known."""
        import tensorstore as ts

        with ts.Batch() as together:
            return super().start(crops, batch=together, **settings)
