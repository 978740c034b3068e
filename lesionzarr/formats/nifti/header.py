"""Headers of NIfTI (NIfTI-1 and NIfTI-2 data formats, nifti.nimh.nih.gov: ``nifti1.h``, ``nifti2.h``)."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import numpy as np

from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import open_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from lesionzarr.geometry import Affine
    from lesionzarr.series import SourceFile

GZIP_MARK = b"\x1f\x8b"
GZIP_RATIO = 1032
"""Most bytes that one byte of deflate can stand for."""
MAX_VOXELS = 2**31

DTYPES = dict(
    zip(
        (2, 4, 8, 16, 64, 256, 512, 768, 1024, 1280),
        ("u1", "i2", "i4", "f4", "f8", "i1", "u2", "u4", "i8", "u8"),
        strict=True,
    )
)
"""By the code of the data type. Complex numbers, colours and long doubles are no CT."""
UNITS_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}
"""mm in the unit of length, by its code: not told, m, mm, micrometre."""


class _Form(NamedTuple):
    """Where the fields of a version stand: format and offset."""

    header_bytes: int
    magic: tuple[int, bytes, bytes]
    """Offset; the mark of a single file, and that of a header whose voxels are in another file."""
    fields: dict[str, tuple[str, int]]


NIFTI1 = _Form(
    348,
    (344, b"n+1\0", b"ni1\0"),
    {
        "dim": ("8h", 40),
        "datatype": ("h", 70),
        "pixdim": ("8f", 76),
        "vox_offset": ("f", 108),
        "scl_slope": ("f", 112),
        "scl_inter": ("f", 116),
        "xyzt_units": ("B", 123),
        "descrip": ("80s", 148),
        "qform_code": ("h", 252),
        "sform_code": ("h", 254),
        "quatern": ("6f", 256),
        "srow": ("12f", 280),
    },
)
NIFTI2 = _Form(
    540,
    (4, b"n+2\0", b"ni2\0"),
    {
        "dim": ("8q", 16),
        "datatype": ("h", 12),
        "pixdim": ("8d", 104),
        "vox_offset": ("q", 168),
        "scl_slope": ("d", 176),
        "scl_inter": ("d", 184),
        "xyzt_units": ("i", 500),
        "descrip": ("80s", 240),
        "qform_code": ("i", 344),
        "sform_code": ("i", 348),
        "quatern": ("6d", 352),
        "srow": ("12d", 400),
    },
)


@dataclass(frozen=True)
class NiftiHeader:
    """What the header of a 3D image says."""

    shape: tuple[int, int, int]
    """Voxels along the stored axes (i, j, k), of which i runs fastest in the file."""
    dtype: np.dtype[Any]
    """As stored, with its byte order."""
    spacing_mm: tuple[float, float, float]
    """Of the stored axes (i, j, k)."""
    affine: Affine | None
    """Three rows of four: stored index (i, j, k, 1) to LPS position (x, y, z) in mm; None where the file gives none.
    NIfTI itself counts x to the right and y to the front (RAS)."""
    affine_from: str | None
    """``"sform"``, which goes first, ``"qform"`` or None."""
    slope: float
    """A voxel is its stored value times this,"""
    inter: float
    """plus this."""
    offset: int
    """Byte, unpacked, at which the voxels begin."""
    description: str
    """What wrote the file, as a rule."""

    @property
    def codes(self) -> str | None:
        """Where the stored axes grow to, such as ``"LAS"`` for left, front and head; None without an affine."""
        if self.affine is None:
            return None
        matrix = np.asarray(self.affine)[:, :3]
        nearest = np.abs(matrix).argmax(axis=0)
        return "".join("LPS"[axis] if matrix[axis, i] > 0 else "RAI"[axis] for i, axis in enumerate(nearest))

    @property
    def data_bytes(self) -> int:
        """Size of the voxels as stored, unpacked."""
        return math.prod(self.shape) * self.dtype.itemsize


def read_nifti_header(file: SourceFile) -> NiftiHeader:
    """Read the header of an image, and no voxel.

    Parameters
    ----------
    file
        As `lesionzarr.formats.archive.iter_files` lists it, in a folder or a zip; packed with gzip or not.

    Returns
    -------
    NiftiHeader

    Raises
    ------
    SourceError
        No NIfTI in one file, not of three dimensions, of a data type that is no CT, too short for its voxels, or with
        an affine that cannot be.
    """
    with open_nifti(file) as (_, header):
        return header


@contextmanager
def open_nifti(file: SourceFile) -> Iterator[tuple[BinaryIO, NiftiHeader]]:
    """Open an image to read its voxels; the stream stands somewhere before them.

    Yields
    ------
    stream : BinaryIO
        Unpacked, to be read forwards.
    header : NiftiHeader

    Raises
    ------
    SourceError
        As `read_nifti_header`; also where that is met while the stream is read.
    """
    with open_file(file) as raw:
        packed = raw.read(2) == GZIP_MARK
        raw.seek(0)
        stream = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if packed else raw
        try:
            header = _parse(stream, file.name)
            _check_length(header, file, packed=packed)
            yield stream, header
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise SourceError(f"{file.name}: damaged gzip ({error}); fetch the file again", file.name) from error


def _parse(stream: BinaryIO, name: str) -> NiftiHeader:
    head = stream.read(NIFTI1.header_bytes)
    for order in "<>":
        for form in (NIFTI1, NIFTI2):
            if head[:4] == struct.pack(f"{order}i", form.header_bytes):
                head += stream.read(form.header_bytes - len(head))
                return _header(_values(head, form, order, name), order, name)
    raise SourceError(f"{name}: no NIfTI (its first bytes are {head[:4]!r}); a .nii or .nii.gz is needed", name)


def _values(head: bytes, form: _Form, order: str, name: str) -> dict[str, Any]:
    if len(head) < form.header_bytes:
        raise SourceError(f"{name}: truncated in its header ({len(head)} bytes); fetch the file again", name)
    offset, single, pair = form.magic
    mark = head[offset : offset + 4]
    if mark == pair:
        raise SourceError(f"{name}: a header whose voxels are in an .img file; save both as one .nii", name)
    if mark != single:
        raise SourceError(f"{name}: no NIfTI (an ANALYZE header without its mark); save it as NIfTI", name)
    values = {key: struct.unpack_from(order + each, head, at) for key, (each, at) in form.fields.items()}
    return {key: value[0] if len(value) == 1 else value for key, value in values.items()}


def _header(values: dict[str, Any], order: str, name: str) -> NiftiHeader:
    if values["datatype"] not in DTYPES:
        raise SourceError(f"{name}: data type {values['datatype']} holds no grey levels; save it as int16", name)
    slope, inter = _scale(values["scl_slope"], values["scl_inter"], name)
    unit = UNITS_MM.get(values["xyzt_units"] & 7, 1.0)
    spacing = tuple(abs(step) * unit for step in values["pixdim"][1:4])
    matrix, affine_from = _matrix(values, name)
    if matrix is not None:
        # from RAS to LPS: x and y change their sign
        matrix = matrix * (np.array([[-1.0], [-1.0], [1.0]]) * unit) + 0.0
        spacing = tuple(math.hypot(*column) for column in matrix[:, :3].T.tolist())
    if not all(math.isfinite(step) and step > 0 for step in spacing):
        raise SourceError(f"{name}: a voxel of {spacing} mm; write its size into the header (pixdim)", name)
    offset = values["vox_offset"]
    if not (math.isfinite(offset) and offset >= 0):
        raise SourceError(f"{name}: its voxels begin at byte {offset}; fetch the file again", name)
    return NiftiHeader(
        shape=_shape(values["dim"], name),
        dtype=np.dtype(order + DTYPES[values["datatype"]]),
        spacing_mm=cast("tuple[float, float, float]", spacing),
        affine=None if matrix is None else tuple(map(tuple, matrix.tolist())),
        affine_from=affine_from,
        slope=slope,
        inter=inter,
        offset=int(offset),
        description=values["descrip"].split(b"\0")[0].decode("latin-1").strip(),
    )


def _shape(dim: tuple[int, ...], name: str) -> tuple[int, int, int]:
    count = dim[0]
    sizes = dim[1 : 1 + count] if 1 <= count <= 7 else ()
    if not 3 <= len(sizes) <= 7 or any(size != 1 for size in sizes[3:]) or min(sizes) < 1:
        raise SourceError(f"{name}: an image of {tuple(sizes or dim)} voxels; one of three dimensions is needed", name)
    if math.prod(sizes) > MAX_VOXELS:
        raise SourceError(f"{name}: {math.prod(sizes)} voxels; at most {MAX_VOXELS} are read", name)
    i, j, k = sizes[:3]
    return i, j, k


def _scale(slope: float, inter: float, name: str) -> tuple[float, float]:
    # nifti1.h: values are to be scaled if scl_slope is not 0; writers put NaN there to say the same
    if slope == 0 or math.isnan(slope):
        return 1.0, 0.0
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise SourceError(f"{name}: a scale of {slope} and {inter}; write them anew (scl_slope, scl_inter)", name)
    return slope, inter


def _matrix(values: dict[str, Any], name: str) -> tuple[NDArray[np.float64] | None, str | None]:
    """Give the affine in RAS and where it is from; both None where the file has neither form."""
    if values["sform_code"] > 0:
        matrix, told_by = np.array(values["srow"], np.float64).reshape(3, 4), "sform"
    elif values["qform_code"] > 0:
        matrix, told_by = _from_quaternion(values["quatern"], values["pixdim"]), "qform"
    else:
        return None, None
    square = matrix[:, :3]
    lengths = np.linalg.norm(square, axis=0)
    # the volume of a voxel against that of the box with its edges
    if not np.isfinite(matrix).all() or abs(np.linalg.det(square)) <= 1e-6 * lengths.prod():
        raise SourceError(f"{name}: its {told_by} spans no volume; write the affine anew", name)
    return matrix, told_by


def _from_quaternion(quatern: tuple[float, ...], pixdim: tuple[float, ...]) -> NDArray[np.float64]:
    """Give the affine of the qform (``nifti1.h``, method 2), whose quaternion has a real part that is not negative."""
    b, c, d, *shift = quatern
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    steps = [abs(step) for step in pixdim[1:4]]
    steps[2] *= -1 if pixdim[0] < 0 else 1
    return np.column_stack([rotation * steps, shift])


def _check_length(header: NiftiHeader, file: SourceFile, *, packed: bool) -> None:
    needed = header.offset + header.data_bytes
    if file.size * (GZIP_RATIO if packed else 1) < needed:
        text = f"{file.name}: truncated: {file.size} bytes cannot hold {header.shape} voxels of {header.dtype.name}"
        raise SourceError(f"{text}; fetch the file again", file.name)
