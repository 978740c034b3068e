"""Figures of voxels: the key slice of a lesion in one or several windows, crops, and many crops on one sheet.

Pixels have their shape in mm, and a bar tells how large they are. The marks are those of `lesionzarr render`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import SettingError
from lesionzarr.export.pictures import caption, contact_sheet, middle_of, render_lesion, render_slice, window_of_hu
from lesionzarr.lesion import Lesion
from lesionzarr.plot._style import INK, MINUS, new_axes, new_row, title
from lesionzarr.readers.stack import StackReader
from lesionzarr.window import OWN, PRESETS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from lesionzarr.readers.batch import Batch, Crop
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import Window, WindowLike

PREVIEW = ("soft-tissue", "lung", "bone")
"""Windows of a preview, after the lesion's own; one that is the same is left out."""
AROUND_MM = 120.0
"""Width and height of what a preview shows, at least."""
BARS_MM = (1, 2, 5, 10, 20, 50, 100)
LEAST_PIXELS = 512
"""Width of a picture, so that lines and outlines are thin."""
SHEET = 16
"""Crops on a sheet, at most."""
PANEL_IN = 2.9


def crop(crop: Crop, *, ax: Any = None) -> list[Any]:
    """Draw the key slice of a crop, or its middle slice where it does not hold that.

    Parameters
    ----------
    crop
        As a reader gives it; `Crop.plot` calls this.
    ax
        Axes of matplotlib, as many as windows; None for new ones.

    Returns
    -------
    list of matplotlib.axes.Axes
        One for each channel. The scale of both axes is mm from the first voxel of the crop.

    Raises
    ------
    MissingExtraError
        matplotlib is absent.
    """
    index = middle_of(crop)
    row = new_row(len(crop.image), ax, width=PANEL_IN, height=PANEL_IN + 0.25)
    for channel, axes in enumerate(row):
        picture = render_slice(crop, index, channel=channel, width=LEAST_PIXELS)
        _show(axes, picture, _extent_mm(crop), name_channel(crop, channel))
    return row


def windows(
    catalog: Catalog,
    lesion: str | Lesion,
    windows: Sequence[WindowLike] | None = None,
    *,
    ax: Any = None,
) -> list[Any]:
    """Draw the key slice of a lesion in several windows side by side.

    Parameters
    ----------
    catalog
        The store.
    lesion
        Id or lesion.
    windows
        As of the readers; None for the lesion's own, where it has one, and three presets.
    ax
        Axes of matplotlib, as many as windows; None for new ones.

    Returns
    -------
    list of matplotlib.axes.Axes
        120 mm round the lesion at least, in mm; the marks of the lesion are in the first alone, so that it is seen.

    Raises
    ------
    NotFoundError
        No such lesion, or window.
    GeometryError
        The lesion has no key slice in the store.
    IntegrityError
        The store is damaged there.
    MissingExtraError
        matplotlib is absent.
    """
    found = lesion if isinstance(lesion, Lesion) else catalog.find_lesions([lesion])[0]
    wanted = _preview(found) if windows is None else list(windows)
    if not wanted:
        raise SettingError("no window to draw: name a preset, or give None for some")
    read = StackReader(catalog, slices=1, size=_size(catalog, found), window=wanted).read(found)
    row = new_row(len(wanted), ax, width=PANEL_IN, height=PANEL_IN + 0.25)
    for channel, axes in enumerate(row):
        picture = render_slice(read, 0, channel=channel, width=LEAST_PIXELS, marks=channel == 0)
        name = "own" if wanted[channel] == OWN else wanted[channel]
        text = name_window(read.windows[channel])
        _show(axes, picture, _extent_mm(read), f"{name}: {text}" if isinstance(name, str) else text)
    return row


def lesion(catalog: Catalog, lesion: str | Lesion, *, window: WindowLike | None = None, ax: Any = None) -> Any:
    """Draw the whole key slice of a lesion, with its marks and their lengths, as `lesionzarr render` does.

    Parameters
    ----------
    catalog
        The store.
    lesion
        Id or lesion; `Lesion.plot` calls this.
    window
        None for the lesion's own, or soft tissue where it has none.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes
        In mm from the first pixel of the slice.

    Raises
    ------
    NotFoundError, GeometryError, IntegrityError, MissingExtraError
        As `windows`.
    """
    found = lesion if isinstance(lesion, Lesion) else catalog.find_lesions([lesion])[0]
    grid = catalog.grid(found.volume_id)
    scale = math.ceil(LEAST_PIXELS / grid.shape[2])
    picture = render_lesion(catalog, found, window=window, scale=scale)
    _, rows, columns = grid.shape
    _, y_mm, x_mm = grid.spacing_mm
    axes = new_axes(ax, width=5.0, height=5.0 * rows * y_mm / (columns * x_mm) + 0.55)
    _show(axes, picture, (-x_mm / 2, (columns - 0.5) * x_mm, (rows - 0.5) * y_mm, -y_mm / 2), *caption(found))
    return axes


def batch(batch: Batch, *, ax: Any = None) -> Any:
    """Draw the key slices of crops on one sheet, the first window of each; of the first 16 crops.

    Parameters
    ----------
    batch
        As a reader gives it; `Batch.plot` calls this.
    ax
        Axes of matplotlib; None for new ones.

    Returns
    -------
    matplotlib.axes.Axes
        In pixels of the sheet.

    Raises
    ------
    SettingError
        No crop.
    MissingExtraError
        matplotlib is absent.
    """
    sheet = sheet_of(batch)
    axes = new_axes(ax, width=sheet.width / 130, height=sheet.height / 130)
    axes.imshow(np.asarray(sheet))
    axes.set_axis_off()
    return axes


def sheet_of(batch: Batch) -> Image.Image:
    """Give the key slices of the first crops on one sheet; SettingError where there is none."""
    if not batch.crops:
        raise SettingError("a batch of no crops has no picture")
    return contact_sheet([(render_slice(each), caption(each.lesion)) for each in batch.crops[:SHEET]])


def name_channel(crop: Crop, channel: int) -> str:
    """Say what a channel of a crop shows."""
    if not crop.windows:
        return name_window(window_of_hu(crop))
    # a study has the PET as its last channel, of no window in HU
    return name_window(crop.windows[channel]) if channel < len(crop.windows) else "PET"


def name_window(window: Window) -> str:
    """Say which HU a window shows."""
    return f"{window.low:g} to {window.high:g} HU".replace("-", MINUS)


def _preview(lesion: Lesion) -> list[WindowLike]:
    own = lesion.window
    return [*([OWN] if own else []), *(name for name in PREVIEW if PRESETS[name] != own)]


def _size(catalog: Catalog, lesion: Lesion) -> tuple[int, int]:
    _, y_mm, x_mm = catalog.grid(lesion.volume_id).spacing_mm
    box = lesion.box
    extent = 0.0 if box is None else 1.5 * max((box.x1 - box.x0) * x_mm, (box.y1 - box.y0) * y_mm)
    return math.ceil(max(AROUND_MM, extent) / y_mm), math.ceil(max(AROUND_MM, extent) / x_mm)


def _extent_mm(crop: Crop) -> tuple[float, float, float, float]:
    """Give left, right, bottom and top of the pixels in mm, 0 at the centre of the first one."""
    _, y_mm, x_mm = crop.spacing_mm
    rows, columns = crop.image.shape[2:]
    return -x_mm / 2, (columns - 0.5) * x_mm, (rows - 0.5) * y_mm, -y_mm / 2


def _show(axes: Any, picture: Image.Image, extent: tuple[float, float, float, float], *lines: str) -> None:
    axes.imshow(np.asarray(picture), extent=extent, aspect="equal", interpolation="antialiased")
    axes.set_axis_off()
    title(axes, *lines)
    _draw_bar(axes, extent)


def _draw_bar(axes: Any, extent: tuple[float, float, float, float]) -> None:
    """Draw a bar of a whole number of mm, about a fifth of the width, below the picture."""
    left, right, bottom, top = extent
    length = max((bar for bar in BARS_MM if bar <= 0.3 * (right - left)), default=BARS_MM[0])
    below = bottom + 0.035 * (bottom - top)
    axes.plot([left, left + length], [below, below], color=INK, linewidth=2, solid_capstyle="butt", clip_on=False)
    axes.text(left + length + 0.02 * (right - left), below, f"{length} mm", va="center", fontsize="small", color=INK)
    axes.set_ylim(bottom + 0.08 * (bottom - top), top)
