"""Voxels of a made-up study: two CT reconstructions, a PET, and the boxes drawn on the CT."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._lesion import add_lesion
from lesionzarr.samples._phantom import phantom, smooth

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.samples._nbia_plan import Raster, Subject, Tumour

LOWEST_HU, HIGHEST_HU = -1024, 3071

# Uptake as SUV of what has these densities: air, lung, fat, muscle and blood, bone.
_DENSITIES_HU: Final = (-1000.0, -860.0, -100.0, 40.0, 300.0)
_UPTAKES: Final = (0.0, 0.4, 0.35, 1.3, 1.0)
# Where less than this share of the tumour's long axis is cut, nobody draws a box.
_LEAST_CUT: Final = 0.4


def draw_body(subject: Subject, rng: np.random.Generator) -> NDArray[np.int16]:
    """Give the subject's chest without the tumour: int16 (z, y, x), HU, on the grid of the CT."""
    # The real files keep 12 bits above -1024, so that nothing is darker outside the reconstruction circle either.
    return np.maximum(phantom(subject.ct.shape, subject.ct.spacing_mm, rng), LOWEST_HU).astype(np.int16)


def reconstruct(subject: Subject, body: NDArray[np.int16]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Give the CT with its tumour as a lung kernel and as a soft kernel show it.

    Parameters
    ----------
    subject
        Whose CT it is.
    body
        int16 (z, y, x), HU, as `draw_body` gives it.

    Returns
    -------
    tuple of ndarray
        Sharp and soft, both int16 (z, y, x), HU.
    """
    voxels, tumour = body.copy(), subject.tumour
    centre = subject.ct.index(tumour.centre_mm)
    add_lesion(voxels, subject.ct.spacing_mm, centre, tumour.semi_axes_mm, tumour.angle, tumour.hu)
    plain = voxels.astype(np.float32)
    soft = smooth(plain)
    return _whole(plain + 0.7 * (plain - soft)), _whole(soft)


def _whole(voxels: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(np.clip(voxels, LOWEST_HU, HIGHEST_HU)).astype(np.int16)


def draw_boxes(subject: Subject, series: int, rng: np.random.Generator) -> dict[int, tuple[int, int, int, int]]:
    """Draw a box round the tumour on each slice that shows it, as one reader does for one series.

    Parameters
    ----------
    subject
        Whose tumour it is.
    series
        0 for the first reconstruction, 1 for the second, on which one slice fewer is marked.
    rng
        Source of the reader's inaccuracy: up to two pixels on each side.

    Returns
    -------
    dict of int to tuple
        (x0, y0, x1, y1) in pixels counted from 0, for slices counted from the topmost.
    """
    raster, tumour = subject.ct, subject.tumour
    z, y, x = raster.index(tumour.centre_mm)
    depth, long, short = tumour.semi_axes_mm
    cos, sin = math.cos(tumour.angle), math.sin(tumour.angle)
    half_x = math.hypot(long * cos, short * sin) / raster.pixel_mm
    half_y = math.hypot(long * sin, short * cos) / raster.pixel_mm
    boxes = {}
    for row in range(raster.count):
        cut = math.sqrt(max(0.0, 1 - ((row - z) * raster.interval_mm / depth) ** 2))
        left, top, right, bottom = rng.integers(0, 3, size=4).tolist()
        if cut >= _LEAST_CUT:
            boxes[row] = (
                max(0, math.floor(x - cut * half_x) - left),
                max(0, math.floor(y - cut * half_y) - top),
                min(raster.size - 1, math.ceil(x + cut * half_x) + right),
                min(raster.size - 1, math.ceil(y + cut * half_y) + bottom),
            )
    if series == 1:
        del boxes[max(boxes)]
    return boxes


def emit(subject: Subject, raster: Raster, body: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.float32]:
    """Give the activity in the subject's PET.

    Parameters
    ----------
    subject
        Whose PET it is.
    raster
        The grid of the PET.
    body
        int16 (z, y, x), HU, as `draw_body` gives it.
    rng
        Source of the noise.

    Returns
    -------
    ndarray of float32, (z, y, x)
        Bq/ml, on the grid of the PET. The tumour shines where the CT shows it.
    """
    first, last = subject.ct.index(raster.position(0)), subject.ct.index(raster.position(raster.count - 1))
    steps = [raster.pixel_mm / subject.ct.pixel_mm * np.arange(raster.size) + start for start in first[1:]]
    rows, columns = (np.rint(step).astype(int) for step in steps)
    # Beyond its ends the chest goes on as it ends; beside the CT's field of view there is air.
    levels = np.clip(np.rint(np.linspace(first[0], last[0], raster.count)).astype(int), 0, subject.ct.count - 1)
    densities = np.pad(body, ((0, 0), (1, 1), (1, 1)), constant_values=-1000)[
        np.ix_(levels, *(np.clip(axis, -1, subject.ct.size) + 1 for axis in (rows, columns)))
    ]
    uptake = np.interp(densities, _DENSITIES_HU, _UPTAKES)
    noise = 1 + 0.1 * rng.standard_normal(raster.shape)
    blurred = smooth(smooth((uptake * noise).astype(np.float32)))
    return np.clip(subject.suv_bqml * (blurred + _hot_spot(subject.tumour, raster)), 0, None).astype(np.float32)


def _hot_spot(tumour: Tumour, raster: Raster) -> NDArray[np.float64]:
    """Give SUV that falls smoothly to half at the tumour's edge."""
    middle = raster.index(tumour.centre_mm)
    z, y, x = np.ix_(
        *(
            (np.arange(count) - centre) * step
            for count, centre, step in zip(raster.shape, middle, raster.spacing_mm, strict=True)
        )
    )
    along = x * math.cos(tumour.angle) + y * math.sin(tumour.angle)
    across = y * math.cos(tumour.angle) - x * math.sin(tumour.angle)
    depth, long, short = tumour.semi_axes_mm
    radius_squared = (along / long) ** 2 + (across / short) ** 2 + (z / depth) ** 2
    spot: NDArray[np.float64] = tumour.suv * 0.5**radius_squared
    return spot
