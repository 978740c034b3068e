"""Grey-level windows: a range in HU that is mapped to the whole range of a picture.

``uint8 = floor(clip((HU - low) / (high - low), 0, 1) * 255)``, the truncating convention of the DeepLesion tools (FAQ 3
of the DeepLesion release) and of the MedSAM2 arrays made from it; ``float32`` is the same ramp in 0..1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError, not_found

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Window:
    """A grey-level range in HU."""

    low: float
    """HU that becomes black."""
    high: float
    """HU that becomes white."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise SettingError(f"a window from {self.low} to {self.high} HU: the low end must be below the high end")

    @classmethod
    def from_level(cls, level: float, width: float) -> Window:
        """Make a window from its level (centre) and width in HU, as radiology and DICOM state it."""
        return cls(level - width / 2, level + width / 2)


PRESETS: dict[str, Window] = {
    # 3DCE, MULAN and LesaNet feed their networks with this one
    "full": Window(-1024, 3071),
    # the most frequent DICOM_windows of DeepLesion
    "soft-tissue": Window(-175, 275),
    # data page of Lung-PET-CT-Dx
    "lung": Window.from_level(-700, 1400),
    "mediastinum": Window.from_level(40, 350),
    # windows_mapping.json of recist-dataset
    "abdomen": Window.from_level(40, 350),
    "bone": Window.from_level(400, 1000),
    "brain": Window.from_level(50, 100),
}
"""Windows by name; each is stated where its source states it."""

GREY_DTYPES = ("uint8", "float16", "float32")
"""What a windowed image may be made of."""

SLAB_VOXELS = 128 * 1024
"""Voxels that are windowed at a time."""

OWN = "dicom"
"""Name of the window that the source gives for each lesion."""

WindowLike = str | tuple[float, float] | Window


def resolve_window(window: WindowLike, own: Window | None = None) -> Window:
    """Turn a name or a pair into a window.

    Parameters
    ----------
    window
        A preset name, ``"dicom"`` for the lesion's own window, (low, high) in HU, or a Window.
    own
        The lesion's own window, where its source has one.

    Returns
    -------
    Window

    Raises
    ------
    NotFoundError
        No preset of that name.
    SettingError
        ``"dicom"`` for a lesion without a window of its own, or a pair that is no range.
    """
    if isinstance(window, Window):
        return window
    if isinstance(window, str):
        if window == OWN:
            if own is None:
                raise SettingError("window 'dicom': the lesion's source gives no window; name a preset or (low, high)")
            return own
        if window not in PRESETS:
            raise not_found("window", window, [*PRESETS, OWN])
        return PRESETS[window]
    try:
        low, high = window
        return Window(float(low), float(high))
    except (TypeError, ValueError) as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"window {window!r}: a preset name, 'dicom' or (low, high) in HU is needed") from error


def apply_window(
    hu: NDArray[Any], window: Window, dtype: str = "uint8", out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Map HU to grey levels.

    Parameters
    ----------
    hu
        Array of any shape, integer or floating, in HU.
    window
        The range that fills the output.
    dtype
        ``"uint8"`` (0..255, truncated), ``"float32"`` or ``"float16"`` (0..1).
    out
        Array of the shape of `hu` and of that dtype to write to.

    Returns
    -------
    ndarray
        Same shape as `hu`; `out`, if that was given.

    Raises
    ------
    SettingError
        Another dtype.
    """
    if dtype not in GREY_DTYPES:
        raise SettingError(f"a windowed image of dtype {dtype!r}: one of {', '.join(GREY_DTYPES)} is needed")
    if out is None:
        out = np.empty(hu.shape, dtype=dtype)
    if hu.dtype != np.int16:
        out[...] = _define(hu, window, dtype)
    elif hu.ndim and (ramp := _ramp(window, dtype)) is not None:
        ramp.apply(hu, out)
    else:
        np.take(_table(window, dtype), hu.view(np.uint16), out=out, mode="wrap")
    return out


def _define(hu: NDArray[Any], window: Window, dtype: str) -> NDArray[Any]:
    grey = hu.astype(np.float64)
    grey -= window.low
    grey /= window.high - window.low
    np.clip(grey, 0.0, 1.0, out=grey)
    if dtype == "uint8":
        grey *= 255.0
    return grey.astype(dtype)


@dataclass(frozen=True)
class _Ramp:
    """A window for int16: clip and shift as int16, scale as float32."""

    low: np.int16
    high: np.int16
    scale: np.float32

    def apply(self, hu: NDArray[np.int16], out: NDArray[Any]) -> None:
        # so many at a time that what is made between stays in the cache of a core
        rows = max(1, SLAB_VOXELS * len(hu) // max(hu.size, 1))
        for first in range(0, len(hu), rows):
            self._apply(hu[first : first + rows], out[first : first + rows])

    def _apply(self, hu: NDArray[np.int16], out: NDArray[Any]) -> None:
        clipped = np.clip(hu, self.low, self.high)
        # the distance from the low end fits 16 bits without a sign
        clipped -= self.low
        # two conversions, since one that is fused with the product goes through small buffers
        grey = clipped.view(np.uint16).astype(np.float32)
        grey *= self.scale
        out[...] = grey


@lru_cache(maxsize=64)
def _table(window: Window, dtype: str) -> NDArray[Any]:
    """Give the grey level of every int16, by its bits as uint16."""
    return _define(np.arange(65536, dtype=np.uint16).view(np.int16), window, dtype)


@lru_cache(maxsize=64)
def _ramp(window: Window, dtype: str) -> _Ramp | None:
    """Give the ramp of a window, where it makes the same level of every int16 as the definition; else None."""
    low, high = math.ceil(window.low), math.floor(window.high)
    if low != window.low or high != window.high or not -32768 <= low < high <= 32767:
        return None
    ramp = _Ramp(np.int16(low), np.int16(high), np.float32((255 if dtype == "uint8" else 1) / (high - low)))
    every = np.arange(65536, dtype=np.uint16).view(np.int16)
    levels = np.empty(every.shape, dtype=dtype)
    ramp.apply(every, levels)
    return ramp if np.array_equal(levels, _table(window, dtype)) else None
