"""Voxels of a region to the image that was asked for: interpolated, padded, windowed. Arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.readers._request import EDGE
from lesionzarr.window import apply_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers._plan import Plan
    from lesionzarr.readers._request import Request


def assemble(voxels: NDArray[Any], fill_value: int, plan: Plan, request: Request, dtype: str) -> NDArray[Any]:
    """Make the image of a request.

    Parameters
    ----------
    voxels
        The plan's region, in HU.
    fill_value
        The volume's own padding value in HU.
    plan, request
        What was planned for what was asked.
    dtype
        Of the image: ``"uint8"`` or ``"float32"`` with windows, ``"int16"`` without.

    Returns
    -------
    ndarray
        (window, z, y, x).
    """
    hu = _sample(voxels, plan)
    outside = _outside(plan, request)
    if not request.windows:
        values: NDArray[Any] = np.rint(hu).astype(dtype)
        values[outside] = fill_value if request.padding in {None, EDGE} else request.padding
        return values[np.newaxis]
    image = np.empty((len(request.windows), *hu.shape), dtype=dtype)
    for channel, window in zip(image, request.windows, strict=True):
        padding = window.low if request.padding in {None, EDGE} else request.padding
        channel[...] = apply_window(hu, window, dtype)
        channel[outside] = apply_window(np.asarray(padding), window, dtype)
    return image


def _sample(voxels: NDArray[Any], plan: Plan) -> NDArray[Any]:
    shape = (len(plan.z.below), len(plan.y.below), len(plan.x.below))
    if voxels.size == 0:
        return np.zeros(shape, dtype=voxels.dtype)
    plane = voxels[:, plan.y.below[:, None], plan.x.below]
    weight = plan.z.weight[:, None, None]
    if not weight.any():
        return plane[plan.z.below]
    return plane[plan.z.below] * (1 - weight) + plane[plan.z.above] * weight


def _outside(plan: Plan, request: Request) -> NDArray[np.bool_]:
    """Tell which voxels of the image get the padding value: those that are not in the volume, nor filled from it."""
    if request.padding == EDGE:
        return np.zeros(plan.valid.shape, dtype=bool)
    in_plane = plan.y.inside[:, None] & plan.x.inside
    if request.nearest_slice or request.repeat is not None:
        return np.broadcast_to(~in_plane, plan.valid.shape)
    return ~plan.valid
