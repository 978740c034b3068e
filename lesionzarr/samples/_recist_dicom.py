"""DICOM series of a made-up recist-dataset in its ``raw`` layout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._nbia_dicom import CT_IMAGE, number, put_pixels, write
from lesionzarr.samples._nbia_plan import uid

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from lesionzarr.samples._recist_plan import Scan

INTERCEPT_HU: Final = -1024
DESCRIPTIONS: Final = {"abdomen": "Portal   5.0  I30f  1   iMAR", "thorax": "Torax Cte  1.5  I70f  2"}
"""Of the series, and names of their folders, with the runs of blanks that the real ones have."""


def write_series(folder: Path, scan: Scan, voxels: NDArray[np.int16]) -> None:
    """Write a series as ``<patient>/<study>/<description>/CT000000.dcm`` and so on, the topmost slice first.

    Parameters
    ----------
    folder
        That of the patients.
    scan
        Whose it is.
    voxels
        int16 (z, y, x), HU from -1024 to 3071; z grows to the head.
    """
    description = DESCRIPTIONS[scan.region]
    own = folder / str(scan.patient) / scan.study_uid[-7:] / description
    own.mkdir(parents=True)
    for row, pixels in enumerate(voxels[::-1]):
        made = _slice(scan, description, row)
        put_pixels(made, (pixels - INTERCEPT_HU).astype(np.uint16), 12)
        write(made, own / f"CT{row:06d}.dcm")


def _slice(scan: Scan, description: str, row: int) -> Dataset:
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    x, y, z = scan.corner_mm
    interval, row_mm, column_mm = scan.spacing_mm
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.SOPClassUID, made.SOPInstanceUID = CT_IMAGE, uid(scan.uid, row)
    made.StudyDate = made.SeriesDate = f"{scan.day:%Y%m%d}"
    made.StudyTime = "090000.000000"
    made.Modality, made.Manufacturer = "CT", "SIEMENS"
    made.SeriesDescription = description
    made.PatientName = made.PatientID = str(scan.patient)
    made.StudyInstanceUID, made.SeriesInstanceUID = scan.study_uid, scan.uid
    made.SeriesNumber, made.AcquisitionNumber, made.InstanceNumber = 1, 1, row + 1
    made.FrameOfReferenceUID = uid(scan.study_uid, "frame")
    made.PatientPosition = "HFS"
    made.ImagePositionPatient = [number(v) for v in (x, y, z + (scan.shape[0] - 1 - row) * interval)]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.SliceThickness = number(interval)
    made.PixelSpacing = [number(row_mm), number(column_mm)]
    made.RescaleIntercept, made.RescaleSlope = str(INTERCEPT_HU), "1"
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.ImplementationClassUID = UID(uid("lesionzarr.samples"))
    made.file_meta.ImplementationVersionName = "LESIONZARR"
    return made
