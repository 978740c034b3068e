"""The table of headers: which attributes of an object are kept, and how each becomes a value of a table.

A value that is absent, empty or not what its attribute should hold is null; whether that matters is for the reader of
the table to say. Attributes and keywords are those of DICOM PS3.6.
"""

from __future__ import annotations

import math
import re
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = pa.dictionary(pa.int32(), pa.string())
"""Text that many rows share."""
NUMBERS = pa.list_(pa.field("element", pa.float64()))
"""Lists name their items as Parquet does, so that the schema comes back as it was written."""

FILE_COLUMNS = [("root", NAME), ("name", pa.string()), ("size", pa.int64()), ("stamp", pa.int64())]
"""The fields of `lesionzarr.series.SourceFile`."""

TEXTS = {
    "series_uid": "SeriesInstanceUID",
    "study_uid": "StudyInstanceUID",
    "frame_uid": "FrameOfReferenceUID",
    "patient_id": "PatientID",
    "modality": "Modality",
    "image_type": "ImageType",
    "photometric": "PhotometricInterpretation",
    "rescale_type": "RescaleType",
    "kernel": "ConvolutionKernel",
    "series_description": "SeriesDescription",
    "study_description": "StudyDescription",
    "protocol": "ProtocolName",
    "contrast": "ContrastBolusAgent",
    "body_part": "BodyPartExamined",
    "patient_position": "PatientPosition",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "study_date": "StudyDate",
    "series_date": "SeriesDate",
    "series_time": "SeriesTime",
    "acquisition_date": "AcquisitionDate",
    "acquisition_time": "AcquisitionTime",
    "sex": "PatientSex",
    "age": "PatientAge",
    "units": "Units",
    "suv_type": "SUVType",
    "corrected_image": "CorrectedImage",
    "decay_correction": "DecayCorrection",
}
WHOLE_NUMBERS = {
    "instance_number": "InstanceNumber",
    "series_number": "SeriesNumber",
    "acquisition_number": "AcquisitionNumber",
    "temporal_position": "TemporalPositionIdentifier",
    "rows": "Rows",
    "columns": "Columns",
    "samples": "SamplesPerPixel",
    "allocated": "BitsAllocated",
    "bits": "BitsStored",
    "frames": "NumberOfFrames",
    "padding": "PixelPaddingValue",
}
DECIMALS = {
    "slope": "RescaleSlope",
    "intercept": "RescaleIntercept",
    "slice_location": "SliceLocation",
    "slice_thickness": "SliceThickness",
    "spacing_between": "SpacingBetweenSlices",
    "tilt": "GantryDetectorTilt",
    "kvp": "KVP",
    "weight": "PatientWeight",
    "height": "PatientSize",
}
VECTORS = {
    "position": ("ImagePositionPatient", 3),
    "orientation": ("ImageOrientationPatient", 6),
    "pixel_spacing": ("PixelSpacing", 2),
    "imager_spacing": ("ImagerPixelSpacing", 2),
}
TRACER = {
    "start_time": "RadiopharmaceuticalStartTime",
    "start_datetime": "RadiopharmaceuticalStartDateTime",
    "dose": "RadionuclideTotalDose",
    "half_life": "RadionuclideHalfLife",
}
"""In the first item of Radiopharmaceutical Information Sequence."""
PRIVATE = {
    "ge_scan_datetime": (0x0009, "GEMS_PETD_01", 0x0D),
    "philips_suv_factor": (0x7053, "Philips PET Private Group", 0x00),
    "philips_activity_factor": (0x7053, "Philips PET Private Group", 0x09),
}
"""Private elements that SUV needs: group, private creator, element."""

FRAME = pa.struct([("position", NUMBERS), ("orientation", NUMBERS), ("pixel_spacing", NUMBERS)])

SCHEMA = pa.schema(
    [
        *FILE_COLUMNS,
        ("sop_class_uid", NAME),
        ("sop_instance_uid", pa.string()),
        ("transfer_syntax", NAME),
        ("pixel_bytes", pa.int64()),
        ("signed", pa.bool_()),
        *((column, NAME) for column in TEXTS),
        *((column, pa.int64()) for column in WHOLE_NUMBERS),
        *((column, pa.float64()) for column in DECIMALS),
        *((column, NUMBERS) for column in VECTORS),
        ("start_time", NAME),
        ("start_datetime", NAME),
        ("dose", pa.float64()),
        ("half_life", pa.float64()),
        ("ge_scan_datetime", NAME),
        ("philips_suv_factor", pa.float64()),
        ("philips_activity_factor", pa.float64()),
        ("frame_geometry", pa.list_(pa.field("element", FRAME))),
    ],
    metadata={"lesionzarr": "dicom headers 1"},
)
"""Columns of `Headers.table`. ``pixel_bytes``: length of the pixel data, -1 where it is compressed into fragments, null
where there is none. ``frame_geometry``: one entry per frame of an object with functional groups."""

KEYWORDS = [
    *("SOPClassUID", "SOPInstanceUID", "PixelRepresentation", "PatientName", "AcquisitionDateTime"),
    *("RadiopharmaceuticalInformationSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *TEXTS.values(),
    *WHOLE_NUMBERS.values(),
    *DECIMALS.values(),
    *(keyword for keyword, _ in VECTORS.values()),
]
"""Standard attributes to read."""

PRIVATE_TAGS = [
    (group, tag)
    for group, _, element in PRIVATE.values()
    for block in range(0x10, 0x20)
    for tag in (block, block << 8 | element)
]
"""Private creators, and the elements in every block that they may have taken (PS3.5, 7.8.1)."""

BINARY = {
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "PixelPaddingValue",
    "PixelRepresentation",
}
"""Attributes that are no text in a file."""
TEXT_VRS = {None, "AS", "CS", "DA", "DS", "DT", "IS", "LO", "PN", "SH", "TM", "UI"}
"""Value representations that are text; None is that of Implicit VR, where the attribute tells it."""

FREE_TEXTS = ("series_description", "study_description", "protocol", "contrast")
"""Texts that people type, in which a name may stand."""


def header_values(dataset: Any) -> dict[str, Any]:
    """Take from a dataset what the table keeps.

    Parameters
    ----------
    dataset
        A pydicom dataset with its file meta information; pixel data is not looked at.

    Returns
    -------
    dict
        Value by column of `SCHEMA`, without those of the file and ``pixel_bytes``. A free text that holds a part of the
        patient's name is null.
    """
    meta = getattr(dataset, "file_meta", None) or {}
    acquired = _text(dataset, "AcquisitionDateTime") or ""
    values: dict[str, Any] = {
        # some anonymisers empty these in the dataset and leave them in the file meta information
        "sop_class_uid": _text(dataset, "SOPClassUID") or _text(meta, "MediaStorageSOPClassUID"),
        "sop_instance_uid": _text(dataset, "SOPInstanceUID") or _text(meta, "MediaStorageSOPInstanceUID"),
        "transfer_syntax": _text(meta, "TransferSyntaxUID"),
        "signed": bool(_whole(dataset, "PixelRepresentation")),
        **_take(_text, dataset, TEXTS),
        **_take(_whole, dataset, WHOLE_NUMBERS),
        **_take(_decimal, dataset, DECIMALS),
        **{column: _vector(dataset, keyword, length) for column, (keyword, length) in VECTORS.items()},
        **_tracer(dataset),
        **_private(dataset),
        "frame_geometry": _frame_geometry(dataset),
    }
    if acquired and values["acquisition_time"] is None:
        values |= {"acquisition_date": acquired[:8], "acquisition_time": acquired[8:] or None}
    hide = _name_pattern(_text(dataset, "PatientName") or "")
    if hide is not None:
        values |= {column: None for column in FREE_TEXTS if values[column] and hide.search(values[column])}
    return values


def _take(read: Callable[[Any, str], Any], dataset: Any, keywords: dict[str, str]) -> dict[str, Any]:
    return {column: read(dataset, keyword) for column, keyword in keywords.items()}


@cache
def _tag(keyword: str) -> Any:
    from pydicom.tag import Tag

    return Tag(keyword)


def _value(dataset: Any, keyword: str) -> Any:
    tag = _tag(keyword)
    # most are absent, and pydicom takes long to say so
    if tag not in dataset.keys():  # noqa: SIM118
        return None
    try:
        return dataset[tag].value
    except (ValueError, TypeError, OverflowError, AttributeError, NotImplementedError, LookupError):
        # pydicom converts on access, and some values cannot be
        return None


def _plain(dataset: Any, keyword: str) -> Any:
    """Give the value as the file writes it where that is ASCII text; else as pydicom converts it, at a cost."""
    tag = _tag(keyword)
    element = dataset.get_item(tag) if tag in dataset.keys() and keyword not in BINARY else None  # noqa: SIM118
    if element is not None and element.VR in TEXT_VRS:
        raw = element.value
        if isinstance(raw, bytes) and raw.isascii():
            return raw.decode("ascii").split("\\")
    return _value(dataset, keyword)


def _text(dataset: Any, keyword: str) -> str | None:
    return _as_text(_plain(dataset, keyword))


def _as_text(value: Any) -> str | None:
    if isinstance(value, (list, tuple)) or type(value).__name__ == "MultiValue":
        value = "\\".join(str(part).strip(" \0") for part in value)
    text = "" if value is None else str(value).replace("\0", "").strip()
    # what cannot be told in UTF-8 cannot be kept in a table
    return text.encode("utf-8", "replace").decode() or None


def _decimal(dataset: Any, keyword: str) -> float | None:
    value = _plain(dataset, keyword)
    return _as_decimal(value[0] if isinstance(value, list) and len(value) == 1 else value)


def _as_decimal(value: Any) -> float | None:
    try:
        number = float(value.strip(" \0") if isinstance(value, str) else value)
    except (ValueError, TypeError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(dataset: Any, keyword: str) -> int | None:
    number = _decimal(dataset, keyword)
    return int(number) if number is not None and abs(number) < 2**62 else None


def _vector(dataset: Any, keyword: str, length: int) -> list[float] | None:
    try:
        numbers = [_as_decimal(value) for value in _plain(dataset, keyword)]
    except TypeError:
        return None
    complete = [number for number in numbers if number is not None]
    return complete if len(numbers) == len(complete) == length else None


def _tracer(dataset: Any) -> dict[str, Any]:
    items = _value(dataset, "RadiopharmaceuticalInformationSequence")
    # of several injections it is not known which one the image shows
    item = items[0] if items and len(items) == 1 else {}
    times = {column: _text(item, TRACER[column]) for column in ("start_time", "start_datetime")}
    return times | {column: _decimal(item, TRACER[column]) for column in ("dose", "half_life")}


def _private(dataset: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    is_private = any(tag.is_private for tag in dataset.keys())  # noqa: SIM118 (elements would be converted)
    for column, (group, creator, element) in PRIVATE.items():
        try:
            value = dataset.private_block(group, creator)[element].value if is_private else None
        except (KeyError, ValueError, TypeError):
            value = None
        if isinstance(value, bytes):
            # in Implicit VR the type of a private element is not told
            value = value.decode("ascii", "replace").strip("\0 ")
        found[column] = _as_text(value) if column == "ge_scan_datetime" else _as_decimal(value)
    return found


def _frame_geometry(dataset: Any) -> list[dict[str, Any]] | None:
    frames = _value(dataset, "PerFrameFunctionalGroupsSequence")
    if not frames:
        return None
    shared = (_value(dataset, "SharedFunctionalGroupsSequence") or [{}])[0]
    return [
        {
            "position": _vector(group_item(frame, shared, "PlanePositionSequence"), "ImagePositionPatient", 3),
            "orientation": _vector(group_item(frame, shared, "PlaneOrientationSequence"), "ImageOrientationPatient", 6),
            "pixel_spacing": _vector(group_item(frame, shared, "PixelMeasuresSequence"), "PixelSpacing", 2),
        }
        for frame in frames
    ]


def group_item(frame: Any, shared: Any, keyword: str) -> Any:
    """Give a functional group of a frame, its own or the one that all frames share, or {} (PS3.3, C.7.6.16)."""
    for groups in (frame, shared):
        items = groups.get(keyword)
        if items:
            return items[0]
    return {}


def _name_pattern(name: str) -> re.Pattern[str] | None:
    parts = [re.escape(part) for part in re.split(r"[\^=\s]+", name) if len(part) > 2]
    return re.compile(rf"(?<!\w)(?:{'|'.join(parts)})(?!\w)", re.IGNORECASE) if parts else None
