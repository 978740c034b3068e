"""What an object is: decided by its header row alone, with the reason."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

CT_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.2": "CT Image",
    "1.2.840.10008.5.1.4.1.1.2.1": "Enhanced CT Image",
    "1.2.840.10008.5.1.4.1.1.2.2": "Legacy Converted Enhanced CT Image",
}
PET_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.128": "PET Image",
    "1.2.840.10008.5.1.4.1.1.130": "Enhanced PET Image",
    "1.2.840.10008.5.1.4.1.1.128.1": "Legacy Converted Enhanced PET Image",
}
CAPTURE_CLASSES = {
    "1.2.840.10008.5.1.4.1.1.7": "Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.1": "Multi-frame Single Bit Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.2": "Multi-frame Grayscale Byte Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.3": "Multi-frame Grayscale Word Secondary Capture Image",
    "1.2.840.10008.5.1.4.1.1.7.4": "Multi-frame True Color Secondary Capture Image",
}
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
IMAGE_CLASSES = {**CT_CLASSES, **PET_CLASSES, **CAPTURE_CLASSES}
"""Storage SOP classes whose objects have pixel data (PS3.4, B.5)."""

DOSE = re.compile(r"dose|exam protocol|patient protocol", re.IGNORECASE)
FUSED = re.compile(r"fus(ed|ion)|overlay|blend|pet.?ct", re.IGNORECASE)
LOCALIZER = re.compile(r"localizer|scout|topogram|surview|CT_SOM\d TOP", re.IGNORECASE)
CAPTURE = re.compile(r"screen ?save|screenshot|secondary capture", re.IGNORECASE)
PROJECTION = re.compile(r"projection image|(^|[\\ /_])(min|m)ip([\\ /_]|$)|volume render|VRT", re.IGNORECASE)
GEOMETRY = ("position", "orientation", "pixel_spacing")


def classify(row: Mapping[str, Any]) -> tuple[str, str]:
    """Tell what an object is.

    The SOP class decides; where there is none, the modality and other attributes do. Words in Image Type take objects
    out that a CT or PET class holds and that are no slices.

    Parameters
    ----------
    row
        One row of `Headers.table`, by column.

    Returns
    -------
    kind : str
        ``"CT"``, ``"PT"``, ``"localizer"``, ``"secondary-capture"``, ``"fused-rgb"``, ``"dose-page"``,
        ``"directory"`` or ``"other"``; the first two are slices of a volume.
    reason : str
        What it was told by.
    """
    sop_class = row["sop_class_uid"] or ""
    if sop_class == DIRECTORY_CLASS:
        return "directory", "a directory of files (Media Storage Directory), no image"
    if not row["rows"] or not row["columns"]:
        return "other", f"no image: it has no Rows and Columns (SOP class {sop_class or 'absent'})"
    image_type = row["image_type"] or ""
    about = f"{image_type} {row['series_description'] or ''}"
    colour = (row["samples"] or 1) > 1
    if colour or sop_class in CAPTURE_CLASSES:
        return _capture(about, colour=colour, sop_class=sop_class)
    for kind, words in (("localizer", LOCALIZER), ("secondary-capture", CAPTURE), ("other", PROJECTION)):
        if words.search(image_type):
            return kind, f"no slice: its Image Type is {image_type}"
    return _slice(row, sop_class)


def _capture(about: str, *, colour: bool, sop_class: str) -> tuple[str, str]:
    name = CAPTURE_CLASSES.get(sop_class, f"colour image of SOP class {sop_class or 'absent'}")
    if DOSE.search(about):
        return "dose-page", f"a page of dose information ({name})"
    if colour and FUSED.search(about):
        return "fused-rgb", f"a colour picture of fused PET and CT ({name}), no values in HU or Bq/ml"
    return "secondary-capture", f"{'a colour picture' if colour else 'a picture'} ({name}), no slice of a volume"


def _slice(row: Mapping[str, Any], sop_class: str) -> tuple[str, str]:
    for kind, classes in (("CT", CT_CLASSES), ("PT", PET_CLASSES)):
        if sop_class in classes:
            return kind, f"SOP class {classes[sop_class]}"
    if sop_class:
        return "other", f"SOP class {sop_class} is neither CT nor PET"
    modality = row["modality"]
    if modality:
        kind = modality if modality in {"CT", "PT"} else "other"
        return kind, f"Modality {modality}; there is no SOP class"
    return _slice_by_tags(row)


def _slice_by_tags(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["slope"] is not None and row["intercept"] is not None and all(row[column] for column in GEOMETRY):
        if row["units"] or row["dose"] is not None:
            return "PT", "rescale, geometry and Units or a dose; there is no SOP class and no Modality"
        if row["kvp"] is not None or row["rescale_type"] == "HU" or row["intercept"] <= -1000:
            return "CT", "rescale and geometry as CT has them; there is no SOP class and no Modality"
    return "other", "neither SOP class nor Modality, and nothing else that shows CT or PET"
