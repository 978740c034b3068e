"""What a notebook shows of a store, a lesion, a crop or a batch. Whatever comes from data is escaped.

Nothing here fails: where a picture cannot be made, the text stands alone, with the reason.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.export.pictures import middle_of, shorten
from lesionzarr.lesion import Lesion
from lesionzarr.plot.scroller import PIXELS, shrink, small_slice, to_figure, to_uri
from lesionzarr.plot.voxels import SHEET, name_channel, sheet_of
from lesionzarr.readers.batch import Batch, Crop
from lesionzarr.store.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pandas as pd

ROWS = 5
COLUMNS = ("volume_id", "key_z", "type", "long_mm", "short_mm", "split")
"""Of the lesions that are shown first."""
SHEET_PIXELS = 640

CELL = "text-align:left;vertical-align:top;padding:1px 14px 1px 0;background:none;border:none"
LONG = 30
"""Letters of a cell of the table, of which UIDs have twice as many."""
FAINT = "opacity:.65"
Facts = list[tuple[str, Any]]


def to_html(value: Catalog | Lesion | Crop | Batch) -> str:
    """Write what a notebook shows of a value.

    Parameters
    ----------
    value
        A `Catalog`, `Lesion`, `Crop` or `Batch`.

    Returns
    -------
    str
        HTML without scripts. Of a catalog no voxel is read; pictures of crops are inside of it, some 50 kB each.
    """
    try:
        return _shown(value)
    except Exception as error:  # noqa: BLE001 - of what is odd the reason is worth more than a traceback
        return _page(type(value).__name__, _facts([("text", repr(value)), ("not shown", error)]))


def _shown(value: Catalog | Lesion | Crop | Batch) -> str:
    match value:
        case Catalog():
            return _catalog(value)
        case Lesion():
            return _page(value.lesion_id, _facts(_of_lesion(value)))
        case Crop():
            return _crop(value)
        case Batch():
            return _batch(value)


def _catalog(catalog: Catalog) -> str:
    volumes, counts = catalog.volumes, catalog.counts()
    words = ("lesions", "volumes", "series", "studies", "patients")
    facts: Facts = [
        ("store", catalog.location.name),
        ("holds", ", ".join(f"{counts[word]:,} {word}" for word in words)),
        ("modality", _tell_counts(volumes["modality"].value_counts().items())),
        ("splits", _tell_counts(counts["by split"].items())),
        ("types", _tell_counts(counts["by type"].items())),
        ("pixels", _range(volumes[["spacing_y_mm", "spacing_x_mm"]])),
        ("slice interval", _range(volumes[["spacing_z_mm"]])),
        ("licence", catalog.info.get("licence")),
        ("cite", catalog.info.get("citation")),
    ]
    rows = catalog.lesions.head(ROWS)
    names = [name for name in COLUMNS if name in rows]
    cells = [[str(row[0]), *map(_cell, row[1:])] for row in rows[names].itertuples(name=None)]
    more = len(catalog) - len(rows)
    table = _table(["lesion_id", *names], cells) + (f'<div style="{FAINT}">and {more:,} more</div>' if more else "")
    return _page(str(catalog.info.get("title") or catalog.location.name), _facts(facts) + (table if cells else ""))


def _crop(crop: Crop) -> str:
    images = []
    try:
        index = middle_of(crop)
        for channel in range(len(crop.image)):
            uri = to_uri(small_slice(crop, index, channel))
            images.append((uri, f"slice {index + 1} of {crop.image.shape[1]}, {name_channel(crop, channel)}"))
    except Exception as error:  # noqa: BLE001 - a notebook has to show the rest
        return _page(crop.lesion.lesion_id, _facts([*_of_crop(crop), ("no picture", error)]))
    return _page(crop.lesion.lesion_id, _pictures(images, PIXELS) + _facts(_of_crop(crop)))


def _batch(batch: Batch) -> str:
    facts: Facts = [("image", _tell_array(batch.image))]
    if not batch.crops:
        return _page("0 crops", _facts(facts))
    try:
        sheet = shrink(sheet_of(batch), SHEET_PIXELS).convert("RGB")
        # so few colours look the same, at half the size
        uri = to_uri(sheet.quantize(96))
    except Exception as error:  # noqa: BLE001 - a notebook has to show the rest
        return _page(f"{len(batch):,} crops", _facts([*facts, ("no picture", error)]))
    text = (
        name_channel(batch.crops[0], 0) if batch.crops[0].windows == batch.crops[-1].windows else "windows of their own"
    )
    if len(batch) > SHEET:
        text = f"the first {SHEET}, {text}"
    return _page(f"{len(batch):,} crops", _pictures([(uri, text)], sheet.width) + _facts(facts))


def _of_lesion(lesion: Lesion) -> Facts:
    sizes = [
        f"{name} {length:.1f} mm"
        for name, length in (("long", lesion.long_mm), ("short", lesion.short_mm))
        if length is not None
    ]
    box, window = lesion.box, lesion.window
    return [
        ("type", lesion.type),
        ("axes", ", ".join(sizes)),
        ("volume", lesion.volume_id),
        ("key slice", lesion.key_z),
        (
            "box (z, y, x)",
            box and " to ".join(_place(ends) for ends in ((box.z0, box.y0, box.x0), (box.z1, box.y1, box.x1))),
        ),
        ("window", window and f"{window.low:g} to {window.high:g} HU"),
        ("labels", ", ".join(lesion.labels or ())),
        ("split", lesion.split),
        (
            "patient",
            ", ".join(
                str(part) for part in (lesion.patient_id, lesion.sex, lesion.age and f"{lesion.age:g} years") if part
            ),
        ),
        ("study", lesion.study_date),
        ("source", lesion.source),
    ]


def _of_crop(crop: Crop) -> Facts:
    spacing = " x ".join("unknown" if mm is None else f"{mm:.4g}" for mm in crop.spacing_mm)
    outside = 1 - float(crop.valid.mean())
    return [
        ("image", _tell_array(crop.image)),
        ("spacing (z, y, x)", f"{spacing} mm"),
        ("from (z, y, x)", _place(crop.origin)),
        ("padding", f"{outside:.0%}" if outside else None),
        *_of_lesion(crop.lesion)[:4],
    ]


def _page(heading: str, body: str) -> str:
    return f'<div style="line-height:1.45"><b>{escape(heading)}</b>{body}</div>'


def _facts(facts: Facts) -> str:
    rows = [
        f'<tr style="background:none"><td style="{CELL};{FAINT}">{escape(name)}</td>'
        f'<td style="{CELL}">{escape(str(value))}</td></tr>'
        for name, value in facts
        if value is not None and str(value)
    ]
    return f'<table style="border:none;margin:2px 0 6px">{"".join(rows)}</table>'


def _table(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    style = f"{CELL};white-space:nowrap"
    head = "".join(f'<th style="{style};{FAINT};font-weight:normal">{escape(name)}</th>' for name in names)
    cells = ("".join(f'<td style="{style}">{_short(cell)}</td>' for cell in row) for row in rows)
    body = "".join(f'<tr style="background:none">{row}</tr>' for row in cells)
    return f'<table style="border:none;margin:2px 0"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _short(cell: str) -> str:
    short = shorten(cell, lambda text: len(text) <= LONG)
    return escape(cell) if short == cell else f'<span title="{escape(cell, quote=True)}">{escape(short)}</span>'


def _pictures(images: Iterable[tuple[str, str]], width: int) -> str:
    figures = "".join(to_figure(uri, text, text, width) for uri, text in images)
    return f'<div style="display:flex;gap:8px;flex-wrap:wrap;margin:4px 0">{figures}</div>'


def _tell_counts(counts: Iterable[tuple[Any, int]]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts)


def _tell_array(image: Any) -> str:
    return f"{image.dtype} {tuple(image.shape)}"


def _range(spacings: pd.DataFrame) -> str | None:
    low, high = (
        float(np.nanmin(spacings.to_numpy(dtype=float), initial=math.inf)),
        float(np.nanmax(spacings.to_numpy(dtype=float), initial=-math.inf)),
    )
    if low > high:
        return "unknown" if len(spacings) else None
    return f"{low:.4g} mm" if low == high else f"{low:.4g} to {high:.4g} mm"


def _place(point: Iterable[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in point)})"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.1f}"
    return "" if value is None or str(value) == "<NA>" else str(value)
