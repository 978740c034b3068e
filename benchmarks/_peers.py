"""The readers that are compared, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from _peers_files import Blosc2, Dicom, Monai, Nifti, NiftiGz, NnUnet, Npy, Png, TorchIo
from _peers_stores import (
    BareDecode,
    Lesionzarr,
    LesionzarrPacked,
    Tensorstore,
    TensorstoreBatched,
    XarrayDask,
    ZarrFused,
    ZarrPython,
    Zarrs,
)

if TYPE_CHECKING:
    from _peer import Peer

PEERS: dict[str, type[Peer]] = {
    "lesionzarr": Lesionzarr,
    "lesionzarr, packed": LesionzarrPacked,
    "bare decode": BareDecode,
    "npy mmap": Npy,
    "blosc2, equal": Blosc2,
    "blosc2, nnU-Net": NnUnet,
    "tensorstore": Tensorstore,
    "tensorstore, batched": TensorstoreBatched,
    "zarrs": Zarrs,
    "zarr-python": ZarrPython,
    "zarr-python, fused": ZarrFused,
    "xarray + dask": XarrayDask,
    "PNG, OpenCV": Png,
    "DICOM, pydicom": Dicom,
    "nii, nibabel": Nifti,
    "nii.gz, nibabel": NiftiGz,
    "MONAI": Monai,
    "TorchIO": TorchIo,
}
"""In the order of the table."""

BY_PROFILE = (Lesionzarr, LesionzarrPacked, BareDecode, Blosc2, TensorstoreBatched, Zarrs)
"""Measured on every profile of the store; others on the first, or on a format of their own."""
