"""Pictures of lesions: key slices with box and RECIST axes, contact sheets, crops as mosaics.

The equivalent of DeepLesion's Key_slices: the lesion's own window, the box, the long and the short axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lesionzarr.geometry import Box
from lesionzarr.readers.stack import StackReader
from lesionzarr.window import OWN

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Crop
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike

BOX_COLOUR = (255, 214, 10)
LONG_COLOUR = (255, 69, 58)
SHORT_COLOUR = (100, 210, 255)
PAPER = (20, 20, 22)
INK = (235, 235, 240)
FALLBACK = "soft-tissue"
"""Window of a lesion whose source gives none."""


def render_lesion(
    catalog: Catalog,
    lesion: Lesion,
    *,
    window: WindowLike | None = None,
    size: int | None = None,
    scale: int = 1,
    marks: bool = True,
) -> Image.Image:
    """Draw the key slice of a lesion.

    Parameters
    ----------
    catalog
        The store.
    lesion
        A lesion with a key slice.
    window
        Grey-level window; None for the lesion's own, or soft tissue where it has none.
    size
        Rows and columns round the lesion, in pixels of the slice; None for the whole slice.
    scale
        Pixels of the picture per pixel of the slice.
    marks
        Draw the box and the RECIST axes.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    GeometryError
        The lesion's key slice is not in the store.
    """
    if window is None:
        window = OWN if lesion.window else FALLBACK
    reader = StackReader(catalog, slices=1, window=window, size=None if size is None else (size, size))
    crop = reader.read(lesion)
    picture = enlarge(crop.image[0, 0], scale)
    if marks:
        draw_marks(picture, crop, scale)
    return picture


def enlarge(grey: NDArray[np.uint8], scale: int) -> Image.Image:
    """Turn a grey image into an RGB picture, each pixel `scale` pixels wide."""
    return Image.fromarray(np.kron(grey, np.ones((scale, scale), dtype=np.uint8))).convert("RGB")


def draw_marks(picture: Image.Image, crop: Crop, scale: int) -> None:
    """Draw box and RECIST axes of a crop into a picture of its key slice: the slice's own box, if it has one."""
    pen = ImageDraw.Draw(picture)
    width = max(1, scale // 2)
    box = _box_of_key_slice(crop) or crop.box
    if box:
        # ends are inclusive and lie on pixel centres
        corners = [(box.x0, box.y0), (box.x1, box.y1)]
        pen.rectangle([_at(x, y, scale) for x, y in corners], outline=BOX_COLOUR, width=width)
    if crop.recist:
        for (x0, y0, x1, y1), colour in zip(crop.recist.axes, (LONG_COLOUR, SHORT_COLOUR), strict=True):
            pen.line([_at(x0, y0, scale), _at(x1, y1, scale)], fill=colour, width=width)


def contact_sheet(
    pictures: Iterable[tuple[Image.Image, Sequence[str]]], *, columns: int = 4, tile: int = 256
) -> Image.Image:
    """Put pictures and their captions on one sheet.

    Parameters
    ----------
    pictures
        Pictures, each with the lines of its caption; of a line that is too long the middle is left out.
    columns
        Pictures in a row, at most.
    tile
        Width and height of each in pixels; a picture of another size is scaled to fit.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    items = list(pictures)
    columns = max(1, min(columns, len(items)))
    lines = max((len(caption) for _, caption in items), default=0)
    gap, line_height = 8, 15
    cell = tile + lines * line_height + gap
    width = columns * (tile + gap) + gap
    sheet = Image.new("RGB", (width, math.ceil(len(items) / columns) * cell + gap), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for i, (picture, caption) in enumerate(items):
        left, top = gap + i % columns * (tile + gap), gap + i // columns * cell
        fitted = picture.resize((tile, tile), Image.Resampling.BICUBIC) if picture.size != (tile, tile) else picture
        sheet.paste(fitted, (left, top))
        for n, line in enumerate(caption):
            pen.text((left, top + tile + n * line_height), _fit(line, tile, font), fill=INK, font=font)
    return sheet


def mosaic(image: NDArray[Any]) -> Image.Image:
    """Lay the slices of a windowed crop side by side, one row of slices per window.

    Parameters
    ----------
    image
        (window, z, y, x), uint8.

    Returns
    -------
    PIL.Image.Image
        Grey, (windows x rows, slices x columns) pixels.
    """
    windows, slices, rows, columns = image.shape
    return Image.fromarray(image.transpose(0, 2, 1, 3).reshape(windows * rows, slices * columns))


def caption(lesion: Lesion) -> list[str]:
    """Say in two lines what a lesion is."""
    size = (
        "" if lesion.long_mm is None or lesion.short_mm is None else f"{lesion.long_mm:.1f} x {lesion.short_mm:.1f} mm"
    )
    facts = [lesion.type or "type unknown", size, lesion.split or ""]
    return [lesion.lesion_id, ", ".join(fact for fact in facts if fact)]


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def _box_of_key_slice(crop: Crop) -> Box | None:
    """Give the box that was drawn on the key slice itself, in voxels of the image."""
    for row, x0, y0, x1, y1 in crop.lesion.extras.get("slice_boxes", ()):
        if row == crop.lesion.key_z:
            return Box(*crop.from_volume((row, y0, x0)), *crop.from_volume((row, y1, x1)))
    return None


def _fit(line: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Leave out the middle of a line until it is no wider than that; both ends of an id tell more than its middle."""
    fitted, kept = line, len(line)
    while font.getlength(fitted) > width and kept > 2:
        kept -= 1
        fitted = f"{line[: (kept + 1) // 2]}...{line[-(kept // 2) :]}"
    return fitted


def _at(x: float, y: float, scale: int) -> tuple[float, float]:
    return (x + 0.5) * scale, (y + 0.5) * scale
