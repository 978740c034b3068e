"""Quirks of a series or one of its slices."""

from __future__ import annotations

import math
import shutil
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from lesionzarr.samples._nbia_dicom import PET_IMAGE, edit, number, put_pixels, write
from lesionzarr.samples._nbia_draft import name_file, quirk

if TYPE_CHECKING:
    from pathlib import Path

    from pydicom import Dataset
    from pydicom.uid import UID

    from lesionzarr.samples._nbia_draft import Draft, Quirk, Series

TILT_DEGREES: Final = 12.0
PADDING: Final = -2000

SECRETS: Final = ("Musterfrau", "Erika", "19500817", "Nowhere", "X-4711")
"""Texts of `private_tags` that must never reach a store."""


def _take_slice(draft: Draft) -> Path:
    series = draft.take_series()
    return series.files[draft.spare_row(series)]


def _change_all(series: Series, **tags: Any) -> None:
    """Set tags in all files of a series; None takes one away."""

    def change(made: Dataset) -> None:
        for name, value in tags.items():
            if value is None:
                delattr(made, name)
            else:
                setattr(made, name, value)

    for path in series.files:
        edit(path, change)


@quirk("both CT series of a subject lie in one folder; metadata.csv still tells two")
def two_series_in_one_folder(draft: Draft) -> None:
    subject = draft.host()
    first, second = draft.reconstructions(subject)
    draft.spent.update((first.uid, second.uid))
    emptied = second.folder
    second.folder = first.folder
    for row, path in enumerate(second.files):
        second.files[row] = path.rename(first.folder / name_file(2, row + 1, len(second.files)))
    emptied.rmdir()


@quirk("a slice lies in its folder twice, byte for byte, under two names")
def duplicate_slice(draft: Draft) -> None:
    series = draft.take_series()
    copy = series.folder / name_file(2, draft.spare_row(series) + 1, len(series.files))
    shutil.copyfile(series.files[draft.spare_row(series)], copy)


@quirk("a series has two different images at one position")
def duplicate_position(draft: Draft) -> None:
    from pydicom import dcmread

    series = draft.take_series()
    made = dcmread(series.files[draft.spare_row(series)])
    made.SOPInstanceUID = draft.new_uid("position")
    made.AcquisitionNumber, made.InstanceNumber = 2, len(series.files) + 1
    put_pixels(made, made.pixel_array[:, ::-1], 12)
    write(made, series.folder / name_file(2, len(series.files) + 1, len(series.files)))


@quirk("a slice inside a series is absent")
def missing_slice(draft: Draft) -> None:
    _take_slice(draft).unlink()


@quirk("the lower half of a series has slices half as far again from each other")
def uneven_spacing(draft: Draft) -> None:
    series = draft.take_series()
    raster, middle = series.subject.ct, len(series.files) // 2
    for row in range(middle, len(series.files)):
        x, y, z = raster.position(row)
        z -= 0.5 * (row - middle + 1) * raster.interval_mm
        position = [number(value) for value in (x, y, z)]

        def move(made: Dataset, position: list[str] = position) -> None:
            made.ImagePositionPatient, made.SliceLocation = position, position[2]

        edit(series.files[row], move)


@quirk("the gantry of a series was tilted, so that its slices are no right angle to the way of the table")
def gantry_tilt(draft: Draft) -> None:
    series = draft.take_series()
    raster = series.subject.ct
    cos, sin = (function(math.radians(TILT_DEGREES)) for function in (math.cos, math.sin))
    half = (raster.size - 1) / 2 * raster.pixel_mm
    for row, path in enumerate(series.files):
        x, y, z = raster.position(row)
        # Turned round the middle of the slice, which stays on the table's way.
        position = [number(value) for value in (x, y + half * (1 - cos), round(z + half * sin, 6))]

        def tilt(made: Dataset, position: list[str] = position) -> None:
            made.ImagePositionPatient, made.GantryDetectorTilt = position, number(TILT_DEGREES)
            made.ImageOrientationPatient = ["1", "0", "0", "0", number(cos), number(-sin)]

        edit(path, tilt)


@quirk("a slice has half as many rows and columns as the rest of its series")
def mixed_size(draft: Draft) -> None:
    def halve(made: Dataset) -> None:
        put_pixels(made, made.pixel_array[::2, ::2], 12)
        made.PixelSpacing = [number(2 * float(step)) for step in made.PixelSpacing]

    edit(_take_slice(draft), halve)


@quirk("the slices of a series say nothing of their pixel spacing")
def missing_pixel_spacing(draft: Draft) -> None:
    _change_all(draft.take_series(), PixelSpacing=None)


@quirk("the slices of a series say nothing of their position")
def missing_position(draft: Draft) -> None:
    _change_all(draft.take_series(), ImagePositionPatient=None, SliceLocation=None)


@quirk("a slice has pixel data of no length")
def zero_pixel_data(draft: Draft) -> None:
    def empty(made: Dataset) -> None:
        made.PixelData = b""

    edit(_take_slice(draft), empty)


@quirk("a slice has half as many pixels as its rows and columns need, in a file that is whole")
def wrong_length(draft: Draft) -> None:
    def halve(made: Dataset) -> None:
        made.PixelData = made.PixelData[: made.Rows * made.Columns]

    edit(_take_slice(draft), halve)


@quirk("a slice file ends in the middle of its pixels")
def truncated_dicom(draft: Draft) -> None:
    series = draft.take_series()
    path = series.files[draft.spare_row(series)]
    data = path.read_bytes()
    path.write_bytes(data[: -(series.subject.ct.size**2)])


@quirk("the pixels of a series are signed, with padding outside the reconstruction circle, as GE writes them")
def signed_pixels(draft: Draft) -> None:
    def sign(made: Dataset) -> None:
        y, x = np.ogrid[: made.Rows, : made.Columns]
        middle = (made.Rows - 1) / 2
        outside = (x - middle) ** 2 + (y - middle) ** 2 > (made.Rows / 2) ** 2
        stored = np.where(outside, PADDING, made.pixel_array.astype(np.int16))
        put_pixels(made, stored.astype(np.int16).view(np.uint16), 16)
        made.PixelRepresentation = 1
        made.add_new("PixelPaddingValue", "SS", PADDING)

    for path in draft.take_series().files:
        edit(path, sign)


@quirk("the slices of a series are compressed with RLE")
def rle_compressed(draft: Draft) -> None:
    from pydicom.uid import RLELossless

    for path in draft.take_series().files:
        edit(path, lambda made: made.compress(RLELossless, generate_instance_uid=False))


@quirk("the files of a series are deflated")
def deflated(draft: Draft) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    _change_syntax(draft, DeflatedExplicitVRLittleEndian)


@quirk("the files of a series leave the types of their tags implicit")
def implicit_vr(draft: Draft) -> None:
    from pydicom.uid import ImplicitVRLittleEndian

    _change_syntax(draft, ImplicitVRLittleEndian)


def _change_syntax(draft: Draft, syntax: UID) -> None:
    def change(made: Dataset) -> None:
        made.file_meta.TransferSyntaxUID = syntax

    for path in draft.take_series().files:
        edit(path, change)


@quirk("the file names of a series are in no order, while its instance numbers still count from the top")
def instance_order(draft: Draft) -> None:
    series = draft.take_series()
    order = np.random.default_rng((draft.seed, 0)).permutation(len(series.files))
    contents = [path.read_bytes() for path in series.files]
    series.files = [series.files[position] for position in order]
    for path, data in zip(series.files, contents, strict=True):
        path.write_bytes(data)


@quirk("a series names its patient, with birth date and address, in standard and in private tags")
def private_tags(draft: Draft) -> None:
    from pydicom import Dataset

    name, born = "Musterfrau^Erika", "19500817"

    def tell(made: Dataset) -> None:
        made.PatientName = made.OtherPatientNames = name
        made.PatientBirthDate, made.PatientAddress = born, "Nowhere Lane 1"
        made.OtherPatientIDs, made.InstitutionName = "X-4711", "Nowhere Hospital"
        made.ReferringPhysicianName = name
        made.ImageComments = "Mrs Erika Musterfrau, patient X-4711"
        request = Dataset()
        request.RequestedProcedureDescription = "CT of Erika Musterfrau"
        made.RequestAttributesSequence = [request]
        block = made.private_block(0x0029, "LESIONZARR SAMPLE", create=True)
        block.add_new(0x10, "PN", name)
        block.add_new(0x11, "DA", born)
        block.add_new(0x12, "OB", b"Erika Musterfrau")
        block.add_new(0x13, "SQ", [request])

    for path in draft.take_series().files:
        edit(path, tell)


@quirk("the slices of a PET say nothing of the patient's weight")
def no_weight(draft: Draft) -> None:
    _change_all(draft.take_series(PET_IMAGE), PatientWeight=None)


@quirk("the slices of a PET give the patient a weight of 0 kg")
def zero_weight(draft: Draft) -> None:
    _change_all(draft.take_series(PET_IMAGE), PatientWeight="0")


FOLDER_QUIRKS: Final[tuple[Quirk, ...]] = (two_series_in_one_folder,)

IMAGE_QUIRKS: Final[tuple[Quirk, ...]] = (
    duplicate_slice,
    duplicate_position,
    missing_slice,
    uneven_spacing,
    gantry_tilt,
    mixed_size,
    missing_pixel_spacing,
    missing_position,
    zero_pixel_data,
    wrong_length,
    truncated_dicom,
    signed_pixels,
    rle_compressed,
    deflated,
    implicit_vr,
    instance_order,
    private_tags,
    no_weight,
    zero_weight,
)
