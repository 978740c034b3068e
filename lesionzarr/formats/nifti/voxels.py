"""Voxels of NIfTI, read some slices at a time: memory holds the array that is given back and `SLAB_BYTES`.

CT has to be whole HU, whatever the data type: values within 1e-3 of a whole number are rounded to it, and an image with
any other value is refused. A file says nowhere what its values are; an image that was rescaled to 0..1 would otherwise
become a volume of zeros.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SourceError
from lesionzarr.formats.nifti.header import open_nifti
from lesionzarr.formats.nifti.place import find_placing

if TYPE_CHECKING:
    from typing import BinaryIO

    from numpy.typing import NDArray

    from lesionzarr.formats.nifti.header import NiftiHeader
    from lesionzarr.formats.nifti.place import Placing
    from lesionzarr.geometry import Grid
    from lesionzarr.series import SourceFile

SLAB_BYTES = 4 * 1024 * 1024
WHOLE = 1e-3
"""How far a value may be from a whole number that it is rounded to."""
EXACT_BITS = 32
"""Integers of so many bits, scaled by whole numbers of 16, stay exact in int64."""


def read_nifti(file: SourceFile, like: Grid | None = None) -> NDArray[np.int16]:
    """Read a CT.

    Parameters
    ----------
    file
        As `lesionzarr.formats.archive.iter_files` lists it, in a folder or a zip; packed with gzip or not.
    like
        Grid whose axes the array is to follow; None for LPS.

    Returns
    -------
    ndarray of int16
        (z, y, x), HU, on the grid that `lesionzarr.formats.nifti.nifti_grid` gives; the file's scale is applied.

    Raises
    ------
    SourceError
        As `lesionzarr.formats.nifti.read_nifti_header`; also a file that is cut off or damaged, NaN, values that are
        not whole, and such that do not fit into int16.
    """
    voxels: NDArray[np.int16] = _read(file, like, np.dtype(np.int16), "HU")
    return voxels


def read_nifti_mask(file: SourceFile, like: Grid | None = None) -> NDArray[Any]:
    """Read a mask.

    Parameters
    ----------
    file, like
        As of `read_nifti`.

    Returns
    -------
    ndarray of uint8 or uint16
        (z, y, x): 0 for the background; uint8 where that holds every value.

    Raises
    ------
    SourceError
        As `read_nifti`, for values that do not fit into uint16.
    """
    mask = _read(file, like, np.dtype(np.uint16), "labels")
    return mask.astype(np.uint8) if mask.max() <= np.iinfo(np.uint8).max else mask


def _read(file: SourceFile, like: Grid | None, dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    with open_nifti(file) as (stream, header):
        placing = find_placing(header, like)
        voxels = np.empty([header.shape[axis] for axis in placing.order], dtype=dtype)
        stored = _as_stored(voxels, placing)
        stream.seek(header.offset)
        _, rows, columns = stored.shape
        count = max(1, SLAB_BYTES // (rows * columns * 8))
        for first in range(0, len(stored), count):
            slab = stored[first : first + count]
            slab[...] = _convert(_take(stream, header, slab.shape, file), header, dtype, what, file)
        # to the end, since a gzip is checked there
        stream.read(SLAB_BYTES)
    return voxels


def _as_stored(voxels: NDArray[Any], placing: Placing) -> NDArray[Any]:
    """View an array (z, y, x) as (k, j, i) of the file."""
    turned = voxels[tuple(slice(None, None, -1 if flip else 1) for flip in placing.flips)]
    return turned.transpose([placing.order.index(axis) for axis in (2, 1, 0)])


def _take(stream: BinaryIO, header: NiftiHeader, shape: tuple[int, ...], file: SourceFile) -> NDArray[Any]:
    size = math.prod(shape) * header.dtype.itemsize
    data = stream.read(size)
    if len(data) < size:
        raise SourceError(f"{file.name}: truncated: its voxels end early; fetch the file again", file.name)
    return np.frombuffer(data, dtype=header.dtype).reshape(shape)


def _convert(
    values: NDArray[Any], header: NiftiHeader, dtype: np.dtype[Any], what: str, file: SourceFile
) -> NDArray[Any]:
    slope, inter = header.slope, header.inter
    whole = values.dtype.kind in "iu"
    if (slope, inter) != (1.0, 0.0):
        exact = whole and values.dtype.itemsize * 8 <= EXACT_BITS and slope.is_integer() and inter.is_integer()
        if exact and max(abs(slope), abs(inter)) < 2**16:
            values = values.astype(np.int64) * int(slope) + int(inter)
        else:
            whole, values = False, values * np.float64(slope) + inter
    if not whole:
        values = _round(values, what, file)
    low, high, limits = values.min(), values.max(), np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        text = f"{file.name}: {what} from {low:g} to {high:g} do not fit into {dtype.name}"
        raise SourceError(f"{text}; is its scale right?", file.name)
    return values


def _round(values: NDArray[Any], what: str, file: SourceFile) -> NDArray[Any]:
    if not np.isfinite(values).all():
        raise SourceError(f"{file.name}: NaN or infinite values; fill them and save it as int16", file.name)
    rounded: NDArray[Any] = np.rint(values)
    apart = float(np.abs(values - rounded).max())
    if apart > WHOLE:
        text = f"{file.name}: values up to {apart:.3g} from a whole number, so no {what}"
        raise SourceError(f"{text}; save it as int16", file.name)
    return rounded
