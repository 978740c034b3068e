"""Images as an xarray Dataset, with the lesion table beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from lesionzarr.lesion import COLUMNS

if TYPE_CHECKING:
    import dask.array as da
    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Point

COORDINATES = (
    *("volume_id", "patient_id", "type", "split", "long_mm", "short_mm"),
    *("key_z", "x0", "y0", "x1", "y1", "z0", "z1"),
)
"""Columns of the lesion table that go along the lesion axis."""


def to_dataset(
    image: da.Array, valid: da.Array, lesions: list[Lesion], windows: list[str], places: list[tuple[Point, Point]]
) -> xr.Dataset:
    """Put images, masks and table columns together.

    Parameters
    ----------
    image
        (lesion, window, z, y, x).
    valid
        (lesion, z, y, x).
    lesions
        One per image.
    windows
        Names of the channels.
    places
        One per image: position in the volume of its first voxel, and distance of its voxels there, (z, y, x).

    Returns
    -------
    xarray.Dataset
        Indexed by ``lesion`` (ids) and ``window`` (names).
    """
    table: dict[str, Any] = {name: ("lesion", _column(lesions, name)) for name in COORDINATES}
    table |= {
        name: (("lesion", "axis"), np.array([place[i] for place in places], dtype=np.float64))
        for i, name in enumerate(("origin", "step"))
    }
    return xr.Dataset(
        {"image": (("lesion", "window", "z", "y", "x"), image), "valid": (("lesion", "z", "y", "x"), valid)},
        coords={
            "lesion": [lesion.lesion_id for lesion in lesions],
            "window": windows,
            "axis": ["z", "y", "x"],
            **table,
        },
    )


def _column(lesions: list[Lesion], name: str) -> NDArray[Any]:
    # xarray has no integer that can be missing: numbers become float64 with NaN, as pandas.to_xarray makes them
    dtype = np.float64 if COLUMNS[name] in {"int", "float"} else object
    return np.array([getattr(lesion, name) for lesion in lesions], dtype=dtype)
