"""What of a header may leave it.

By default only the attributes of `ALLOWED` reach a store: technique, descriptions, dates, what SUV needs, and of the
patient sex, age, weight and size. Names, birth dates, addresses, institutions, operators, accession numbers and private
elements have no place in the table of headers, so that nothing can pass them on; a description that holds a part of
the patient's name is dropped when the header is read. Dates and descriptions stay (the options Retain Longitudinal
Temporal Information and, unclean, descriptors of PS3.15, E.3): a collection that was not de-identified before is not by
this.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import TYPE_CHECKING, Any

from lesionzarr.formats.archive import read_ahead, read_file
from lesionzarr.formats.dicom.reading import quiet, read_object

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.series import SourceFile

ALLOWED = {
    "image_type": "ImageType",
    "series_description": "SeriesDescription",
    "study_description": "StudyDescription",
    "protocol": "ProtocolName",
    "series_number": "SeriesNumber",
    "study_date": "StudyDate",
    "series_date": "SeriesDate",
    "series_time": "SeriesTime",
    "acquisition_date": "AcquisitionDate",
    "acquisition_time": "AcquisitionTime",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "kernel": "ConvolutionKernel",
    "contrast": "ContrastBolusAgent",
    "body_part": "BodyPartExamined",
    "patient_position": "PatientPosition",
    "slice_thickness": "SliceThickness",
    "kvp": "KVP",
    "tilt": "GantryDetectorTilt",
    "transfer_syntax": "TransferSyntaxUID",
    "sop_class_uid": "SOPClassUID",
    "sex": "PatientSex",
    "age": "PatientAge",
    "weight": "PatientWeight",
    "height": "PatientSize",
    "units": "Units",
    "suv_type": "SUVType",
    "corrected_image": "CorrectedImage",
    "decay_correction": "DecayCorrection",
    "start_time": "RadiopharmaceuticalStartTime",
    "start_datetime": "RadiopharmaceuticalStartDateTime",
    "dose": "RadionuclideTotalDose",
    "half_life": "RadionuclideHalfLife",
    "ge_scan_datetime": "GEPrivatePostInjectionDateTime",
    "philips_suv_factor": "PhilipsSUVScaleFactor",
    "philips_activity_factor": "PhilipsActivityConcentrationScaleFactor",
}
"""Column of the table of headers to keyword. The last three are private elements, named as in calculate-suv: a time and
two factors, which tell nothing of the patient (the factors are in the list of safe private attributes, PS3.15, E.3.10).
"""

MAX_BINARY = 4096
"""Length of a binary value in base64 that `header_json` keeps: lookup tables and vendors' blocks are longer."""
PIXELS = {"7FE00008", "7FE00009", "7FE00010"}


def allowed_tags(rows: Sequence[dict[str, Any]], acquired: dict[str, Any]) -> dict[str, Any]:
    """Give the allowed attributes of a stack.

    Parameters
    ----------
    rows
        Header rows of its slices.
    acquired
        Date and time of the first acquisition of the series, by column; they stand for those of the slices.

    Returns
    -------
    dict
        JSON value by keyword; several values of one attribute are parted by a backslash as in the file. Absent
        attributes, and those whose value differs between slices, are left out.
    """
    first = rows[0]
    tags = {}
    for column, keyword in ALLOWED.items():
        if column in acquired:
            value = acquired[column]
        else:
            value = first[column] if all(row[column] == first[column] for row in rows) else None
        if value is not None:
            tags[keyword] = value
    return tags


def header_json(dataset: Any) -> dict[str, Any]:
    """Give a whole header in the DICOM JSON model (PS3.18, F), names and private elements included.

    Only for those who ask for it: nothing is de-identified.

    Parameters
    ----------
    dataset
        A pydicom dataset.

    Returns
    -------
    dict
        By tag as eight hexadecimal digits. Without pixel data at any depth, binary values longer than `MAX_BINARY`,
        and values that cannot be told in JSON.
    """
    with quiet():
        header = dataset.to_json_dict(
            bulk_data_threshold=MAX_BINARY, bulk_data_element_handler=lambda _: "", suppress_invalid_tags=True
        )
    return _without_bulk(header)


def file_headers(files: Sequence[SourceFile]) -> dict[str, Any]:
    """Read the full headers of files, for those who ask for them.

    Parameters
    ----------
    files
        Each is read whole, once.

    Returns
    -------
    dict
        ``common``: the attributes that are the same in every file, in the DICOM JSON model; ``files``: for each file,
        in order, those that are not.

    Raises
    ------
    SourceError
        A file that cannot be read.
    """
    once = list(dict.fromkeys(files))
    reads = zip(once, read_ahead(read_file, once), strict=True)
    headers = [header_json(read_object(data(), file.name)) for file, data in reads]
    first = headers[0]
    common = {tag for tag, value in first.items() if all(header.get(tag) == value for header in headers)}
    return {
        "common": {tag: value for tag, value in first.items() if tag in common},
        "files": [{tag: value for tag, value in header.items() if tag not in common} for header in headers],
    }


def remap_uid(uid: str, key: bytes) -> str:
    """Give another UID for a UID: the same for the same key, not to be turned back without it.

    Parameters
    ----------
    uid
        Any UID.
    key
        The secret; at least 16 bytes make guessing hopeless.

    Returns
    -------
    str
        ``2.25.`` and a number of 128 bits (PS3.5, B.2), from HMAC-SHA-256 of the UID.
    """
    digest = hmac.new(key, uid.encode(), hashlib.sha256).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"


def _without_bulk(header: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for tag, element in header.items():
        if tag in PIXELS or "BulkDataURI" in element:
            continue
        is_sequence = element["vr"] == "SQ" and "Value" in element
        kept[tag] = element | {"Value": [_without_bulk(item) for item in element["Value"]]} if is_sequence else element
    return kept
