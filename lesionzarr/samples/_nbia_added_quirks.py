"""Quirks that add a series or a file: what lies among the CT and PET series of the real collection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._nbia_dicom import (
    CT_IMAGE,
    ENHANCED_CT_IMAGE,
    INTERCEPT_HU,
    SECONDARY_CAPTURE,
    describe_kernel,
    new_object,
    number,
    place,
    put_colours,
    put_pixels,
    write,
)
from lesionzarr.samples._nbia_draft import quirk, read_hu
from lesionzarr.samples._nbia_plan import uid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from pydicom import Dataset

    from lesionzarr.samples._nbia_draft import Draft, Quirk, Series
    from lesionzarr.samples._nbia_plan import Subject

# Run-length code for 128 zeros (DICOM PS3.5, G.3.2).
_ZEROS: Final = b"\x81\x00"


def _add(draft: Draft, subject: Subject, objects: Sequence[Dataset]) -> Series:
    series = draft.add_series(subject, objects)
    draft.spent.add(series.uid)
    return series


def _read_host(draft: Draft) -> tuple[Subject, Series, NDArray[np.int16]]:
    subject = draft.host()
    soft = draft.reconstructions(subject)[1]
    return subject, soft, read_hu(soft)


def _grey(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    return (np.clip((hu.astype(np.float64) + 135) / 350, 0, 1) * 255).astype(np.uint8)


@quirk("a series of one coronal localizer")
def localizer(draft: Draft) -> None:
    subject, _, hu = _read_host(draft)
    raster = subject.ct
    made = new_object(draft.seed, subject, CT_IMAGE, "CT", 1, 1)
    made.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    made.SeriesDescription = "Topogram  0.6  T20s"
    place(made, draft.seed, subject, raster, 0)
    x, y, z = raster.corner_mm
    made.ImagePositionPatient = [number(value) for value in (x, y + raster.size / 2 * raster.pixel_mm, z)]
    made.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    made.PixelSpacing = [number(raster.interval_mm), number(raster.pixel_mm)]
    made.RescaleIntercept, made.RescaleSlope = str(INTERCEPT_HU), "1"
    put_pixels(made, np.rint(hu.mean(axis=1) - INTERCEPT_HU).astype(np.uint16), 12)
    _add(draft, subject, [made])


@quirk("the annotated series of one subject is a fused PET and CT in colour, without any geometry")
def rgb_secondary_capture(draft: Draft) -> None:
    subject, soft, hu = _read_host(draft)
    marks = [mark for mark in draft.marks if mark.series is soft]
    objects = []
    for instance, mark in enumerate(marks, 1):
        made = new_object(draft.seed, subject, SECONDARY_CAPTURE, "CT", 605, instance)
        made.ImageType, made.ConversionType = ["DERIVED", "SECONDARY"], "WSD"
        made.SeriesDescription = "Fused MPR"
        pixels = np.repeat(_grey(hu[mark.row])[:, :, None], 3, axis=2)
        x0, y0, x1, y1 = mark.box
        pixels[y0 : y1 + 1, x0 : x1 + 1, 0] = 255
        put_colours(made, pixels)
        objects.append(made)
    series = _add(draft, subject, objects)
    # The tumour is marked here and nowhere else.
    for row, mark in enumerate(marks):
        draft.add_mark(series, row, mark.box)
    for mark in [mark for mark in draft.marks if mark.series in draft.reconstructions(subject)]:
        mark.path.unlink()
        draft.marks.remove(mark)


@quirk("a series of one page of text in colour, without pixel spacing")
def dose_page(draft: Draft) -> None:
    subject = draft.host()
    made = new_object(draft.seed, subject, SECONDARY_CAPTURE, "CT", 999, 1)
    made.ImageType, made.ConversionType = ["DERIVED", "SECONDARY", "DOSE_INFO"], "WSD"
    made.SeriesDescription, made.ImageComments = "Exam Summary", "Dose Information"
    pixels = np.zeros((128, 160, 3), np.uint8)
    pixels[12:116:10, 12:100] = 255
    put_colours(made, pixels)
    _add(draft, subject, [made])


@quirk("a series that is one multi-frame file, its frames from the feet to the head")
def enhanced_multiframe(draft: Draft) -> None:
    from pydicom import Dataset

    subject, _, hu = _read_host(draft)
    raster = subject.ct
    made = new_object(draft.seed, subject, ENHANCED_CT_IMAGE, "CT", 7, 1)
    place(made, draft.seed, subject, raster, 0)
    made.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    describe_kernel(made, subject.scanner, 1)
    made.SeriesDescription = "Enhanced"
    measures, orientation, rescale, shared = Dataset(), Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = made.PixelSpacing, made.SliceThickness
    orientation.ImageOrientationPatient = made.ImageOrientationPatient
    rescale.RescaleIntercept, rescale.RescaleSlope, rescale.RescaleType = str(INTERCEPT_HU), "1", "HU"
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
    shared.PixelValueTransformationSequence = [rescale]
    made.SharedFunctionalGroupsSequence = [shared]
    rows = range(raster.count)[::-1]
    made.PerFrameFunctionalGroupsSequence = [_frame(raster.position(row)) for row in rows]
    # In an enhanced object these belong to the frames alone.
    for name in (
        *("ImagePositionPatient", "ImageOrientationPatient", "SliceLocation", "SliceThickness", "PixelSpacing"),
        *("ConvolutionKernel", "WindowCenter", "WindowWidth"),
    ):
        delattr(made, name)
    made.NumberOfFrames = raster.count
    put_pixels(made, (hu[::-1] - INTERCEPT_HU).astype(np.uint16), 12)
    _add(draft, subject, [made])


def _frame(position: tuple[float, float, float]) -> Dataset:
    from pydicom import Dataset

    frame, plane = Dataset(), Dataset()
    plane.ImagePositionPatient = [number(value) for value in position]
    frame.PlanePositionSequence = [plane]
    return frame


@quirk("a series of one small compressed file that claims 65535 rows and columns")
def bomb(draft: Draft) -> None:
    from pydicom.encaps import encapsulate
    from pydicom.uid import RLELossless

    subject = draft.host()
    made = new_object(draft.seed, subject, CT_IMAGE, "CT", 8, 1)
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    place(made, draft.seed, subject, subject.ct, 0)
    describe_kernel(made, subject.scanner, 1)
    made.SeriesDescription = "Thorax large"
    made.RescaleIntercept, made.RescaleSlope = str(INTERCEPT_HU), "1"
    put_pixels(made, np.zeros((1, 1), np.uint16), 12)
    made.Rows = made.Columns = 65535
    segment = 64 * _ZEROS
    offsets = [2, 64, 64 + len(segment), *[0] * 13]
    frame = b"".join(value.to_bytes(4, "little") for value in offsets) + 2 * segment
    made.file_meta.TransferSyntaxUID = RLELossless
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    _add(draft, subject, [made])


@quirk("a directory file without pixels lies in the folder of a CT series")
def dicomdir_file(draft: Draft) -> None:
    from pydicom import Dataset
    from pydicom.uid import UID, MediaStorageDirectoryStorage

    subject = draft.host()
    series = draft.reconstructions(subject)[0]
    record, directory = Dataset(), new_object(draft.seed, subject, CT_IMAGE, "CT", series.number, 1)
    record.DirectoryRecordType = "IMAGE"
    record.ReferencedFileID = [subject.short_id, "S2", "I1"]
    record.SOPClassUID, record.SOPInstanceUID = CT_IMAGE, series.sop_uids[0]
    made = Dataset()
    made.FileSetID = ""
    made.DirectoryRecordSequence = [record]
    made.file_meta = directory.file_meta
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = UID(uid(draft.seed, "directory"))
    write(made, series.folder / "DIRFILE")


@quirk("a file of a CT series' folder with the name of a slice is no DICOM but a page of HTML")
def not_dicom(draft: Draft) -> None:
    series = draft.reconstructions(draft.host())[0]
    page = "<html><head><title>503 Service Unavailable</title></head><body>Try again later.</body></html>\n"
    (series.folder / "1-00.dcm").write_text(page, encoding="utf-8")


ADDED_QUIRKS: Final[tuple[Quirk, ...]] = (
    localizer,
    rgb_secondary_capture,
    dose_page,
    enhanced_multiframe,
    bomb,
    dicomdir_file,
    not_dicom,
)
