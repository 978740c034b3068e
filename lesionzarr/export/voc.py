"""PASCAL VOC: one XML file per key slice, in the folders of the VOC development kit.

Corners are whole pixels with inclusive ends, those that the corners of the box lie in, cut off at the border of the
image. The first pixel is 1, as in the VOC challenge; or 0, as labelImg and Lung-PET-CT-Dx write it, which is how
`lesionzarr.formats.voc` takes the numbers. What the source calls noisy is ``difficult``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from lesionzarr.errors import SettingError
from lesionzarr.export.key_slices import (
    GREY,
    LESION,
    KeySlice,
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

VOC, LABELIMG = "voc", "labelimg"
ORIGINS = {VOC: 1, LABELIMG: 0}
"""What the first pixel is called, by convention."""


def export_voc(
    catalog: Catalog,
    lesions: Iterable[Lesion],
    folder: Path,
    *,
    convention: str = VOC,
    classes: str = LESION,
    pictures: str = GREY,
    window: WindowLike | None = None,
) -> Exported:
    """Write annotations, pictures and lists of splits.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store.
    folder
        Where ``Annotations``, ``JPEGImages`` (PNG files, for all its name) and ``ImageSets/Main`` are made.
    convention
        ``"voc"`` counts from 1, ``"labelimg"`` from 0.
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
        A convention, depth or word for classes that there is not.
    """
    if convention not in ORIGINS:
        raise SettingError(f"convention {convention!r}: one of {', '.join(ORIGINS)} is needed")
    class_names((), classes)
    slices, failed = find_key_slices(catalog, lesions)
    slices, files, unread = write_key_slices(
        catalog, slices, lambda each: folder / "JPEGImages" / f"{each.stem}.png", depth=pictures, window=window
    )
    names = class_names((found.lesion for each in slices for found in each.findings), classes)
    splits: dict[str, list[str]] = {}
    for each in slices:
        path = folder / "Annotations" / f"{each.stem}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_annotation(each, names, ORIGINS[convention], catalog.info.get("title", "")), encoding="utf-8")
        files.append(path)
        splits.setdefault(each.split, []).append(each.stem)
    for split, stems in splits.items():
        path = folder / "ImageSets" / "Main" / f"{split}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
        files.append(path)
    counts = {"images": len(slices), "lesions": sum(len(each.findings) for each in slices)}
    return Exported(tuple(files), counts, (*failed, *unread))


def _annotation(each: KeySlice, names: Sequence[str], origin: int, title: str) -> str:
    rows, columns = each.shape
    objects = "".join(
        _object(found, each.shape, names[class_index(found.lesion, names)], origin) for found in each.findings
    )
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(each.stem)}.png</filename>\n"
        f"  <source><database>{escape(title)}</database></source>\n"
        f"  <size><width>{columns}</width><height>{rows}</height><depth>1</depth></size>\n"
        f"  <segmented>0</segmented>\n{objects}</annotation>\n"
    )


def _object(found: Finding, shape: tuple[int, int], name: str, origin: int) -> str:
    box = clip_box(found.box, shape)
    corners = (("xmin", box.x0), ("ymin", box.y0), ("xmax", box.x1), ("ymax", box.y1))
    # pixel n reaches from n - 0.5 to n + 0.5
    ends = "".join(f"<{corner}>{math.floor(value + 0.5) + origin}</{corner}>" for corner, value in corners)
    return (
        f"  <object>\n    <name>{escape(name)}</name>\n    <pose>Unspecified</pose>\n    <truncated>0</truncated>\n"
        f"    <difficult>{int(bool(found.lesion.noisy))}</difficult>\n    <bndbox>{ends}</bndbox>\n  </object>\n"
    )
