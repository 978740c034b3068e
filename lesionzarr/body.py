"""Where the body lies in a slice: the border clipping of 3DCE, which cuts away the air round the patient.

3DCE and MULAN clip every image to it, and move boxes along (Yan et al., 3D Context Enhanced Region-based Convolutional
Neural Network, MICCAI 2018; rsummers11/CADLab, ``lesion_detector_3DCE/rcnn/fio/load_ct_img.py``: ``get_mask``,
``get_range``, ``map_box_back``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from lesionzarr.errors import GeometryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.geometry import Box

THRESHOLD_HU = -768
"""What is brighter counts as body. Upstream compares stored values, which lie 32768 higher, with 32000."""

OPENING = 7
"""Pixels of the side of the square that the mask is opened with, to be rid of the table."""


@dataclass(frozen=True)
class BodyRegion:
    """Rows and columns of a slice that hold the body: whole numbers, half-open."""

    y0: int
    y1: int
    x0: int
    x1: int

    def clip(self, image: NDArray[Any]) -> NDArray[Any]:
        """Cut the region out of an image (..., y, x); a view of it, such as (window, z, y, x)."""
        return image[..., self.y0 : self.y1, self.x0 : self.x1]

    def to_clipped(self, box: Box) -> Box:
        """Turn a box in pixels of the slice into one in pixels of the clipped slice; it may reach out of that."""
        return box.shift(0, -self.y0, -self.x0)

    def from_clipped(self, box: Box) -> Box:
        """Turn a box in pixels of the clipped slice, such as a detection, into one in pixels of the slice."""
        return box.shift(0, self.y0, self.x0)


def find_body(hu: NDArray[Any], threshold_hu: float = THRESHOLD_HU, opening: int = OPENING) -> BodyRegion:
    """Find the rows and columns that the body fills.

    The pixels above the threshold are opened with a square, which takes away what is thinner than that; the region is
    what the rest of them spans. Without a rest it is the whole slice.

    Parameters
    ----------
    hu
        One slice (y, x) in HU; upstream takes the key slice, before it is resampled.
    threshold_hu
        What is brighter counts as body.
    opening
        Side of the square in pixels, an odd number.

    Returns
    -------
    BodyRegion

    Raises
    ------
    GeometryError
        An array that is no slice, or a square that has no middle.
    """
    if hu.ndim != 2 or 0 in hu.shape:
        raise GeometryError(f"an array of shape {hu.shape}: one slice (y, x) is needed")
    if opening < 1 or opening % 2 == 0:
        raise GeometryError(f"an opening of {opening} pixels: an odd number of at least 1 is needed")
    eroded = ~_spread(~(hu > threshold_hu), opening, outside=True)
    body = _spread(eroded, opening, outside=False)
    rows, columns = (np.flatnonzero(body.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return BodyRegion(0, hu.shape[0], 0, hu.shape[1])
    return BodyRegion(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def _spread(mask: NDArray[np.bool_], side: int, *, outside: bool) -> NDArray[np.bool_]:
    """Set every pixel that has a set one in the square round it."""
    padded = np.pad(mask, side // 2, constant_values=outside)
    along_y = np.logical_or.reduce(sliding_window_view(padded, side, axis=0), axis=-1)
    spread: NDArray[np.bool_] = np.logical_or.reduce(sliding_window_view(along_y, side, axis=1), axis=-1)
    return spread
