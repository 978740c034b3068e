"""YOLO: one text file per key slice, as Ultralytics reads it.

A line is class, centre x, centre y, width, height, as shares of the image's width and height; a box has inclusive ends,
so one pixel is 1 / width wide, and is cut off at the border of the image. ``data.yaml`` names the folders of the
splits that there are; lesions that the source puts into no split go to ``unsplit``, which YOLO does not ask for.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from lesionzarr.export.key_slices import (
    GREY,
    LESION,
    class_index,
    class_names,
    clip_box,
    find_key_slices,
    write_key_slices,
)
from lesionzarr.export.outcome import Exported

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from lesionzarr.export.key_slices import Finding
    from lesionzarr.lesion import Lesion
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike


def export_yolo(
    catalog: Catalog,
    lesions: Iterable[Lesion],
    folder: Path,
    *,
    classes: str = LESION,
    pictures: str = GREY,
    window: WindowLike | None = None,
) -> Exported:
    """Write labels, pictures and ``data.yaml``.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store.
    folder
        Where ``images/<split>``, ``labels/<split>`` and ``data.yaml`` are made.
    classes
        ``"lesion"``: one class; ``"type"``: one for each type.
    pictures, window
        As `lesionzarr.export.key_slices.write_key_slices`.

    Returns
    -------
    Exported

    Raises
    ------
    SettingError
        A depth or word for classes that there is not.
    """
    class_names((), classes)
    slices, failed = find_key_slices(catalog, lesions)
    slices, files, unread = write_key_slices(
        catalog, slices, lambda each: folder / "images" / each.split / f"{each.stem}.png", depth=pictures, window=window
    )
    names = class_names((found.lesion for each in slices for found in each.findings), classes)
    for each in slices:
        path = folder / "labels" / each.split / f"{each.stem}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_line(found, each.shape, names) for found in each.findings), encoding="utf-8")
        files.append(path)
    folder.mkdir(parents=True, exist_ok=True)
    files.append(folder / "data.yaml")
    files[-1].write_text(_settings({each.split for each in slices}, names), encoding="utf-8")
    counts = {"images": len(slices), "lesions": sum(len(each.findings) for each in slices)}
    return Exported(tuple(files), counts, (*failed, *unread))


def _line(found: Finding, shape: tuple[int, int], names: Sequence[str]) -> str:
    rows, columns = shape
    box = clip_box(found.box, shape)
    width, height = box.x1 - box.x0 + 1, box.y1 - box.y0 + 1
    shares = (
        *((box.x0 + width / 2) / columns, (box.y0 + height / 2) / rows),
        *(width / columns, height / rows),
    )
    return f"{class_index(found.lesion, names)} {' '.join(f'{share:.6f}' for share in shares)}\n"


def _settings(splits: set[str], names: Sequence[str]) -> str:
    """Give ``data.yaml``; without a ``path`` its folders lie beside it."""
    folders = "".join(f"{split}: images/{split}\n" for split in sorted(splits))
    # a string of JSON is one of YAML
    return f"{folders}names:\n" + "".join(f"  {number}: {json.dumps(name)}\n" for number, name in enumerate(names))
