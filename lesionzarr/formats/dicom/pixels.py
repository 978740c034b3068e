"""Voxels of a stack, decoded by pydicom and its plug-ins and rescaled slice by slice."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lesionzarr.errors import MissingExtraError, SourceError
from lesionzarr.formats.archive import read_ahead, read_file
from lesionzarr.formats.dicom.codestream import frame_size
from lesionzarr.formats.dicom.columns import group_item
from lesionzarr.formats.dicom.reading import quiet, read_object
from lesionzarr.formats.dicom.slices import MAX_PIXELS, MAX_VOXELS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from lesionzarr.geometry import Grid
    from lesionzarr.series import SourceFile

JPEG = "pylibjpeg pylibjpeg-libjpeg"
J2K = "pylibjpeg pylibjpeg-openjpeg"
DECODERS = {
    "1.2.840.10008.1.2.4.50": ("JPEG Baseline", JPEG),
    "1.2.840.10008.1.2.4.51": ("JPEG Extended", JPEG),
    "1.2.840.10008.1.2.4.57": ("JPEG Lossless", JPEG),
    "1.2.840.10008.1.2.4.70": ("JPEG Lossless SV1", JPEG),
    "1.2.840.10008.1.2.4.80": ("JPEG-LS Lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.81": ("JPEG-LS Near-lossless", "pyjpegls"),
    "1.2.840.10008.1.2.4.90": ("JPEG 2000 Lossless", J2K),
    "1.2.840.10008.1.2.4.91": ("JPEG 2000", J2K),
    "1.2.840.10008.1.2.4.201": ("HTJ2K Lossless", J2K),
    "1.2.840.10008.1.2.4.202": ("HTJ2K Lossless RPCL", J2K),
    "1.2.840.10008.1.2.4.203": ("HTJ2K", J2K),
    "1.2.840.10008.1.2.5": ("RLE Lossless", "pylibjpeg pylibjpeg-rle"),
}
"""Compressed transfer syntaxes (PS3.5, A.4): name, and packages that decode them."""


class Sliced(Protocol):
    """What is read: a `Stack`, or a `lesionzarr.series.Volume` made of one."""

    @property
    def modality(self) -> str:
        """``CT`` or ``PT``."""

    @property
    def grid(self) -> Grid:
        """With the shape of the voxels."""

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """One per slice."""

    @property
    def frames(self) -> tuple[int, ...] | None:
        """0-based frame of each slice in its file; None where every file is one slice."""


def read_stack(stack: Sliced) -> NDArray[Any]:
    """Read the voxels of a stack.

    Parameters
    ----------
    stack
        As `lesionzarr.formats.dicom.find_stacks` gives it, or a volume made of that.

    Returns
    -------
    ndarray
        Shape (z, y, x). CT: int16 HU, where a fraction is rounded to the nearest whole. PET: float32, stored value
        times slope plus intercept, in the unit that the tag Units names (Bq/ml as a rule). Each slice has its own
        rescale. Pixels outside of the image keep the value that the file gives them.

    Raises
    ------
    SourceError
        A slice that is gone, damaged, of another size than its header, or whose HU leave int16; it names the file.
    MissingExtraError
        Nothing installed decodes the transfer syntax; it names the packages that do.
    """
    voxels = np.empty(stack.grid.shape, np.int16 if stack.modality == "CT" else np.float32)
    frames = stack.frames or (None,) * len(stack.files)
    rows = zip(stack.files, frames, voxels, strict=True)
    reads = read_ahead(read_file, (file for file, _ in groupby(stack.files)))
    for (file, planes), data in zip(groupby(rows, key=lambda row: row[0]), reads, strict=True):
        dataset = read_object(data(), file.name)
        _check_size(dataset, stack, file)
        for _, frame, plane in planes:
            stored = _decode(dataset, frame, file)
            slope, intercept = _rescale(dataset, frame, file)
            if stack.modality == "CT":
                plane[:] = _to_hu(stored, slope, intercept, file)
            else:
                plane[:] = stored * slope + intercept
    return voxels


def _check_size(dataset: Any, stack: Sliced, file: SourceFile) -> None:
    size = dataset.get("Rows"), dataset.get("Columns")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if size != stack.grid.shape[1:] or dataset.get("SamplesPerPixel", 1) != 1:
        text = f"{file.name}: {size} pixels where the scan found {stack.grid.shape[1:]}; scan the source again"
        raise SourceError(text, file.name)
    pixels = size[0] * size[1]
    if pixels > MAX_PIXELS or pixels * frames > MAX_VOXELS:
        raise SourceError(f"{file.name}: {frames} frames of {size} pixels are more than is read", file.name)
    if "PixelData" not in dataset:
        raise SourceError(f"{file.name}: no pixel data; fetch the file again", file.name)
    if not _syntax(dataset).is_encapsulated:
        stated = pixels * frames * ((dataset.get("BitsAllocated") or 0) // 8)
        if len(dataset.PixelData) not in {stated, stated + stated % 2}:
            text = f"{file.name}: pixel data of {len(dataset.PixelData)} bytes where its size says {stated}"
            raise SourceError(f"{text}; fetch the file again", file.name)


def _decode(dataset: Any, frame: int | None, file: SourceFile) -> NDArray[Any]:
    from pydicom.pixels import get_decoder

    syntax = _syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        text = f"{file.name}: transfer syntax {syntax} is not known; re-save it as JPEG 2000 or uncompressed"
        raise SourceError(text, file.name) from error
    if not decoder.is_available:
        name, packages = DECODERS.get(str(syntax), (str(syntax), JPEG))
        raise MissingExtraError(f"{file.name}: {name} needs another package: pip install {packages}")
    index = frame or 0
    if syntax.is_encapsulated:
        _check_frame(dataset, index, file)
    with quiet():
        try:
            array, _ = decoder.as_array(dataset, index=index, raw=True)
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as error:  # plug-ins raise what they run into; a panic of pylibjpeg-rle is no Exception
            text = " ".join(str(error).split())[:200]
            raise SourceError(f"{file.name}: cannot be decoded ({text}); fetch the file again", file.name) from error
    decoded: NDArray[Any] = array
    return decoded


def _check_frame(dataset: Any, index: int, file: SourceFile) -> None:
    """Refuse a compressed frame whose own header says another size than the object's."""
    from pydicom.encaps import get_frame

    frames = int(dataset.get("NumberOfFrames") or 1)
    offsets = dataset.get("ExtendedOffsetTable"), dataset.get("ExtendedOffsetTableLengths")
    try:
        data = get_frame(
            dataset.PixelData, index, number_of_frames=frames, extended_offsets=offsets if all(offsets) else None
        )
    except Exception as error:  # as above
        raise SourceError(f"{file.name}: no compressed frame {index} ({error}); fetch it again", file.name) from error
    size = frame_size(data)
    if size is not None and size != (dataset.Rows, dataset.Columns, 1):
        text = f"{file.name}: its compressed frame is {size[0]} x {size[1]} pixels of {size[2]} components"
        raise SourceError(f"{text}, its header says {dataset.Rows} x {dataset.Columns} of 1; not decoded", file.name)


def _rescale(dataset: Any, frame: int | None, file: SourceFile) -> tuple[float, float]:
    source = dataset
    if frame is not None:
        shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
        own = dataset.PerFrameFunctionalGroupsSequence[frame]
        source = group_item(own, shared, "PixelValueTransformationSequence") or dataset
    slope, intercept = source.get("RescaleSlope"), source.get("RescaleIntercept")
    if slope is None or intercept is None:
        raise SourceError(f"{file.name}: Rescale Slope or Intercept is absent: its values have no unit", file.name)
    return float(slope), float(intercept)


def _to_hu(stored: NDArray[Any], slope: float, intercept: float, file: SourceFile) -> NDArray[np.int16]:
    if slope.is_integer() and intercept.is_integer():
        hu: NDArray[Any] = stored.astype(np.int64) * int(slope) + int(intercept)
    else:
        hu = np.rint(stored * slope + intercept)
    low, high = hu.min(), hu.max()
    limits = np.iinfo(np.int16)
    if low < limits.min or high > limits.max:
        text = f"{file.name}: HU from {low:g} to {high:g} do not fit into 16 bits (slope {slope:g}, {intercept:g})"
        raise SourceError(f"{text}; is its rescale right?", file.name)
    return hu.astype(np.int16)


def _syntax(dataset: Any) -> Any:
    from pydicom.uid import ImplicitVRLittleEndian

    return dataset.file_meta.get("TransferSyntaxUID", ImplicitVRLittleEndian)
