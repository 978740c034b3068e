"""COCO detection JSON of key slices, in the conventions that are in use for DeepLesion.

==========  ========================================  ============================================================
convention  bbox                                      what else
==========  ========================================  ============================================================
``coco``    [x0, y0, x1 - x0 + 1, y1 - y0 + 1]        COCO's own: from 0, edges of pixels, cut off at the border of the
                                                      image. Area of the segmentation, where there is one, else of the
                                                      box. ``lesion_id`` with every annotation
``mvp-net`` [x0, y0, x1 - x0, y1 - y0]                as ``deeplesion_val.json`` of urmagicsmine/MVP-Net: from 0, as
                                                      measured. Its ``area`` is x0 * height, a mistake that is kept,
                                                      so that both files are equal
``raw``     [x0 + 1, y0 + 1, x1 - x0, y1 - y0]        as Ryoo72/DeepLesion (``coconize_me.py``): the numbers of
                                                      DL_info.csv, which count from 1
==========  ========================================  ============================================================

Here x0 ... are those of the lesion table: from 0, pixel centres on whole numbers, ends inclusive. Images are sorted by
name and counted from 1; those of ``raw`` are in the order of the table. Annotations are in the order of the table.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.errors import GeometryError, IntegrityError, SettingError
from lesionzarr.export.key_slices import (
    LESION,
    KeySlice,
    class_index,
    class_names,
    clip_box,
    find_key_slices,
    lesion_issue,
    read_mask,
    write_key_slices,
)
from lesionzarr.export.outcome import Exported
from lesionzarr.features.pseudo_mask import pseudo_outline

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.export.key_slices import Finding
    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue
    from lesionzarr.store.catalog import Catalog
    from lesionzarr.window import WindowLike

COCO, MVP_NET, RAW = "coco", "mvp-net", "raw"


@dataclass(frozen=True)
class Convention:
    """How the numbers of a box are written."""

    origin: int
    """What the first pixel is called."""
    extra: int
    """What is added to the distance of both ends for the width."""
    points: float
    """What is added to the points of a segmentation, whose pixel centres lie on whole numbers."""
    category: str
    """Name of the one class of all lesions."""


CONVENTIONS = {
    COCO: Convention(origin=0, extra=1, points=0.5, category="lesion"),
    MVP_NET: Convention(origin=0, extra=0, points=0.0, category="Lesion"),
    RAW: Convention(origin=1, extra=0, points=1.0, category="lesion"),
}

NONE, BOX, ELLIPSE, MASKED = "none", "box", "ellipse", "mask"
SEGMENTATIONS = (NONE, BOX, ELLIPSE, MASKED)
"""``ellipse``: the quarter-ellipses of the RECIST axes (`lesionzarr.features.pseudo_mask`); ``mask``: the mask of the
source, run-length encoded. Where a lesion has none of these, its box stands for it."""

Segmentation = list[list[float]] | dict[str, list[int]]


def export_coco(
    catalog: Catalog,
    lesions: Iterable[Lesion],
    folder: Path,
    *,
    convention: str = COCO,
    segmentation: str = NONE,
    classes: str = LESION,
    pictures: str | None = None,
    window: WindowLike | None = None,
) -> Exported:
    """Write one JSON file per split, and the pictures if they are asked for.

    Parameters
    ----------
    catalog
        The store.
    lesions
        Of the store.
    folder
        Where ``train.json``, ``val.json``, ``test.json`` and, for lesions without a split, ``unsplit.json`` are
        written; pictures go to ``images``.
    convention
        ``"coco"``, ``"mvp-net"`` or ``"raw"``.
    segmentation
        ``"none"``, ``"box"``, ``"ellipse"`` or ``"mask"``.
    classes
        ``"lesion"``: one category; ``"type"``: one for each type.
    pictures
        ``"uint8"`` or ``"uint16"``, as `lesionzarr.export.key_slices.write_key_slices`; None for no pictures: the names
        are then those of DeepLesion's own.
    window
        Of pictures.

    Returns
    -------
    Exported

    Raises
    ------
    SettingError
        A convention, segmentation or word for classes that there is not.
    """
    if convention not in CONVENTIONS or segmentation not in SEGMENTATIONS:
        raise SettingError(
            f"convention {convention!r}, segmentation {segmentation!r}: one of {', '.join(CONVENTIONS)} and one of "
            f"{', '.join(SEGMENTATIONS)} are needed"
        )
    class_names((), classes)
    slices, failed = find_key_slices(catalog, lesions)
    files: list[Path] = []
    if pictures is not None:
        slices, files, unread = write_key_slices(
            catalog, slices, lambda each: folder / "images" / file_name(each, convention), depth=pictures, window=window
        )
        failed += unread
    names = class_names((found.lesion for each in slices for found in each.findings), classes)
    folder.mkdir(parents=True, exist_ok=True)
    for split in sorted({each.split for each in slices}):
        chosen = [each for each in slices if each.split == split]
        content, left = _content(catalog, chosen, convention, segmentation, names)
        failed += left
        files.append(folder / f"{split}.json")
        files[-1].write_text(json.dumps(content), encoding="utf-8")
    counts = {"images": len(slices), "lesions": sum(len(each.findings) for each in slices)}
    return Exported(tuple(files), counts, tuple(failed))


def file_name(key_slice: KeySlice, convention: str) -> str:
    """Name a picture as the convention does: ``000001_01_01/109.png``, or of ``raw`` ``000001_01_01_109.png``."""
    return f"{key_slice.stem}.png" if convention == RAW else key_slice.path


def _content(
    catalog: Catalog, slices: Sequence[KeySlice], convention: str, segmentation: str, names: Sequence[str]
) -> tuple[dict[str, Any], list[Issue]]:
    if convention != RAW:
        slices = sorted(slices, key=lambda each: each.path)
    images = [_image(each, number, convention) for number, each in enumerate(slices, start=1)]
    placed = [(found, each, number) for number, each in enumerate(slices, start=1) for found in each.findings]
    annotations: list[dict[str, Any]] = []
    failed = []
    for found, each, number in sorted(placed, key=lambda item: item[0].order):
        try:
            shape = _segmentation(catalog, found, each, segmentation, convention)
        except IntegrityError as error:
            failed.append(lesion_issue(found.lesion, error))
            continue
        annotation = _annotation(found, each, convention, shape)
        identity = {"image_id": number, "category_id": class_index(found.lesion, names) + 1, "id": len(annotations) + 1}
        annotations.append(annotation | identity)
    return {**_head(catalog, convention), "images": images, **_categories(names, convention)} | {
        "annotations": annotations
    }, failed


def _head(catalog: Catalog, convention: str) -> dict[str, Any]:
    info = catalog.info
    told = {"description": info.get("title"), "contributor": info.get("citation"), "version": info.get("tool")}
    licences = [{"id": 1, "name": info.get("licence"), "url": ""}]
    return {"info": {**told, "convention": convention}, "licenses": licences}


def _categories(names: Sequence[str], convention: str) -> dict[str, Any]:
    if tuple(names) == (LESION,):
        names = [CONVENTIONS[convention].category]
    above = {"supercategory": "DeepLesion"} if convention == MVP_NET else {}
    return {"categories": [{**above, "id": number, "name": name} for number, name in enumerate(names, start=1)]}


def _image(each: KeySlice, number: int, convention: str) -> dict[str, Any]:
    rows, columns = each.shape
    image = {"file_name": file_name(each, convention), "height": rows, "width": columns, "id": number}
    first = each.findings[0].lesion
    if convention == COCO:
        z_mm, y_mm, x_mm = each.spacing_mm
        return image | {"volume_id": each.volume_id, "z": each.z, "spacing_mm": [z_mm, y_mm, x_mm]}
    if convention == MVP_NET:
        window = each.windowed.window
        return image | {
            "slice_no": each.number,
            "spacing": each.spacing_mm[2],
            "slice_intv": each.spacing_mm[0],
            "z_position": first.extras.get("normalized_location", [None] * 3)[2],
            "windows": window and [window.low, window.high],
        }
    return image


def _annotation(found: Finding, each: KeySlice, convention: str, segmentation: Segmentation | None) -> dict[str, Any]:
    rule = CONVENTIONS[convention]
    box = clip_box(found.box, each.shape) if convention == COCO else found.box
    x, y, width, height = (
        *(box.x0 + rule.origin, box.y0 + rule.origin),
        *(box.x1 - box.x0 + rule.extra, box.y1 - box.y0 + rule.extra),
    )
    told: dict[str, Any] = {"bbox": [x, y, width, height], "area": width * height, "iscrowd": 0}
    if convention == MVP_NET:
        noisy = int(bool(found.lesion.noisy))
        return told | {"area": x * height, "segmentation": segmentation or [[]], "noisy": noisy}
    if segmentation is not None:
        told |= {"segmentation": segmentation}
    if convention == COCO:
        told |= {"lesion_id": found.lesion.lesion_id}
        if segmentation is not None:
            told |= {"area": _area(segmentation)}
    return told


def _segmentation(
    catalog: Catalog, found: Finding, each: KeySlice, segmentation: str, convention: str
) -> Segmentation | None:
    if segmentation == NONE:
        return None
    add = CONVENTIONS[convention].points
    if segmentation == MASKED:
        mask = read_mask(catalog, found.lesion, each.z)
        if mask is not None:
            return run_lengths(mask)
    if segmentation == ELLIPSE and found.lesion.mark:
        try:
            return [[value + add for point in pseudo_outline(found.lesion.mark) for value in point]]
        except GeometryError:
            pass
    box, half = found.box, CONVENTIONS[convention].extra / 2
    x0, y0, x1, y1 = box.x0 - half + add, box.y0 - half + add, box.x1 + half + add, box.y1 + half + add
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def run_lengths(mask: NDArray[np.bool_]) -> dict[str, list[int]]:
    """Give a mask as COCO's uncompressed run lengths: down the columns, those of the background first."""
    flat = mask.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], starts, [flat.size]])).tolist()
    return {"counts": [0, *lengths] if flat[0] else lengths, "size": list(mask.shape)}


def _area(segmentation: Segmentation) -> float:
    if isinstance(segmentation, dict):
        return float(sum(segmentation["counts"][1::2]))
    x, y = np.reshape(segmentation[0], (-1, 2)).T
    return float(abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1))) / 2)
