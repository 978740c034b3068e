"""Pairs of the same lesion at two times (JimmyCai91/DLT, Deep Lesion Tracker, CVPR 2021; CC BY-SA 4.0).

As published: x and y 0-based, rounded to 0.1 pixels. A side of a pair is found by its key slice and RECIST box.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lesionzarr.annotations._load import load
from lesionzarr.errors import SourceError

if TYPE_CHECKING:
    from lesionzarr.source import SourcePath

SLICE = re.compile(r"(?P<series>\d{6}_\d{2}_\d{2})[/_](?P<slice>\d{3,})\.png")

ROUNDING = 0.051
"""Pixels by which a published coordinate may differ from the table's, for being rounded to 0.1."""


@dataclass(frozen=True)
class Side:
    """One lesion of a pair."""

    series_id: str
    key_slice: int
    """1-based, as in DL_info.csv."""
    x0: float
    y0: float
    """Corner of the RECIST box; 0-based pixels, rounded to 0.1."""

    def is_at(self, x0: float, y0: float) -> bool:
        """Tell whether a box with this corner is the one meant, given that series and slice are."""
        return abs(self.x0 - x0) <= ROUNDING and abs(self.y0 - y0) <= ROUNDING


@dataclass(frozen=True)
class Pair:
    """A lesion and the same lesion in another study."""

    pair_id: str
    source: Side
    target: Side


def read_pairs(path: SourcePath) -> list[Pair]:
    """Read a released JSON, such as ``valid.json``.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    list of Pair

    Raises
    ------
    SourceError
        The file is not what it should be.
    """
    try:
        return [Pair(key, _side(item, "source"), _side(item, "target")) for key, item in load(path).items()]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: not lesion pairs of Deep Lesion Tracker ({error!r})") from error


def _side(item: dict[str, Any], side: str) -> Side:
    name = item[f"{side} recist slice"]
    parts = SLICE.fullmatch(name)
    if parts is None:
        raise ValueError(f"{name!r} is no slice name such as 000004_02_01/013.png")
    x0, y0, _, _ = item[f"{side} recist box"]
    return Side(parts["series"], int(parts["slice"]), float(x0), float(y0))
