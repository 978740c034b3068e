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

COORDINATES = ("volume_id", "patient_id", "type", "split", "long_mm", "short_mm", "key_z")
"""Columns of the lesion table that go along the lesion axis."""


def to_dataset(image: da.Array, valid: da.Array, lesions: list[Lesion], windows: list[str]) -> xr.Dataset:
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

    Returns
    -------
    xarray.Dataset
        Indexed by ``lesion`` (ids) and ``window`` (names).
    """
    table = {name: ("lesion", _column(lesions, name)) for name in COORDINATES}
    return xr.Dataset(
        {"image": (("lesion", "window", "z", "y", "x"), image), "valid": (("lesion", "z", "y", "x"), valid)},
        coords={"lesion": [lesion.lesion_id for lesion in lesions], "window": windows, **table},
    )


def _column(lesions: list[Lesion], name: str) -> NDArray[Any]:
    # xarray has no integer that can be missing: numbers become float64 with NaN, as pandas.to_xarray makes them
    dtype = np.float64 if COLUMNS[name] in {"int", "float"} else object
    return np.array([getattr(lesion, name) for lesion in lesions], dtype=dtype)
