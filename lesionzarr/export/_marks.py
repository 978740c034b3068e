"""What is drawn on the slices of a lesion: the outline of its mask or its box, both axes, and their lengths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesionzarr.geometry import Box

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.readers.batch import Crop

BOX_COLOUR = (255, 214, 10)
OUTLINE_COLOUR = (48, 209, 88)
LONG_COLOUR = (255, 69, 58)
SHORT_COLOUR = (100, 210, 255)
PLATE = (20, 20, 22)
PLATE_SHARE = 0.8
"""How much of the picture the plate under the lengths hides."""
GAP = 6
"""Pixels between a lesion and the lengths beside it."""
WIDEST = 2
"""Pixels of a line, at most."""
FONT_SIZES = (11, 22)


def draw_marks(
    picture: Image.Image,
    crop: Crop,
    *,
    index: int | None = None,
    mask: NDArray[np.bool_] | None = None,
    lengths: bool = False,
) -> None:
    """Draw the marks of a lesion into a picture of a slice.

    Parameters
    ----------
    picture
        RGB, of the rows and columns of `crop`, enlarged.
    crop
        The lesion. Its axes are drawn on the key slice, and where there is no `mask` its box: that of the slice itself,
        if it has one.
    index
        Slice of the crop that the picture shows; None for the key slice.
    mask
        (y, x), the pixels of the crop that belong to the lesion: their outline is drawn inside of them.
    lengths
        Write the lengths of the axes beside the lesion, as far as they are known.
    """
    scale = picture.width / crop.image.shape[3], picture.height / crop.image.shape[2]
    width = min(max(1, int(min(scale)) // 2), WIDEST)
    pen = ImageDraw.Draw(picture)
    on_key = index is None or index == crop.key_index
    box = _box_on(crop, None if on_key else index)
    if mask is not None:
        picture.paste(OUTLINE_COLOUR, mask=Image.fromarray(_outline(mask, picture.size, width)))
    elif box:
        (left, top), (right, bottom) = _corners(box, scale)
        # the ends of a rectangle are pixels that it covers
        pen.rectangle([left, top, max(left, right - 1), max(top, bottom - 1)], outline=BOX_COLOUR, width=width)
    if crop.recist and on_key:
        for (x0, y0, x1, y1), colour in zip(crop.recist.axes, (LONG_COLOUR, SHORT_COLOUR), strict=True):
            pen.line([_at(x0, y0, scale), _at(x1, y1, scale)], fill=colour, width=width)
    if lengths:
        _write_lengths(picture, crop, box, scale)


def _outline(mask: NDArray[np.bool_], size: tuple[int, int], width: int) -> NDArray[np.bool_]:
    """Give the outermost pixels of a mask that is enlarged to so many columns and rows."""
    large = np.asarray(Image.fromarray(mask).resize(size, Image.Resampling.NEAREST))
    inner = np.pad(large, 1)
    for _ in range(width):
        inner[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    edge: NDArray[np.bool_] = large & ~inner[1:-1, 1:-1]
    return edge


def _write_lengths(picture: Image.Image, crop: Crop, box: Box | None, scale: tuple[float, float]) -> None:
    """Write the lengths beside the lesion, or below or above it where they do not fit there."""
    known = (("long", crop.lesion.long_mm, LONG_COLOUR), ("short", crop.lesion.short_mm, SHORT_COLOUR))
    lines = [(f"{name} {length:.1f} mm", colour) for name, length, colour in known if length is not None]
    places = [_at(x, y, scale) for axis in (crop.recist.axes if crop.recist else ()) for x, y in (axis[:2], axis[2:])]
    if box:
        places += _corners(box, scale)
    if not lines or not places:
        return
    font = ImageFont.load_default(size=min(max(min(picture.size) // 28, FONT_SIZES[0]), FONT_SIZES[1]))
    bounds = [font.getbbox(text) for text, _ in lines]
    line_height = int(max(bottom for _, _, _, bottom in bounds)) + 2
    width, height = int(max(right for _, _, right, _ in bounds)) + GAP, len(lines) * line_height + GAP // 2
    left, top = _free_place(picture.size, (width, height), places)
    place = (left, top, left + width, top + height)
    under = picture.crop(place)
    picture.paste(Image.blend(under, Image.new("RGB", under.size, PLATE), PLATE_SHARE), (left, top))
    pen = ImageDraw.Draw(picture)
    for number, (text, colour) in enumerate(lines):
        pen.text((left + GAP // 2, top + number * line_height), text, fill=colour, font=font)


def _free_place(size: tuple[int, int], text: tuple[int, int], places: list[tuple[float, float]]) -> tuple[int, int]:
    """Find where a text of that size covers none of the places: to the right, left, below, above, else the corner."""
    low, high = ([int(end(axis)) for axis in zip(*places, strict=True)] for end in (min, max))
    beside = [min(max((low[n] + high[n] - text[n]) // 2, 0), max(size[n] - text[n], 0)) for n in (0, 1)]
    candidates = (
        (high[0] + GAP, beside[1]),
        (low[0] - GAP - text[0], beside[1]),
        (beside[0], high[1] + GAP),
        (beside[0], low[1] - GAP - text[1]),
    )
    fitting = (
        (left, top)
        for left, top in candidates
        if left >= 0 and top >= 0 and left + text[0] <= size[0] and top + text[1] <= size[1]
    )
    return next(fitting, (0, 0))


def _box_on(crop: Crop, index: int | None) -> Box | None:
    """Give the box that was drawn on a slice itself, else the lesion's where it reaches that slice; in voxels."""
    here = crop.lesion.key_z if index is None else round(crop.to_volume((index, 0, 0))[0])
    for row, x0, y0, x1, y1 in crop.lesion.extras.get("slice_boxes", ()):
        if row == here:
            return Box(*crop.from_volume((row, y0, x0)), *crop.from_volume((row, y1, x1)))
    box = crop.box
    return box if index is None or (box and box.z0 - 0.5 <= index <= box.z1 + 0.5) else None


def _corners(box: Box, scale: tuple[float, float]) -> list[tuple[float, float]]:
    """Give the first and the last corner of a box: its ends are centres of pixels that are inside of it."""
    return [_at(box.x0 - 0.5, box.y0 - 0.5, scale), _at(box.x1 + 0.5, box.y1 + 0.5, scale)]


def _at(x: float, y: float, scale: tuple[float, float]) -> tuple[float, float]:
    return (x + 0.5) * scale[0], (y + 0.5) * scale[1]
