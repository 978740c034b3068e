"""Settings of readers, looked at before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

from lesionzarr.errors import SettingError
from lesionzarr.readers._request import EDGE, INTERPOLATIONS


def check_size(size: object, axes: str) -> None:
    """Raise SettingError unless there is one whole number of at least 1 for each axis."""
    whole = isinstance(size, Sequence) and all(isinstance(n, Integral) and int(n) >= 1 for n in size)
    if not whole or not isinstance(size, Sequence) or len(size) != len(axes):
        raise SettingError(f"size {size!r}: whole numbers of at least 1 are needed, ({', '.join(axes)})")


def check_whole(value: object, name: str, least: int) -> None:
    """Raise SettingError unless the value is a whole number of at least `least`."""
    if not isinstance(value, Integral) or int(value) < least:
        raise SettingError(f"{name} {value!r}: a whole number of at least {least} is needed")


def check_length(length_mm: object, name: str) -> None:
    """Raise SettingError unless the length is a positive number of mm."""
    if not isinstance(length_mm, Real) or not 0 < float(length_mm) < math.inf:
        raise SettingError(f"{name} {length_mm!r}: a positive number of mm is needed")


def check_size_mm(size_mm: object, axes: str) -> None:
    """Raise SettingError unless there is one positive number of mm for each axis."""
    if not isinstance(size_mm, Sequence) or len(size_mm) != len(axes):
        raise SettingError(f"size_mm {size_mm!r}: positive numbers of mm are needed, ({', '.join(axes)})")
    for length_mm in size_mm:
        check_length(length_mm, "size_mm")


def spacing_of(spacing_mm: object, axes: str) -> tuple[float | None, ...]:
    """Give the spacing of each axis in mm, None for that of the volume.

    Parameters
    ----------
    spacing_mm
        A number for all axes, one for each, or None; also None for one of them.
    axes
        Their names.

    Returns
    -------
    tuple of float or None
        One per axis.

    Raises
    ------
    SettingError
        Something that is none of these.
    """
    listed: Sequence[Any] = spacing_mm if isinstance(spacing_mm, Sequence) else [spacing_mm] * len(axes)
    if isinstance(spacing_mm, str) or len(listed) != len(axes):
        raise SettingError(f"spacing_mm {spacing_mm!r}: a number of mm, or one for each of ({', '.join(axes)})")
    for spacing in listed:
        if spacing is not None:
            check_length(spacing, "spacing_mm")
    return tuple(None if spacing is None else float(spacing) for spacing in listed)


def check_interpolation(interpolation: object) -> None:
    """Raise SettingError unless it is a name of one."""
    if interpolation not in INTERPOLATIONS:
        raise SettingError(f"interpolation {interpolation!r}: 'linear' or 'nearest' is needed")


def check_padding(padding: object, *, windowed: bool) -> None:
    """Raise SettingError unless the padding is None, ``"edge"`` or a value that the image can hold."""
    if padding is None or padding == EDGE:
        return
    if not isinstance(padding, Real) or not math.isfinite(padding):
        raise SettingError(f"padding {padding!r}: a value in HU, 'edge' or None is needed")
    if not windowed and not -32768 <= float(padding) <= 32767:
        raise SettingError(f"padding {padding!r}: without a window images are int16, -32768 to 32767")


def is_pair(window: object) -> bool:
    """Tell whether a window is (low, high), and not a list of windows."""
    return isinstance(window, Sequence) and all(isinstance(end, Real) for end in window)
