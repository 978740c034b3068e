"""DICOM: headers of a whole collection, the evenly spaced stacks that they make up, and their voxels.

::

    scan_headers   folders and zips  ->  one table row per object, no pixel data read
    find_stacks    the table         ->  stacks of CT and PET slices, and the reason for every object left out
    read_stack     one stack         ->  voxels, int16 HU or float32 Bq/ml

The places and names of files mean nothing here: what belongs together and in which order is told by the headers.
Needs the extra ``lesionzarr[dicom]`` to read, not to import.
"""

from lesionzarr.formats.dicom.classify import classify
from lesionzarr.formats.dicom.deid import file_headers, header_json, remap_uid
from lesionzarr.formats.dicom.headers import Headers, scan_headers
from lesionzarr.formats.dicom.pixels import read_stack
from lesionzarr.formats.dicom.stacks import Stack, Stacks, find_stacks

__all__ = [
    "Headers",
    "Stack",
    "Stacks",
    "classify",
    "file_headers",
    "find_stacks",
    "header_json",
    "read_stack",
    "remap_uid",
    "scan_headers",
]
