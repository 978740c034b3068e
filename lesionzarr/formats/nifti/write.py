"""Writing NIfTI-1: what a store holds, for programs that read no Zarr."""

from __future__ import annotations

import gzip
import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.formats.nifti.header import DTYPES, NIFTI1
from lesionzarr.geometry import TOWARDS_LPS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.geometry import Grid

OFFSET = 352
"""Byte at which the voxels begin: the header and four bytes that say that no extension follows."""
MM = 2
SCANNER, ALIGNED = 1, 2
"""Codes of an affine: of positions in the scanner; of directions that are right and an origin that is not known."""
LPS_AXIS = {"right": 0, "left": 0, "anterior": 1, "posterior": 1, "inferior": 2, "superior": 2}
"""Axis of LPS by the first of the words of RFC-4."""
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
        Where they are. The stored axes are (x, y, z).

    Raises
    ------
    SettingError
        Another shape than the grid's, or a data type that NIfTI does not have.
    """
    if voxels.shape != grid.shape:
        raise SettingError(f"{path.name}: voxels of {voxels.shape} on a grid of {grid.shape} are no NIfTI")
    data = nifti_head(voxels.dtype, grid)
    data += np.ascontiguousarray(voxels, dtype=voxels.dtype.newbyteorder("<")).tobytes()
    path.write_bytes(gzip.compress(data, DEFLATE_LEVEL, mtime=0) if path.suffix == ".gz" else data)


def nifti_head(dtype: np.dtype[Any], grid: Grid) -> bytes:
    """Give what stands before the voxels of an image.

    Parameters
    ----------
    dtype
        Of the voxels: 8 to 64 bits, not complex.
    grid
        Where they are. Without an affine the file has that of the orientation, with its origin at the first voxel, as
        DeepLesion's ``DL_save_nifti.py`` has it; without an orientation the spacing alone, as ``pixdim``. A spacing
        that is unknown is 1.

    Returns
    -------
    bytes

    Raises
    ------
    SettingError
        A data type that NIfTI does not have.
    """
    code = CODES.get(dtype.newbyteorder("="))
    if code is None:
        raise SettingError(f"an image of {dtype.name} is no NIfTI")
    head = bytearray(OFFSET)
    struct.pack_into("<i", head, 0, NIFTI1.header_bytes)
    _put(head, "dim", 3, *reversed(grid.shape), 1, 1, 1, 1)
    _put(head, "datatype", code)
    struct.pack_into("<h", head, 72, 8 * dtype.itemsize)
    _put(head, "pixdim", 1, *(1.0 if mm is None else mm for mm in reversed(grid.spacing_mm)), 0, 0, 0, 0)
    _put(head, "vox_offset", OFFSET)
    _put(head, "scl_slope", 1)
    _put(head, "xyzt_units", MM)
    affine = _directions(grid) if grid.affine is None else np.asarray(grid.affine)
    if affine is not None:
        lps = affine[:, [2, 1, 0, 3]]
        _put(head, "sform_code", ALIGNED if grid.affine is None else SCANNER)
        _put(head, "srow", *(lps * [[-1.0], [-1.0], [1.0]] + 0.0).ravel().tolist())
    offset, mark, _ = NIFTI1.magic
    head[offset : offset + 4] = mark
    return bytes(head)


def _directions(grid: Grid) -> NDArray[np.float64] | None:
    """Give the affine of a grid of which the orientation is all that is known: index (z, y, x, 1) to LPS."""
    if grid.orientation is None:
        return None
    affine = np.zeros((3, 4))
    for column, (word, mm) in enumerate(zip(grid.orientation, grid.spacing_mm, strict=True)):
        affine[LPS_AXIS[word.split("-")[0]], column] = TOWARDS_LPS[word] * (1.0 if mm is None else mm)
    return affine


def _put(head: bytearray, name: str, *values: float) -> None:
    form, offset = NIFTI1.fields[name]
    count = struct.calcsize(f"<{form}")
    whole = form[-1] not in "fd"
    struct.pack_into(f"<{form}", head, offset, *(int(value) if whole else value for value in values))
    if offset + count > len(head) or not all(map(math.isfinite, values)):
        raise SettingError(f"{name} of a NIfTI cannot be {values}")
