"""Images as datasets of PyTorch. The only file that imports torch; imported when it is asked for.

What a dataset holds survives fork, spawn and forkserver: settings, lesions, and no handle. The reader opens the store
anew in each process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, default_collate, get_worker_info

from lesionzarr.errors import GeometryError
from lesionzarr.readers._checks import check_whole
from lesionzarr.readers._order import order_batches
from lesionzarr.readers._prefetch import read_ahead
from lesionzarr.readers._threads import cores

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray

    from lesionzarr.geometry import Box
    from lesionzarr.lesion import Lesion
    from lesionzarr.readers._order import Order
    from lesionzarr.readers._reader import Reader
    from lesionzarr.readers.batch import Batch, Crop

    Ints = NDArray[np.int64]
    Sample = dict[str, Any]


def collate(samples: Sequence[Sample]) -> Sample:
    """Stack the items of a `LesionDataset`; for ``DataLoader(collate_fn=)``.

    Parameters
    ----------
    samples
        At least one.

    Returns
    -------
    dict
        As `LesionBatches` gives it.

    Raises
    ------
    GeometryError
        The images differ in shape.
    """
    shapes = {tuple(sample["image"].shape) for sample in samples}
    if len(shapes) > 1:
        raise GeometryError(f"images of different shapes {sorted(shapes)} make no batch; give a size")
    stacked: Sample = default_collate(list(samples))
    return stacked


class _Source:
    """Reads the batches of the current epoch; a copy in a worker knows which epoch that is."""

    def __init__(self, reader: Reader, lesions: list[Lesion], order: Order, threads: int | None) -> None:
        self._reader, self._lesions, self._order, self._threads = reader, lesions, order, threads
        # in shared memory, so that persistent workers see what set_epoch writes in the parent
        self._now = torch.tensor([order.epoch, order.start_batch]).share_memory_()
        self._planned: tuple[Order, list[Ints]] | None = None
        self.batches()
        self.epoch_batches = len(order_batches(lesions, replace(order, start_batch=0)))

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        check_whole(epoch, "epoch", 0)
        check_whole(start_batch, "start_batch", 0)
        # what cannot be is refused here, and not in a worker
        order = replace(self._order, epoch=int(epoch), start_batch=int(start_batch))
        self._planned = order, order_batches(self._lesions, order)
        self._now.copy_(torch.tensor([order.epoch, order.start_batch]))

    def batches(self) -> list[Ints]:
        """Give numbers of lesions, one array per batch."""
        epoch, start_batch = self._now.tolist()
        order = replace(self._order, epoch=epoch, start_batch=start_batch)
        if self._planned is None or self._planned[0] != order:
            self._planned = order, order_batches(self._lesions, order)
        return self._planned[1]

    def read(self, numbers: Ints) -> Batch:
        worker = get_worker_info()
        threads = self._threads or max(1, cores() // (worker.num_workers if worker else 1))
        reader = self._reader.at_epoch(int(self._now[0]))
        return reader.read_batch([self._lesions[number] for number in numbers], threads=threads)


class LesionDataset(Dataset[dict[str, Any]]):
    """One item per lesion: the lesions of the batches of an epoch, one after the other.

    ``DataLoader(dataset, batch_size=n)`` gives the same batches as `Reader.batches` of that size. An item is a dict of
    ``image`` (window, z, y, x), ``valid`` (z, y, x), ``box`` (float32: z0, y0, x0, z1, y1, x1 in voxels of the image),
    ``lesion_id``, and ``index``, the lesion's number among those given.
    """

    collate = staticmethod(collate)

    def __init__(self, reader: Reader, lesions: list[Lesion], order: Order, threads: int | None) -> None:
        self._source = _Source(reader, lesions, order, threads)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to another epoch, in workers too; call it before the loop over the loader begins."""
        self._source.set_epoch(epoch, start_batch)

    def __len__(self) -> int:
        return sum(map(len, self._source.batches()))

    def __getitem__(self, index: int) -> Sample:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Sample]:
        # DataLoader asks for a whole batch by this method: chunks that lesions share are read once
        batches = self._source.batches()
        numbers = np.concatenate(batches)[indices] if batches else np.empty(0, dtype=np.int64)[indices]
        batch = self._source.read(numbers)
        return [_sample(crop, int(number)) for crop, number in zip(batch.crops, numbers, strict=True)]


class LesionBatches(IterableDataset[dict[str, Any]]):
    """Whole batches; for ``DataLoader(dataset, batch_size=None)``.

    A batch is a dict of ``image`` (lesion, window, z, y, x), ``valid`` (lesion, z, y, x), ``box`` (lesion, 6),
    ``lesion_id`` (list), and ``index`` (lesion,), as `LesionDataset`. The workers of a loader deal the batches out
    among themselves, and the loader gives them in the same order whatever their number. The length is that of a whole
    epoch, also where one begins in its middle.
    """

    collate = staticmethod(collate)

    def __init__(self, reader: Reader, lesions: list[Lesion], order: Order, threads: int | None, prefetch: int) -> None:
        self._source = _Source(reader, lesions, order, threads)
        self._prefetch = prefetch

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Go to another epoch, in workers too; call it before the loop over the loader begins."""
        self._source.set_epoch(epoch, start_batch)

    def __len__(self) -> int:
        # a loader remembers the length, and warns when the epoch after a resumed one is longer
        return self._source.epoch_batches

    def __iter__(self) -> Generator[Sample, None, None]:
        batches, worker = self._source.batches(), get_worker_info()
        if worker is None:
            return read_ahead(self._read, batches, self._prefetch)
        # a loader reads ahead itself, and asks its workers in turn
        return read_ahead(self._read, batches[worker.id :: worker.num_workers], 0)

    def _read(self, numbers: Ints) -> Sample:
        batch = self._source.read(numbers)
        return {
            "image": torch.from_numpy(batch.image),
            "valid": torch.from_numpy(batch.valid),
            "box": torch.stack([_box(crop) for crop in batch.crops]),
            "lesion_id": [crop.lesion.lesion_id for crop in batch.crops],
            "index": torch.from_numpy(numbers.copy()),
        }


def _sample(crop: Crop, number: int) -> Sample:
    return {
        "image": torch.from_numpy(crop.image),
        "valid": torch.from_numpy(crop.valid),
        "box": _box(crop),
        "lesion_id": crop.lesion.lesion_id,
        "index": number,
    }


def _box(crop: Crop) -> torch.Tensor:
    box = cast("Box", crop.box)  # lesions without one are in no epoch
    return torch.tensor([box.z0, box.y0, box.x0, box.z1, box.y1, box.x1], dtype=torch.float32)
