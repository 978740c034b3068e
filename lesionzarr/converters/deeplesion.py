"""DeepLesion (NIH, 2018): 16-bit PNG slices and DL_info.csv.

Yan et al., DeepLesion: automated mining of large-scale lesion annotations and universal lesion detection with deep
learning, Journal of Medical Imaging 5(3), 2018.

One volume per contiguous range of slices that are present; where slices of a range are absent the range becomes several
volumes, so that rows never shift. HU = stored - 32768. The files give no position and no orientation; by the affine of
the official ``DL_save_nifti.py`` rows run from front to back, columns from the patient's right to left, slices from
head to feet.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from lesionzarr import samples
from lesionzarr.converters._base import option
from lesionzarr.converters._deeplesion_images import (
    SeriesSlices,
    check_md5,
    find_roots,
    find_runs,
    index_slices,
    missing_slices,
    missing_volume,
    unlisted_slices,
)
from lesionzarr.converters._deeplesion_lesions import Companions, join_boxes, join_labels, join_pairs, make_lesions
from lesionzarr.converters._deeplesion_table import SubVolume, Table, group_marks, read_table, volume_name
from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import read_ahead, read_file
from lesionzarr.formats.png import decode_gray16
from lesionzarr.geometry import Grid
from lesionzarr.series import Scan, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from lesionzarr.report import Issue
    from lesionzarr.source import SourcePath

OFFSET = 32768
ORIENTATION = ("superior-to-inferior", "anterior-to-posterior", "right-to-left")


@dataclass(frozen=True)
class DeepLesion:
    """Converter of DeepLesion."""

    source: SourcePath
    csv: SourcePath | None = option("the lesion table, if it is not SOURCE/DL_info.csv")
    images: tuple[SourcePath, ...] = option("folders or zips of slices, if they are not SOURCE/Images_png*", many=True)
    labels: SourcePath | None = option("LesaNet's text_mined_labels_171_and_split.json")
    hand_labels: SourcePath | None = option("LesaNet's hand_labeled_test_set.json")
    boxes3d: SourcePath | None = option("manual 3D boxes of 1,000 sub-volumes (the released pickle, or JSON)")
    pairs: SourcePath | None = option("lesion pairs of Deep Lesion Tracker (JSON)")
    md5: SourcePath | None = option("MD5_checksums.txt: check the zips against it first")

    name: ClassVar[str] = "deeplesion"
    title: ClassVar[str] = "DeepLesion"
    licence: ClassVar[str] = "NIH Clinical Center: unrestricted use, attribution asked for"
    citation: ClassVar[str] = "Yan et al., Journal of Medical Imaging 5(3), 036501 (2018), doi 10.1117/1.JMI.5.3.036501"

    def __post_init__(self) -> None:
        # stated, so that it is told where a volume comes from
        object.__setattr__(self, "csv", self.table)

    @property
    def table(self) -> SourcePath:
        """The lesion table."""
        return self.csv or self.source / "DL_info.csv"

    def scan(self) -> Scan:
        """List the volumes that can be made of the slices that are here.

        Returns
        -------
        Scan
            Holds about 0.2 kB a slice.

        Raises
        ------
        SourceError
            No table or no images at all, or labels that cannot be joined to this table.
        """
        if not self.table.is_file():
            folder, name = self.table.parent.name, self.table.name
            raise SourceError(f"{folder}: no {name} in it; name the lesion table with --csv")
        table = read_table(self.table)
        sub_volumes, odd_spacing = group_marks(table.marks)
        companions = self._join(table, sub_volumes)
        roots = list(self.images) or find_roots(self.source)
        roots, bad_zips = check_md5(roots, self.md5) if self.md5 else (roots, [])
        slices, bad_roots, odd_files = index_slices(roots)
        volumes: list[Volume] = []
        missing: list[Issue] = []
        gaps: list[Issue] = []
        for sub in sub_volumes:
            here = slices.get(sub.series_id)
            runs = find_runs(sub, here) if here else []
            if here and runs:
                gaps += missing_slices(sub, runs)
                volumes += _volumes(sub, runs, here, companions)
            else:
                missing.append(missing_volume(sub))
        return Scan(
            volumes=tuple(volumes),
            missing=tuple(missing),
            failed=(*table.failed, *bad_zips, *bad_roots),
            issues=(
                *(*table.issues, *odd_spacing, *companions.issues, *odd_files, *gaps),
                *unlisted_slices(slices, sub_volumes),
            ),
        )

    def _join(self, table: Table, sub_volumes: list[SubVolume]) -> Companions:
        companions = Companions()
        if self.labels or self.hand_labels:
            join_labels(companions, table, self.labels, self.hand_labels)
        if self.boxes3d:
            join_boxes(companions, sub_volumes, self.boxes3d)
        if self.pairs:
            join_pairs(companions, table, self.pairs)
        return companions

    def read_volume(self, volume: Volume) -> NDArray[np.int16]:
        """Read the slices of a volume.

        Parameters
        ----------
        volume
            As listed by `scan`.

        Returns
        -------
        ndarray of int16
            HU, (z, y, x).

        Raises
        ------
        SourceError
            A slice cannot be read, is no 16-bit grey PNG, or has another size than the first.
        """
        voxels: NDArray[np.int16] | None = None
        reads = read_ahead(read_file, volume.files)
        for row, (file, data) in enumerate(zip(volume.files, reads, strict=True)):
            name = f"{PurePosixPath(str(file.root)).name}/{file.name}"
            try:
                stored = decode_gray16(data(), name)
            except SourceError as error:
                error.file = file.name
                raise
            if voxels is None:
                voxels = np.empty((len(volume.files), *stored.shape), dtype=np.int16)
            elif stored.shape != voxels.shape[1:]:
                first = f"the first slice of {volume.volume_id} has {voxels.shape[1:]}"
                raise SourceError(f"{name}: {stored.shape} pixels, but {first}; fetch the file again", file.name)
            # in a signed type that holds both ends: uint16 would wrap around below 32768
            voxels[row] = stored.astype(np.int32) - OFFSET
        if voxels is None:
            raise SourceError(f"{volume.volume_id}: no slices")
        return voxels

    def read_mask(self, volume: Volume) -> None:
        """Give None: there are no masks."""

    def read_headers(self, volume: Volume) -> dict[str, Any]:  # noqa: ARG002 - a PNG has none
        """Give no headers: the files have none."""
        return {}

    @staticmethod
    def example(folder: Path, seed: int = 0) -> Path:
        """Write a small synthetic DeepLesion, and give its folder."""
        return samples.deeplesion(folder, seed=seed, image_size=192)


def _volumes(
    sub: SubVolume, runs: Sequence[tuple[int, int]], slices: SeriesSlices, companions: Companions
) -> Iterator[Volume]:
    patient, study, _ = sub.series_id.split("_")
    lesions = make_lesions(sub, runs, companions)
    for first, last in runs:
        volume_id = volume_name(sub.series_id, first, last)
        yield Volume(
            volume_id=volume_id,
            series_id=sub.series_id,
            study_id=f"{patient}_{study}",
            patient_id=patient,
            grid=Grid((last - first + 1, *sub.size), sub.spacing_mm, ORIENTATION),
            first_slice=first,
            last_slice=last,
            files=slices.files(first, last),
            lesions=tuple(lesion for lesion in lesions if lesion.volume_id == volume_id),
        )
