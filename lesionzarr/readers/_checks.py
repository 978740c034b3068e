"""Settings of readers, looked at before anything is read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Integral, Real

from lesionzarr.errors import SettingError
from lesionzarr.readers._request import EDGE


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
