"""NIfTI-1 and NIfTI-2 in one file (``.nii``, ``.nii.gz``): headers, voxels of CT and of masks, and writing both.

Arrays come as (z, y, x): z grows to the head, y to the back and x to the left of the patient, whatever the order of the
axes in the file. Nothing is resampled: the axes of an oblique image go where they are nearest to, and its grid keeps
the true affine. Nothing but NumPy is needed.
"""

from lesionzarr.formats.nifti.fields import header_fields, read_fields
from lesionzarr.formats.nifti.header import NiftiHeader, read_nifti_header
from lesionzarr.formats.nifti.place import is_same_grid, nifti_grid
from lesionzarr.formats.nifti.voxels import read_nifti, read_nifti_mask
from lesionzarr.formats.nifti.write import nifti_head, write_nifti

__all__ = [
    "NiftiHeader",
    "header_fields",
    "is_same_grid",
    "nifti_grid",
    "nifti_head",
    "read_fields",
    "read_nifti",
    "read_nifti_header",
    "read_nifti_mask",
    "write_nifti",
]
