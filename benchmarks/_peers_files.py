"""Peers that read formats of their own."""

from __future__ import annotations

from threading import local
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from _peer import Peer

if TYPE_CHECKING:
    from _data import Data
    from _peer import Inside
    from numpy.typing import NDArray


class Png(Peer):
    """OpenCV, slice by slice from the files of DeepLesion, as 3DCE loads them."""

    packages = ("cv2",)

    def open(self, volume: str) -> Any:
        """Give the paths of the slices."""
        import cv2

        cv2.setNumThreads(1)
        return self.data.slices[volume]

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Decode whole slices, and cut."""
        import cv2

        z, y, x = inside
        images: list[Any] = [cv2.imread(path, cv2.IMREAD_UNCHANGED) for path in handle[z]]
        stored = np.stack([image[y, x] for image in images])
        # HU + 32768 as uint16: the highest bit is the sign
        return (stored ^ np.uint16(0x8000)).view(np.int16)


class Dicom(Peer):
    """pydicom, slice by slice, not compressed."""

    packages = ("pydicom",)
    kind = "dicom"

    def open(self, volume: str) -> Any:
        """Give the paths of the slices."""
        return sorted(self.data.path("dicom", volume).iterdir())

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Read whole slices, and cut."""
        from pydicom import dcmread

        z, y, x = inside
        return np.stack([dcmread(path).pixel_array[y, x] for path in handle[z]])


class Nifti(Peer):
    """Nibabel's array proxy on .nii."""

    packages = ("nibabel",)
    kind: ClassVar[str] = "nii"

    def open(self, volume: str) -> Any:
        """Read the header."""
        import nibabel as nib

        return nib.load(self.data.path(self.kind, volume)).dataobj

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Slice the proxy."""
        block: NDArray[np.int16] = handle[inside[::-1]].T
        return block


class NiftiGz(Nifti):
    """Nibabel's array proxy on .nii.gz."""

    kind: ClassVar[str] = "nii.gz"
    most = 4


class Npy(Peer):
    """Mapped memory: no decoding at all."""

    kind = "npy"
    mapped = True

    def open(self, volume: str) -> Any:
        """Map the file."""
        return np.load(self.data.path("npy", volume), mmap_mode="r")

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Slice the map."""
        block: NDArray[np.int16] = handle[inside]
        return block


class Blosc2(Peer):
    """Blosc2 with the chunks, blocks and codec of the store, but no checksums."""

    packages = ("blosc2",)
    mapped = True

    @classmethod
    def needs(cls, profile: str) -> str:
        """Give the format that it reads beside the stores."""
        return cls.kind or f"blosc2-{profile}"

    def __init__(self, data: Data, threads: int, profile: str) -> None:
        super().__init__(data, threads, profile)
        self._local = local()

    def handle(self, volume: str) -> Any:
        """Give an open volume of this thread."""
        known: dict[str, Any] = self._local.__dict__
        if volume not in known:
            known[volume] = self.open(volume)
        return known[volume]

    def open(self, volume: str) -> Any:
        """Open the file as nnU-Net does."""
        import blosc2

        blosc2.set_nthreads(1)
        path = self.data.path(self.needs(self.profile), volume)
        return blosc2.open(str(path), mode="r", dparams={"nthreads": 1}, mmap_mode="r")

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Slice the array."""
        block: NDArray[np.int16] = handle[inside]
        return block


class NnUnet(Blosc2):
    """Blosc2 with nnU-Net's chunks, blocks and codec."""

    kind = "nnunet"

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Slice the only channel."""
        block: NDArray[np.int16] = handle[0, *inside]
        return block


class Monai(Peer):
    """MONAI's PersistentDataset: whole volumes as cached tensors."""

    packages = ("monai", "torch")
    kind = "nii"
    most = 4

    def open(self, volume: str) -> Any:
        """Name the file to the dataset."""
        from monai.data import PersistentDataset
        from monai.transforms import LoadImaged

        items = [{"image": str(self.data.path("nii", volume))}]
        return PersistentDataset(items, LoadImaged(keys="image", dtype=np.int16), self.data.folder / "monai")

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Load the cached volume, and cut."""
        block: NDArray[np.int16] = np.asarray(handle[0]["image"])[inside[::-1]].T
        return block


class TorchIo(Peer):
    """TorchIO's ScalarImage on .nii: whole volumes."""

    packages = ("torchio",)
    kind = "nii"
    most = 4

    def open(self, volume: str) -> Any:
        """Give the path."""
        return self.data.path("nii", volume)

    def read(self, handle: Any, inside: Inside) -> NDArray[np.int16]:
        """Load the volume, and cut."""
        import torchio

        block: NDArray[np.int16] = np.asarray(torchio.ScalarImage(handle).data)[0][inside[::-1]].T
        return block
