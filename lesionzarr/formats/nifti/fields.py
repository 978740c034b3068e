"""All fields of a NIfTI-1 header by name, as SimpleITK gives them: text, numbers with six digits."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from lesionzarr.errors import SourceError
from lesionzarr.formats.nifti.header import NIFTI1, open_nifti

if TYPE_CHECKING:
    from lesionzarr.series import SourceFile

FIELDS: dict[str, tuple[str, int]] = {
    "dim_info": ("B", 39),
    **{f"dim[{n}]": ("h", 40 + 2 * n) for n in range(8)},
    **{f"intent_p{n}": ("f", 52 + 4 * n) for n in (1, 2, 3)},
    "intent_code": ("h", 68),
    "datatype": ("h", 70),
    "bitpix": ("h", 72),
    "slice_start": ("h", 74),
    **{f"pixdim[{n}]": ("f", 76 + 4 * n) for n in range(8)},
    "vox_offset": ("f", 108),
    "scl_slope": ("f", 112),
    "scl_inter": ("f", 116),
    "slice_end": ("h", 120),
    "slice_code": ("B", 122),
    "xyzt_units": ("B", 123),
    "cal_max": ("f", 124),
    "cal_min": ("f", 128),
    "slice_duration": ("f", 132),
    "toffset": ("f", 136),
    "descrip": ("80s", 148),
    "aux_file": ("24s", 228),
    "qform_code": ("h", 252),
    "sform_code": ("h", 254),
    **{f"quatern_{name}": ("f", 256 + 4 * n) for n, name in enumerate("bcd")},
    **{f"qoffset_{name}": ("f", 268 + 4 * n) for n, name in enumerate("xyz")},
    **{f"srow_{name}": ("4f", 280 + 16 * n) for n, name in enumerate("xyz")},
    "intent_name": ("16s", 328),
}
"""Format and offset of each field (``nifti1.h``)."""
XFORMS = ("UNKNOWN", "SCANNER_ANAT", "ALIGNED_ANAT", "TALAIRACH", "MNI_152")
"""Words for the codes of qform and sform, after ``NIFTI_XFORM_``."""
OF_FORM = {"qform_code": ("quatern_", "qoffset_"), "sform_code": ("srow_",)}
"""What begins the names of the fields that mean nothing where a code is 0."""


def header_fields(head: bytes, name: str) -> dict[str, str]:
    """Give the fields of a header.

    Parameters
    ----------
    head
        At least the first 348 bytes of a NIfTI-1 file, unpacked.
    name
        Of the file, for errors.

    Returns
    -------
    dict of str to str
        By the names that SimpleITK has for them, such as ``"dim[1]"`` and ``"srow_x"`` (four numbers). As there, fields
        of a qform or sform that does not count are 0, whatever the file has in them; ``"pixdim[0]"``, the sign of the
        qform's third axis, is that of the file, where SimpleITK has 0.

    Raises
    ------
    SourceError
        No header of NIfTI-1.
    """
    order = next((order for order in "<>" if head[:4] == struct.pack(f"{order}i", NIFTI1.header_bytes)), None)
    if order is None or len(head) < NIFTI1.header_bytes:
        raise SourceError(f"{name}: no NIfTI-1 header; save the image as NIfTI-1", name)
    fields = {key: _text(struct.unpack_from(order + form, head, at)) for key, (form, at) in FIELDS.items()}
    for key, starts in OF_FORM.items():
        code = int(fields[key])
        if code <= 0:
            fields |= {
                name: " ".join("0" for _ in text.split()) for name, text in fields.items() if name.startswith(starts)
            }
        fields[f"{key}_name"] = f"NIFTI_XFORM_{XFORMS[code] if 0 <= code < len(XFORMS) else XFORMS[0]}"
    return fields


def read_fields(file: SourceFile) -> dict[str, str]:
    """Read the fields of the header of a file, and no voxel; SourceError for one that is no NIfTI-1 of a CT."""
    with open_nifti(file) as (stream, _):
        stream.seek(0)
        return header_fields(stream.read(NIFTI1.header_bytes), file.name)


def _text(values: tuple[float | bytes, ...]) -> str:
    return " ".join(
        value.split(b"\0")[0].decode("latin-1") if isinstance(value, bytes) else f"{value:g}" for value in values
    )
