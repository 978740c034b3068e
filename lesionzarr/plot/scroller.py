"""Slices in a notebook that are scrolled through, without a server or an extension: pictures and a few lines of script.

What is shown stays in the notebook when it is saved, and works where others look at it, as in nbviewer. Where scripts
do not run the key slice is seen.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps

from lesionzarr.export.pictures import middle_of, render_slice
from lesionzarr.plot.voxels import name_channel

if TYPE_CHECKING:
    from lesionzarr.readers.batch import Crop

MOST = 40
"""Slices, those nearest to the key slice."""
PIXELS = 256
"""Width and height of a picture as it is kept, at most: some 20 kB each. It is shown this wide."""

GAP = 8

# it is told by its mark which values it belongs to: two of them may be in one page, and one twice
SCRIPT = """
for (const root of document.querySelectorAll('[data-lesionzarr="MARK"]:not([data-ready])')) {
  root.dataset.ready = "";
  const slices = [...root.querySelectorAll("[data-slice]")];
  const range = root.querySelector("input"), text = root.querySelector("output");
  const show = (wanted) => {
    const now = Math.min(Math.max(wanted, 0), slices.length - 1);
    slices.forEach((slice, number) => { slice.style.display = number === now ? "flex" : "none"; });
    range.value = now;
    text.textContent = slices[now].dataset.slice;
  };
  range.disabled = false;
  range.addEventListener("input", () => show(range.valueAsNumber));
  root.addEventListener("wheel", (event) => {
    event.preventDefault();
    show(range.valueAsNumber + Math.sign(event.deltaY));
  }, {passive: false});
  show(range.valueAsNumber);
}
"""


@dataclass(frozen=True)
class Scroller:
    """Pictures of slices, one of which is seen at a time; a notebook shows it."""

    title: str
    slices: tuple[tuple[Image.Image, ...], ...] = field(repr=False)
    """Of each slice one picture per window."""
    captions: tuple[str, ...] = field(repr=False)
    """Of each slice."""
    windows: tuple[str, ...]
    first: int
    """Number of the slice that is seen first."""

    def __len__(self) -> int:
        return len(self.slices)

    def _repr_html_(self) -> str:
        return to_scroller(self)


def scroll(crop: Crop) -> Scroller:
    """Make slices that a notebook scrolls through, by the wheel, the bar or the arrow keys.

    Parameters
    ----------
    crop
        A crop or context stack; `Crop.scroll` calls this.

    Returns
    -------
    Scroller
        All its windows side by side, with the lesion's marks; of more than 40 slices the 40 nearest to the key slice.
    """
    key, count = middle_of(crop), crop.image.shape[1]
    start = min(max(key - MOST // 2, 0), max(count - MOST, 0))
    rows = range(start, min(start + MOST, count))
    channels = range(len(crop.image))
    return Scroller(
        title=crop.lesion.lesion_id,
        slices=tuple(tuple(small_slice(crop, row, n) for n in channels) for row in rows),
        captions=tuple(_caption(crop, row) for row in rows),
        windows=tuple(name_channel(crop, n) for n in channels),
        first=key - start,
    )


def small_slice(crop: Crop, index: int, channel: int) -> Image.Image:
    """Draw a slice of a crop for a notebook."""
    columns = crop.image.shape[3]
    # enlarged by a whole number, since pixels that were mixed take twice the room
    return shrink(render_slice(crop, index, channel=channel, width=columns * max(1, PIXELS // columns)))


def shrink(picture: Image.Image, pixels: int = PIXELS) -> Image.Image:
    """Make a picture small enough for a notebook, and grey where it has no colour."""
    if max(picture.size) > pixels:
        picture = ImageOps.contain(picture, (pixels, pixels), Image.Resampling.LANCZOS)
    rgb = np.asarray(picture.convert("RGB"))
    return picture.convert("L") if (rgb == rgb[..., :1]).all() else picture


def to_uri(picture: Image.Image) -> str:
    """Give a picture as an address that holds it."""
    data = BytesIO()
    picture.save(data, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"


def to_figure(uri: str, text: str, caption: str, width: int = PIXELS) -> str:
    """Write the HTML of a picture, with what stands for it where it is not seen, and what stands below it."""
    return (
        f'<figure style="margin:0"><img src="{uri}" width="{width}" alt="{escape(text, quote=True)}">'
        f'<figcaption style="font-size:smaller;opacity:.75">{escape(caption)}</figcaption></figure>'
    )


def to_scroller(scroller: Scroller) -> str:
    """Write the HTML of a scroller."""
    pictures = [[to_uri(picture) for picture in row] for row in scroller.slices]
    mark = hashlib.sha256("".join(map("".join, pictures)).encode()).hexdigest()[:16]
    parts = []
    for number, (row, text) in enumerate(zip(pictures, scroller.captions, strict=True)):
        shown = "flex" if number == scroller.first else "none"
        figures = "".join(
            to_figure(uri, f"{text}, {window}", window) for uri, window in zip(row, scroller.windows, strict=True)
        )
        parts.append(
            f'<div data-slice="{escape(text, quote=True)}" style="display:{shown};gap:{GAP}px">{figures}</div>'
        )
    last, width = len(scroller) - 1, len(scroller.windows) * (PIXELS + GAP) - GAP
    return (
        f'<div data-lesionzarr="{mark}" style="display:inline-block;line-height:1.4">'
        f"<div><b>{escape(scroller.title)}</b></div>{''.join(parts)}"
        f'<input type="range" min="0" max="{last}" value="{scroller.first}" disabled aria-label="slice" '
        f'style="display:block;width:{width}px;margin:4px 0">'
        f"<output>{escape(scroller.captions[scroller.first])}</output>"
        f"<script>{SCRIPT.replace('MARK', mark)}</script></div>"
    )


def _caption(crop: Crop, row: int) -> str:
    count = crop.image.shape[1]
    parts = [f"slice {row + 1} of {count}"]
    z_mm = crop.spacing_mm[0]
    if crop.key_index == row:
        parts.append("key slice")
    elif crop.key_index is not None and z_mm is not None:
        parts.append(f"{abs(row - crop.key_index) * z_mm:g} mm {'after' if row > crop.key_index else 'before'} it")
    if not crop.valid[row].any():
        parts.append("outside of the volume")
    return ", ".join(parts)
