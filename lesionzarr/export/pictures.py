"""Pictures of lesions: key slices with box or outline and RECIST axes, contact sheets, crops as mosaics.

The equivalent of DeepLesion's Key_slices, and of the target ROIs of recist-dataset (``extract_target_rois.py``): the
lesion's own window, the box or the outline of the mask, the long and the short axis with their lengths.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from lesionzarr.export._marks import draw_marks
from lesionzarr.geometry import Region
from lesionzarr.readers._zarr import read_region
from lesionzarr.readers.stack import StackReader
from lesionzarr.store.layout import MASK, MASK_ARRAY
from lesionzarr.window import OWN, apply_window, resolve_window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.lesion import Lesion
    from lesionzarr.readers.batch import Crop
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import Window, WindowLike

PAPER = (20, 20, 22)
INK = (235, 235, 240)
FALLBACK = "soft-tissue"
"""Window of a lesion whose source gives none."""
CLOSE_PIXELS, CLOSE_MM = 256, 60.0
"""Width of a close-up in pixels of the picture, and the least that it shows."""


def render_lesion(
    catalog: Catalog,
    lesion: Lesion,
    *,
    window: WindowLike | None = None,
    size: int | None = None,
    scale: int = 1,
    marks: bool = True,
    lengths: bool = True,
) -> Image.Image:
    """Draw the key slice of a lesion.

    Parameters
    ----------
    catalog
        The store.
    lesion
        A lesion with a key slice. To draw what its mask measures, pass what `lesionzarr.features.store.measure_lesion`
        makes of it.
    window
        Grey-level window; None for the lesion's own, or soft tissue where it has none.
    size
        Rows and columns round the lesion, in pixels of the slice; None for the whole slice.
    scale
        Pixels of the picture per pixel of the slice, along the axis on which pixels are closer together; along the
        other there are more, so that shapes are right.
    marks
        Draw the RECIST axes, and the outline of the lesion's mask, or its box where it has none.
    lengths
        With the marks, write the lengths of the axes beside the lesion.

    Returns
    -------
    PIL.Image.Image
        RGB.

    Raises
    ------
    GeometryError
        The lesion's key slice is not in the store.
    IntegrityError
        The volume or its mask is damaged.
    """
    if window is None:
        window = OWN if lesion.window else FALLBACK
    reader = StackReader(catalog, slices=1, window=window, size=None if size is None else (size, size))
    crop = reader.read(lesion)
    _, y_mm, x_mm = crop.spacing_mm
    picture = enlarge(crop.image[0, 0], scale, y_mm / x_mm)
    if marks:
        draw_marks(picture, crop, mask=_mask_of_key_slice(catalog, crop), lengths=lengths)
    return picture


def render_close(catalog: Catalog, lesion: Lesion, *, window: WindowLike | None = None) -> Image.Image:
    """Draw a lesion and what is round it, for a contact sheet; parameters and errors as of `render_lesion`.

    It shows 60 mm at least, and all of the lesion.
    """
    spacing = catalog.grid(lesion.volume_id).spacing_mm[1:]
    box = lesion.box
    extent = 0.0 if box is None else 1.25 * max(box.x1 - box.x0, box.y1 - box.y0)
    least = max(CLOSE_MM / min(spacing), extent)
    scale = next((scale for scale in (8, 4, 2) if CLOSE_PIXELS / scale >= least), 1)
    size = max(CLOSE_PIXELS // scale, math.ceil(extent))
    return render_lesion(catalog, lesion, window=window, size=size, scale=scale, lengths=False)


def render_slice(
    crop: Crop, index: int | None = None, *, channel: int = 0, width: int = CLOSE_PIXELS, marks: bool = True
) -> Image.Image:
    """Draw a slice of a crop that was read.

    Parameters
    ----------
    crop
        With grey levels of any type; densities in HU, of a crop without a window, are drawn in the lesion's own window
        or in soft tissue.
    index
        Slice of the crop; None for the key slice, or the middle one where the crop does not hold it.
    channel
        Number of the window.
    width
        Least columns of the picture; a slice is enlarged by a whole number.
    marks
        Draw the axes on the key slice, and the outline of the lesion's mask, where the crop has it, or its box.

    Returns
    -------
    PIL.Image.Image
        RGB, pixels in their shape.
    """
    index = middle_of(crop) if index is None else index
    grey = _grey_levels(crop, crop.image[channel, index])
    _, y_mm, x_mm = crop.spacing_mm
    picture = enlarge(grey, math.ceil(width / grey.shape[1]), y_mm / x_mm)
    if marks:
        draw_marks(picture, crop, index=index, mask=_mask_on(crop, index))
    return picture


def middle_of(crop: Crop) -> int:
    """Give the key slice of a crop, or the middle one where it does not hold that."""
    return crop.image.shape[1] // 2 if crop.key_index is None else crop.key_index


def window_of_hu(crop: Crop) -> Window:
    """Give the window in which a crop without one is drawn: the lesion's own, or soft tissue."""
    return resolve_window(crop.lesion.window or FALLBACK)


def enlarge(grey: NDArray[np.uint8], scale: int, aspect: float = 1.0) -> Image.Image:
    """Turn a grey image into an RGB picture.

    Parameters
    ----------
    grey
        (y, x).
    scale
        Pixels of the picture per pixel, along the axis on which pixels are closer together.
    aspect
        Height of a pixel by its width.

    Returns
    -------
    PIL.Image.Image
        RGB.
    """
    rows, columns = grey.shape
    size = round(columns * scale * max(1.0, 1 / aspect)), round(rows * scale * max(1.0, aspect))
    return Image.fromarray(grey).resize(size, Image.Resampling.NEAREST).convert("RGB")


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
        Width and height of each in pixels; a picture of another size is scaled to fit, its shape is kept.

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
        fitted = ImageOps.contain(picture, (tile, tile), Image.Resampling.BICUBIC)
        sheet.paste(fitted, (left + (tile - fitted.width) // 2, top + (tile - fitted.height) // 2))
        for n, line in enumerate(caption):
            shown = shorten(line, lambda text: font.getlength(text) <= tile)
            pen.text((left, top + tile + n * line_height), shown, fill=INK, font=font)
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


def shorten(text: str, fits: Callable[[str], bool]) -> str:
    """Leave out the middle of a text until it fits; both ends of an id tell more than its middle."""
    shown, kept = text, len(text)
    while kept > 2 and not fits(shown):
        kept -= 1
        shown = f"{text[: (kept + 1) // 2]}\N{HORIZONTAL ELLIPSIS}{text[-(kept // 2) :]}"
    return shown


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture as PNG, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="PNG")


def _grey_levels(crop: Crop, image: NDArray[Any]) -> NDArray[np.uint8]:
    if image.dtype == np.uint8:
        return image
    if not crop.windows:
        return apply_window(image, window_of_hu(crop))
    return (np.clip(image.astype(np.float32), 0, 1) * 255).astype(np.uint8)


def _mask_on(crop: Crop, index: int) -> NDArray[np.bool_] | None:
    """Give the pixels of the lesion on a slice; None where the crop has no mask of it."""
    if crop.mask is None or crop.lesion.mask_label is None:
        return None
    mask: NDArray[np.bool_] = crop.mask[index] == crop.lesion.mask_label
    return mask


def _mask_of_key_slice(catalog: Catalog, crop: Crop) -> NDArray[np.bool_] | None:
    """Give the pixels of a crop that are the lesion's; None where there is no mask of it."""
    label, volume_id = crop.lesion.mask_label, crop.lesion.volume_id
    if label is None or crop.lesion.key_z is None or catalog.mask_array(volume_id) is None:
        return None
    rows, columns = crop.image.shape[2:]
    _, depth_y, depth_x = crop.grid.shape
    z, y, x = crop.lesion.key_z, round(crop.origin[1]), round(crop.origin[2])
    inside = Region((z, max(y, 0), max(x, 0)), (z + 1, min(y + rows, depth_y), min(x + columns, depth_x)))
    mask = np.zeros((rows, columns), dtype=np.bool_)
    found = read_region(catalog.location, f"{volume_id}/{MASK}", inside, MASK_ARRAY)[0] == label
    mask[inside.start[1] - y : inside.stop[1] - y, inside.start[2] - x : inside.stop[2] - x] = found
    return mask
