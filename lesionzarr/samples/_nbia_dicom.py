"""DICOM objects of a made-up study, with the tags that the real files have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._nbia_plan import F18_HALF_LIFE_S, uid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from lesionzarr.samples._nbia_plan import Raster, Scanner, Subject

CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED_CT_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.2.1"
PET_IMAGE: Final = "1.2.840.10008.5.1.4.1.1.128"
SECONDARY_CAPTURE: Final = "1.2.840.10008.5.1.4.1.1.7"

INTERCEPT_HU: Final = -1024

_STUDY_S = 9 * 3600
# A PET is taken bed by bed, from the feet to the head.
_BEDS: Final = 2
_BED_S: Final = 150


def number(value: float) -> str:
    """Give a number as a decimal string, which has 16 characters at most (DICOM PS3.5, 6.2)."""
    return f"{value:.10g}"


def _clock(seconds: float) -> str:
    whole = int(seconds)
    return f"{whole // 3600:02d}{whole // 60 % 60:02d}{whole % 60:02d}.000000"


def new_object(seed: int, subject: Subject, sop_class: str, modality: str, series: int, instance: int) -> Dataset:
    """Make a DICOM object with what all objects of a study share, without pixels.

    Parameters
    ----------
    seed
        Seed of the dataset; it and the following numbers decide the UIDs.
    subject
        Whose study it is.
    sop_class, modality
        What it is.
    series, instance
        Series Number and Instance Number.

    Returns
    -------
    pydicom.Dataset
        With file meta information, to be written with `write`.
    """
    from pydicom import Dataset
    from pydicom.dataset import FileMetaDataset
    from pydicom.uid import UID, ExplicitVRLittleEndian

    day, scanner = subject.day.strftime("%Y%m%d"), subject.scanner
    made = Dataset()
    made.SpecificCharacterSet = "ISO_IR 100"
    made.SOPClassUID = sop_class
    made.SOPInstanceUID = uid(seed, subject.number, series, instance)
    made.StudyDate = made.SeriesDate = made.AcquisitionDate = made.ContentDate = day
    made.StudyTime = _clock(_STUDY_S)
    made.SeriesTime = made.AcquisitionTime = made.ContentTime = _clock(_STUDY_S + 60 * (series % 60))
    made.AccessionNumber = made.ReferringPhysicianName = made.StudyID = ""
    made.Modality = modality
    made.Manufacturer, made.ManufacturerModelName = scanner.manufacturer, scanner.model
    made.StudyDescription = scanner.study_description
    made.PatientName = made.PatientID = subject.patient_id
    made.PatientBirthDate = ""
    made.PatientSex, made.PatientAge = subject.sex, f"{subject.age:03d}Y"
    made.PatientIdentityRemoved = "YES"
    block = made.private_block(0x0013, "CTP", create=True)
    block.add_new(0x10, "LO", "Lung-PET-CT-Dx")
    made.StudyInstanceUID = uid(seed, subject.number)
    made.SeriesInstanceUID = uid(seed, subject.number, series)
    made.SeriesNumber, made.AcquisitionNumber, made.InstanceNumber = series, 1, instance
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    # its own and not pydicom's, so that the bytes do not change with its version
    made.file_meta.ImplementationClassUID = UID(uid("lesionzarr.samples"))
    made.file_meta.ImplementationVersionName = "LESIONZARR"
    return made


def write(made: Dataset, path: Path) -> None:
    """Write a DICOM object as a file in the format of DICOM PS3.10."""
    made.save_as(path, enforce_file_format=True)


def edit(path: Path, change: Callable[[Dataset], None]) -> None:
    """Read a DICOM file, change it and write it back."""
    from pydicom import dcmread

    made = dcmread(path)
    change(made)
    write(made, path)


def place(made: Dataset, seed: int, subject: Subject, raster: Raster, row: int) -> None:
    """Say where an axial slice lies; all series of a study share one frame of reference.

    Parameters
    ----------
    made
        Changed.
    seed, subject
        They decide the frame of reference.
    raster
        Grid of the series.
    row
        Slice, counted from the topmost.
    """
    position = raster.position(row)
    made.PatientPosition = "HFS"
    made.FrameOfReferenceUID = uid(seed, subject.number, "frame")
    made.PositionReferenceIndicator = ""
    made.ImagePositionPatient = [number(value) for value in position]
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    made.SliceLocation = number(position[2])
    made.SliceThickness = number(raster.interval_mm)
    made.PixelSpacing = [number(raster.pixel_mm)] * 2


def put_pixels(made: Dataset, pixels: NDArray[np.uint16], bits: int) -> None:
    """Give a DICOM object unsigned grey pixels.

    Parameters
    ----------
    made
        Changed.
    pixels
        uint16 (rows, columns) or (frames, rows, columns).
    bits
        Bits Stored.
    """
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape[-2:]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, bits, bits - 1, 0
    made.PixelData = pixels.astype("<u2").tobytes()
    made["PixelData"].VR = "OW"


def put_colours(made: Dataset, pixels: NDArray[np.uint8]) -> None:
    """Give a DICOM object colours, uint8 (rows, columns, 3)."""
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = pixels.tobytes()
    made["PixelData"].VR = "OB"


def ct_slice(seed: int, subject: Subject, series: int, kernel: int, row: int, pixels: NDArray[np.int16]) -> Dataset:
    """Make one slice of a CT.

    Parameters
    ----------
    seed, subject, series
        As `new_object` takes them.
    kernel
        0 for the lung kernel, 1 for the soft one.
    row
        Slice, counted from the topmost, which is instance 1.
    pixels
        int16 (rows, columns), HU from -1024 to 3071.

    Returns
    -------
    pydicom.Dataset
        Of 12 bits in 16, stored as HU + 1024.
    """
    made = new_object(seed, subject, CT_IMAGE, "CT", series, row + 1)
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    place(made, seed, subject, subject.ct, row)
    made.BodyPartExamined = "CHEST"
    made.KVP, made.GantryDetectorTilt = "120", "0"
    made.ReconstructionDiameter = number(subject.ct.size * subject.ct.pixel_mm)
    describe_kernel(made, subject.scanner, kernel)
    made.RescaleIntercept, made.RescaleSlope = str(INTERCEPT_HU), "1"
    put_pixels(made, (pixels - INTERCEPT_HU).astype(np.uint16), 12)
    return made


def describe_kernel(made: Dataset, scanner: Scanner, kernel: int) -> None:
    """Say which reconstruction a CT is: 0 for the lung kernel, 1 for the soft one."""
    made.SeriesDescription = scanner.series_descriptions[kernel]
    made.ConvolutionKernel = scanner.kernels[kernel]
    made.WindowCenter, made.WindowWidth = scanner.windows[kernel]


def pet_slice(
    seed: int, subject: Subject, raster: Raster, series: int, row: int, activity: NDArray[np.float32]
) -> Dataset:
    """Make one slice of a PET, with all that a standardized uptake value needs.

    Parameters
    ----------
    seed, subject, series
        As `new_object` takes them.
    raster
        Grid of the PET.
    row
        Slice, counted from the topmost, which is instance 1.
    activity
        float32 (rows, columns), Bq/ml.

    Returns
    -------
    pydicom.Dataset
        Of 16 bits, with a slope of its own, decay corrected to the start of the series.
    """
    from pydicom import Dataset

    made = new_object(seed, subject, PET_IMAGE, "PT", series, row + 1)
    made.ImageType = ["ORIGINAL", "PRIMARY"]
    place(made, seed, subject, raster, row)
    made.SeriesDescription = "PET WB"
    made.PatientWeight, made.PatientSize = number(subject.weight_kg), number(subject.height_m)
    start = _STUDY_S + 60 * series
    bed = (raster.count - 1 - row) * _BEDS // raster.count
    made.AcquisitionTime = made.ContentTime = _clock(start + bed * _BED_S)
    made.AcquisitionNumber = bed + 1
    injection = Dataset()
    injection.Radiopharmaceutical = "Fluorodeoxyglucose"
    injection.RadiopharmaceuticalStartTime = _clock(start - subject.uptake_s)
    injection.RadionuclideTotalDose = number(subject.dose_bq)
    injection.RadionuclideHalfLife = number(F18_HALF_LIFE_S)
    injection.RadionuclidePositronFraction = "0.97"
    made.RadiopharmaceuticalInformationSequence = [injection]
    made.SeriesType, made.Units, made.CountsSource = ["WHOLE BODY", "IMAGE"], "BQML", "EMISSION"
    made.CorrectedImage = ["RAN", "DTIM", "NORM", "ATTN", "SCAT", "DECY"]
    made.DecayCorrection, made.NumberOfSlices, made.ImageIndex = "START", raster.count, row + 1
    made.ActualFrameDuration, made.FrameReferenceTime = _BED_S * 1000, number(1000 * bed * _BED_S)
    made.DecayFactor = number(2 ** (bed * _BED_S / F18_HALF_LIFE_S))
    # Each slice uses the whole range of 15 bits, as Siemens scanners do.
    slope = number(max(float(activity.max()), 1.0) / 32767)
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = "0", slope, "BQML"
    put_pixels(made, np.rint(activity / float(slope)).astype(np.uint16), 16)
    return made
