"""Voxels of a region to the image that was asked for: interpolated, padded, windowed. Arrays in, arrays out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.readers._request import EDGE
from lesionzarr.window import apply_window

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers._plan import Axis, Plan
    from lesionzarr.readers._request import Request
    from lesionzarr.window import Window


def assemble(voxels: NDArray[Any], plan: Plan, request: Request, image: NDArray[Any]) -> None:
    """Make the image of a request.

    Parameters
    ----------
    voxels
        The plan's region, in HU, or in Bq/ml of PET.
    plan, request
        What was planned for what was asked.
    image
        (window, z, y, x), written whole: grey levels with windows, HU in one channel without.
    """
    hu = voxels if plan.plain else _sample(voxels, plan)
    if request.scale != 1:
        hu = hu * np.float32(request.scale)
    if request.windows:
        for channel, window in zip(image, request.windows, strict=True):
            apply_window(hu, window, image.dtype.name, out=channel[plan.filled])
    elif hu.dtype.kind == "f" and image.dtype.kind in "iu":
        image[0][plan.filled] = np.rint(hu)
    else:
        image[0][plan.filled] = hu
    pad(plan, request, image)


def pad(plan: Plan, request: Request, image: NDArray[Any], *, everything: bool = False) -> None:
    """Write what stands outside of the volume.

    Parameters
    ----------
    plan, request
        What was planned for what was asked.
    image
        (window, z, y, x).
    everything
        The volume gave nothing at all.
    """
    outside: list[Any] = [...] if everything else _parts_outside(plan, request)
    if outside:
        for channel, window in zip(image, request.windows or (None,), strict=True):
            level = _level(request, window, image.dtype.name)
            for part in outside:
                channel[part] = level


def _parts_outside(plan: Plan, request: Request) -> list[Any]:
    if request.padding == EDGE:
        return []
    kept = request.nearest_slice or request.repeat is not None
    by_axis = _outside(plan.z, kept=kept), _outside(plan.y), _outside(plan.x)
    return [(*[slice(None)] * axis, part) for axis, parts in enumerate(by_axis) for part in parts]


def _level(request: Request, window: Window | None, dtype: str) -> Any:
    padding = None if request.padding == EDGE else request.padding
    if window is None:
        return request.fill_value if padding is None else padding
    return 0 if padding is None else apply_window(np.asarray(padding), window, dtype)


def _outside(axis: Axis, *, kept: bool = False) -> list[Any]:
    """Give the parts of an axis that lie outside of the volume, but for those that show its nearest slice."""
    if axis.samples:
        return [] if kept or axis.samples.inside.all() else [~axis.samples.inside]
    before, after = slice(0, axis.lead), slice(axis.filled.stop, axis.size)
    return [part for part in (before, after) if part.start < part.stop]


def _sample(voxels: NDArray[Any], plan: Plan) -> NDArray[Any]:
    """Take the positions of the axes that are not copied, linearly between two rows."""
    hu = voxels
    axes = plan.z, plan.y, plan.x
    # the axis that loses most comes first, so that the others have less to do
    for number in sorted(range(3), key=lambda number: axes[number].size / voxels.shape[number]):
        samples = axes[number].samples
        if samples is None:
            continue
        below = hu.take(samples.below, axis=number)
        if samples.weight.any():
            share = samples.weight.reshape([-1 if other == number else 1 for other in range(3)])
            # a difference of int16 need not fit one, and between two equal voxels stands that value to the last bit
            mixed = hu.take(samples.above, axis=number).astype(np.float64)
            mixed -= below
            mixed *= share
            mixed += below
            below = mixed
        hu = below
    return hu
