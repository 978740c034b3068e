"""NIfTI-1 of a made-up recist-dataset, in any order of axes, written byte by byte."""

from __future__ import annotations

import gzip
import struct
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

CODES: Final = {"uint8": 2, "int16": 4, "int32": 8, "float32": 16, "float64": 64, "uint16": 512}
_LPS: Final = {"L": (0, 1), "R": (0, -1), "P": (1, 1), "A": (1, -1), "S": (2, 1), "I": (2, -1)}
_HEADER: Final = 352


def write_volume(
    path: Path,
    voxels: NDArray[Any],
    affine: NDArray[np.float64],
    *,
    order: str = "LAS",
    scale: tuple[float, float] = (1.0, 0.0),
    copies: int = 1,
) -> None:
    """Write a volume.

    Parameters
    ----------
    path
        ``.nii.gz``, or ``.nii`` to leave it unpacked.
    voxels
        (z, y, x), as they are to be stored.
    affine
        (3, 4): index (z, y, x, 1), with z to the head, y to the back and x to the left, to LPS (x, y, z) in mm.
    order
        Where the stored axes grow to, the fastest first; dcm2niix writes LAS.
    scale
        Slope and intercept that the header names.
    copies
        Number of times that the volume is there, along a fourth axis.
    """
    stored, matrix = _ordered(voxels, affine, order)
    head = bytearray(_HEADER)
    struct.pack_into("<i", head, 0, 348)
    sizes = (*stored.shape[::-1], copies)
    struct.pack_into("<8h", head, 40, 4 if copies > 1 else 3, *sizes, 1, 1, 1)
    struct.pack_into("<hh", head, 70, CODES[voxels.dtype.name], 8 * voxels.dtype.itemsize)
    struct.pack_into("<8f", head, 76, 1, *np.linalg.norm(matrix[:, :3], axis=0), 1, 0, 0, 0)
    struct.pack_into("<fff", head, 108, _HEADER, *scale)
    head[123] = 2
    head[148:156] = b"made up\0"
    struct.pack_into("<hh", head, 252, 0, 1)
    struct.pack_into("<12f", head, 280, *matrix.ravel())
    head[344:348] = b"n+1\0"
    data = bytes(head) + np.ascontiguousarray(stored).tobytes() * copies
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, 4, mtime=0) if path.suffix == ".gz" else data)


def _ordered(voxels: NDArray[Any], affine: NDArray[np.float64], order: str) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Give the voxels as (k, j, i), and the affine of (i, j, k) in RAS."""
    axes = [(2 - axis, sign) for axis, sign in (_LPS[letter] for letter in order)]
    origin, columns = affine[:, 3].copy(), []
    turned = voxels
    for axis, sign in axes:
        columns.append(affine[:, axis] * sign)
        if sign < 0:
            origin += affine[:, axis] * (voxels.shape[axis] - 1)
            turned = np.flip(turned, axis)
    matrix = np.column_stack([*columns, origin]) * [[-1.0], [-1.0], [1.0]]
    return turned.transpose([axis for axis, _ in reversed(axes)]), matrix
