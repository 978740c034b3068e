"""Writing NIfTI-1: what a store holds, for programs that read no Zarr."""

from __future__ import annotations

import gzip
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.formats.nifti.header import DTYPES, NIFTI1

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.geometry import Grid

OFFSET = 352
"""Byte at which the voxels begin: the header and four bytes that say that no extension follows."""
MM = 2
SCANNER = 1
"""Code of an affine that gives positions in the scanner."""
CODES = {np.dtype(name): code for code, name in DTYPES.items()}
DEFLATE_LEVEL = 6


def write_nifti(path: Path, voxels: NDArray[Any], grid: Grid) -> None:
    """Write an image; the same image gives the same bytes.

    Parameters
    ----------
    path
        ``.nii``, or ``.nii.gz`` to pack it.
    voxels
        (z, y, x), of 8 to 64 bits, not complex.
    grid
        Where they are. The stored axes are (x, y, z). Without an affine the file has the spacing alone (1 for one that
        is unknown), as ``pixdim``.

    Raises
    ------
    SettingError
        Another shape than the grid's, or a data type that NIfTI does not have.
    """
    code = CODES.get(voxels.dtype.newbyteorder("="))
    if code is None or voxels.shape != grid.shape:
        raise SettingError(f"{path.name}: {voxels.dtype.name} {voxels.shape} on a grid of {grid.shape} is no NIfTI")
    head = bytearray(OFFSET)
    struct.pack_into("<i", head, 0, NIFTI1.header_bytes)
    _put(head, "dim", 3, *reversed(voxels.shape), 1, 1, 1, 1)
    _put(head, "datatype", code)
    struct.pack_into("<h", head, 72, 8 * voxels.dtype.itemsize)
    _put(head, "pixdim", 1, *(1.0 if mm is None else mm for mm in reversed(grid.spacing_mm)), 0, 0, 0, 0)
    _put(head, "vox_offset", OFFSET)
    _put(head, "scl_slope", 1)
    _put(head, "xyzt_units", MM)
    if grid.affine is not None:
        lps = np.asarray(grid.affine)[:, [2, 1, 0, 3]]
        _put(head, "sform_code", SCANNER)
        _put(head, "srow", *(lps * [[-1.0], [-1.0], [1.0]] + 0.0).ravel().tolist())
    offset, mark, _ = NIFTI1.magic
    head[offset : offset + 4] = mark
    data = bytes(head) + np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<")).tobytes()
    path.write_bytes(gzip.compress(data, DEFLATE_LEVEL, mtime=0) if path.suffix == ".gz" else data)


def _put(head: bytearray, name: str, *values: float) -> None:
    form, offset = NIFTI1.fields[name]
    count = struct.calcsize(f"<{form}")
    whole = form[-1] not in "fd"
    struct.pack_into(f"<{form}", head, offset, *(int(value) if whole else value for value in values))
    if offset + count > len(head) or not all(map(math.isfinite, values)):
        raise SettingError(f"{name} of a NIfTI cannot be {values}")
