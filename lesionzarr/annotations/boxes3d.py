"""Fully annotated 3D boxes of 1,000 DeepLesion sub-volumes (viggin/DeepLesion_manual_test_set).

As published: x and y 0-based, z the 1-based slice number of the whole series; ends inclusive. Given here 0-based inside
the sub-volume.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from lesionzarr.annotations._load import load
from lesionzarr.errors import GeometryError, SourceError
from lesionzarr.geometry import Box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.source import SourcePath

SUB_VOLUME = re.compile(r"(?P<series>\d{6}_\d{2}_\d{2})_(?P<first>\d{3,})-(?P<last>\d{3,})")


def read_boxes(path: SourcePath) -> dict[str, tuple[Box, ...]]:
    """Read the boxes of every sub-volume.

    Parameters
    ----------
    path
        The released pickle, or the same as JSON: {sub-volume: [[x1, y1, z1, x2, y2, z2], ...]}, or that once per split.

    Returns
    -------
    dict of str to tuple of Box
        By sub-volume name, such as ``000046_03_02_086-104``; row 0 of a box's z is the sub-volume's first slice.

    Raises
    ------
    SourceError
        The file is not what it should be.
    """
    content = load(path)
    try:
        if all(isinstance(part, dict) for part in content.values()):
            content = {name: boxes for part in content.values() for name, boxes in part.items()}
        return {str(name): _boxes(str(name), boxes) for name, boxes in content.items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: not the manual 3D boxes of DeepLesion ({error})") from error


def match(boxes: Sequence[Box], marks: Sequence[Box]) -> list[int | None]:
    """Find the 3D box of each mark.

    A box belongs to a mark when it covers the mark's slice and their rectangles overlap; pairs are taken in the order
    of falling overlap, each box and each mark once.

    Parameters
    ----------
    boxes
        3D boxes of one sub-volume.
    marks
        Boxes of single-slice marks in the same coordinates.

    Returns
    -------
    list of int or None
        For each mark the number of its box.
    """
    pairs = sorted(
        (-box.overlap_in_plane(mark), i, j)
        for i, mark in enumerate(marks)
        for j, box in enumerate(boxes)
        if box.z0 <= mark.z0 <= box.z1 and box.overlap_in_plane(mark) > 0
    )
    found: dict[int, int] = {}
    for _, i, j in pairs:
        if i not in found and j not in found.values():
            found[i] = j
    return [found.get(i) for i in range(len(marks))]


def _boxes(name: str, boxes: Sequence[Sequence[float]]) -> tuple[Box, ...]:
    parts = SUB_VOLUME.fullmatch(name)
    if parts is None:
        raise GeometryError(f"{name!r} is no sub-volume name such as 000046_03_02_086-104")
    first = int(parts["first"])
    return tuple(
        Box(float(z0) - first, float(y0), float(x0), float(z1) - first, float(y1), float(x1))
        for x0, y0, z0, x1, y1, z1 in boxes
    )
