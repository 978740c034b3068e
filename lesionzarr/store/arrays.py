"""What a Zarr v3 ``zarr.json`` says about an array, as far as shards are read here without zarr-python.

Known are regular grids of chunks, plain or sharded once, of integers, floats and booleans, whose chunks are encoded by
``bytes``, then ``blosc`` or ``zstd`` or nothing, then ``crc32c`` or nothing. Everything else is left to zarr-python.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

DTYPES = {
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
    *("float16", "float32", "float64", "bool"),
}
COMPRESSORS = {"blosc", "zstd"}


@dataclass(frozen=True)
class ArrayLayout:
    """Where the voxels of an array are, and how they are encoded."""

    name: str
    """Of the array, in its group."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    """As stored, with its byte order."""
    chunk: tuple[int, ...]
    """Shape of what is encoded as one: an inner chunk where the array is sharded."""
    shard: tuple[int, ...]
    """Shape of what is stored as one object; equal to `chunk` where the array is not sharded."""
    compressor: str | None
    """``blosc``, ``zstd`` or None."""
    block_bytes: int
    """Of a decoded chunk, what ``blosc`` decodes at once; 0 where that is not told, or all of it."""
    checked: bool
    """Every chunk ends in a CRC-32C."""
    indexed: bool
    """Objects are shards with an index."""
    index_first: bool
    """The index stands at the start of the shard, not at its end."""
    index_checked: bool
    """The index ends in a CRC-32C."""
    fill_value: Any
    separator: str
    """Between the numbers of a chunk key: ``/`` or ``.``."""
    objects: tuple[tuple[int, int], ...] = ()
    """Of each object the length in bytes, and that of the chunks round lesions, which come first; none where that is
    not known."""
    version: str = ""
    """Says which values the array has; empty where that is not known."""
    merged_axes: int = 0
    """Axes of the stored array that are one with the first axis here."""
    chunks_per_shard: tuple[int, ...] = field(init=False)
    grid: tuple[int, ...] = field(init=False)
    """Number of objects along each axis."""

    def __post_init__(self) -> None:
        per_shard = tuple(outer // inner for outer, inner in zip(self.shard, self.chunk, strict=True))
        grid = tuple(-(-size // outer) for size, outer in zip(self.shape, self.shard, strict=True))
        object.__setattr__(self, "chunks_per_shard", per_shard)
        object.__setattr__(self, "grid", grid)

    @property
    def coding(self) -> tuple[Any, ...]:
        """What a decoder of its chunks depends on."""
        return self.chunk, self.dtype, self.compressor, self.checked

    @property
    def row_bytes(self) -> int:
        """Size of one row, along the first axis, of a decoded chunk."""
        return math.prod(self.chunk[1:]) * self.dtype.itemsize

    @property
    def block_rows(self) -> int:
        """Rows, along the first axis, of what is decoded at once: all of a chunk, where that is not told."""
        rows, rest = divmod(self.block_bytes, self.row_bytes)
        return rows if rows and not rest and not self.chunk[0] % rows else self.chunk[0]

    @property
    def index_bytes(self) -> int:
        """Size of the index of a shard."""
        return 16 * math.prod(self.chunks_per_shard) + 4 * self.index_checked

    def key(self, position: Sequence[int]) -> str:
        """Give the key of the object at a place in the grid, below the array."""
        return self.separator.join(["c", *map(str, position), *["0"] * self.merged_axes])

    def merge_first_axes(self) -> ArrayLayout:
        """Give the layout of the same bytes with the first two axes as one.

        A chunk has one entry along the first axis, and all of the second.
        """

        def merged(shape: tuple[int, ...]) -> tuple[int, ...]:
            return shape[0] * shape[1], *shape[2:]

        shape, chunk, shard = map(merged, (self.shape, self.chunk, self.shard))
        return replace(self, shape=shape, chunk=chunk, shard=shard, merged_axes=self.merged_axes + 1)


def parse_layout(metadata: dict[str, Any], name: str = "hu") -> ArrayLayout | None:
    """Read the metadata of an array.

    Parameters
    ----------
    metadata
        Content of its ``zarr.json``.
    name
        Of the array, in its group.

    Returns
    -------
    ArrayLayout or None
        None where the array is of a kind that is left to zarr-python.
    """
    grid, keys = metadata.get("chunk_grid", {}), metadata.get("chunk_key_encoding", {})
    dtype = metadata.get("data_type")
    known = (
        metadata.get("node_type") == "array"
        # other types and grids may be objects or names
        and isinstance(dtype, str)
        and dtype in DTYPES
        and isinstance(grid, dict)
        and isinstance(keys, dict)
        and grid.get("name") == "regular"
        and keys.get("name") == "default"
        and not metadata.get("storage_transformers")
        and isinstance(metadata.get("fill_value"), (bool, int, float))
        and len(metadata["shape"]) > 0
    )
    if not known:
        return None
    outer = tuple(grid["configuration"]["chunk_shape"])
    codecs = _named(metadata["codecs"])
    sharding = codecs[0][1] if codecs[0][0] == "sharding_indexed" and len(codecs) == 1 else None
    inner = tuple(sharding["chunk_shape"]) if sharding else outer
    chain = _parse_chain(_named(sharding["codecs"]) if sharding else codecs)
    index = _parse_index(sharding) if sharding else (False, False)
    if chain is None or index is None or 0 in inner:
        return None
    order, compressor, block_bytes, checked = chain
    return ArrayLayout(
        name=name,
        shape=tuple(metadata["shape"]),
        dtype=np.dtype(metadata["data_type"]).newbyteorder(order),
        chunk=inner,
        shard=outer,
        compressor=compressor,
        block_bytes=block_bytes,
        checked=checked,
        indexed=sharding is not None,
        index_first=index[0],
        index_checked=index[1],
        fill_value=metadata["fill_value"],
        separator=keys.get("configuration", {}).get("separator", "/"),
    )


def _named(codecs: list[Any]) -> list[tuple[str, dict[str, Any]]]:
    # the specification allows a bare name for a codec without configuration
    return [(c, {}) if isinstance(c, str) else (c["name"], c.get("configuration") or {}) for c in codecs]


def _parse_chain(codecs: list[tuple[str, dict[str, Any]]]) -> tuple[str, str | None, int, bool] | None:
    """Give byte order, compressor, size of its blocks, and whether there is a checksum; None for another chain."""
    names = [name for name, _ in codecs]
    checked = names[-1] == "crc32c"
    compressors = names[1:-1] if checked else names[1:]
    if names[0] != "bytes" or len(compressors) > 1 or not COMPRESSORS.issuperset(compressors):
        return None
    order = "<" if codecs[0][1].get("endian", "little") == "little" else ">"
    block_bytes = codecs[1][1].get("blocksize", 0) if compressors else 0
    return order, (compressors[0] if compressors else None), block_bytes, checked


def _parse_index(sharding: dict[str, Any]) -> tuple[bool, bool] | None:
    codecs = _named(sharding["index_codecs"])
    if codecs[0] != ("bytes", {"endian": "little"}) or [name for name, _ in codecs[1:]] not in ([], ["crc32c"]):
        return None
    return sharding.get("index_location", "end") == "start", len(codecs) == 2
