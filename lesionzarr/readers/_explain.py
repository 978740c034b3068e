"""What a batch costs: told from its plan and the indexes of the shards, before any chunk is read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from lesionzarr.readers._chunks import plan_chunks

if TYPE_CHECKING:
    from lesionzarr.readers._fetch import Fetcher, Regions
    from lesionzarr.store.arrays import ArrayLayout


@dataclass(frozen=True)
class Explanation:
    """The cost of a batch."""

    images: int
    volumes: int
    """Volumes that it touches."""
    shards: int
    """Objects that it touches."""
    chunks: int
    """Chunks that are read and decoded, each once."""
    requests: int
    """Reads of neighbouring chunks, beside one of the index for each shard that was not open."""
    read_bytes: int
    """Bytes of those reads."""
    decoded_bytes: int
    """Bytes that are decoded: of each chunk the blocks that hold what is wanted; all of it where it is kept."""
    wanted_bytes: int
    """Bytes of the voxels that the images show."""
    seconds: float | None = None
    """What it took, where it was run."""
    requests_made: int | None = None
    bytes_fetched: int | None = None
    """What was asked of a bucket then; 0 of a disk, whose reads are not counted."""

    @property
    def waste(self) -> float:
        """Decoded bytes for each byte wanted; 1 where every voxel that is decoded is shown."""
        return self.decoded_bytes / self.wanted_bytes if self.wanted_bytes else 0.0


def explain(fetcher: Fetcher, regions: Regions) -> Explanation:
    """Say what reading regions costs where no chunk is kept from before; opens their shards, and reads no chunk.

    Parameters
    ----------
    fetcher
        Of the store.
    regions
        What would be read.

    Returns
    -------
    Explanation
    """
    plan = plan_chunks(regions.layouts, regions.volume, regions.start, regions.stop)
    requests, read_bytes = fetcher.costs(plan, regions)
    layouts = regions.layouts
    row_bytes, block_rows, items = (
        np.array(column, dtype=np.int64)
        for column in zip(
            *((each.row_bytes, _rows_at_once(each, fetcher), each.dtype.itemsize) for each in layouts), strict=True
        )
    )
    block, (first, last) = block_rows[plan.volume], plan.rows.T
    decoded_rows = (-(-last // block) - first // block) * block
    return Explanation(
        images=len(regions.volume),
        volumes=len(np.unique(plan.volume)),
        shards=len(np.unique(np.stack([plan.volume, plan.shard]), axis=1).T),
        chunks=len(plan.inner),
        requests=requests,
        read_bytes=read_bytes,
        decoded_bytes=int((decoded_rows * row_bytes[plan.volume]).sum()),
        wanted_bytes=int(((regions.stop - regions.start).prod(axis=1) * items[regions.volume]).sum()),
    )


def _rows_at_once(layout: ArrayLayout, fetcher: Fetcher) -> int:
    """Give the rows of a chunk that are decoded together; of one that is kept, or has no checksum, those are all."""
    return layout.block_rows if layout.checked and not fetcher.cache else layout.chunk[0]
