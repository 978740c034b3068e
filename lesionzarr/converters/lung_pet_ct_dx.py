"""Lung-PET-CT-Dx (TCIA, 2020): DICOM CT and PET, and boxes in PASCAL VOC XML.

Li et al., A Large-Scale CT and PET/CT Dataset for Lung Cancer Diagnosis (Lung-PET-CT-Dx), The Cancer Imaging Archive,
2020.

One volume per evenly spaced stack of slices of a CT or PET series (`lesionzarr.formats.dicom.stacks` says what happens
to others). Boxes are found by the SOPInstanceUID that names their file, and linked into one lesion per tumour and
series (`lesionzarr.annotations.voc_lesions`). Of the headers only allowed attributes reach the store
(`lesionzarr.formats.dicom.deid`); what is not DICOM, or no slice of a volume, is reported with its reason.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from lesionzarr import samples
from lesionzarr.annotations.clinical import Clinical, join_clinical, read_clinical
from lesionzarr.annotations.voc_boxes import BoxTable, collect_boxes, unplaced_boxes
from lesionzarr.annotations.voc_lesions import lesions_of_volume
from lesionzarr.converters._base import flag, option, parse_day
from lesionzarr.converters._pseudonyms import Pseudonyms
from lesionzarr.errors import SettingError, SourceError
from lesionzarr.formats.archive import with_zips
from lesionzarr.formats.dicom import file_headers, find_stacks, read_stack, scan_headers
from lesionzarr.formats.suv import suv_factors
from lesionzarr.report import Issue
from lesionzarr.series import Scan, Volume
from lesionzarr.source import Remote

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from lesionzarr.formats.dicom import Stack
    from lesionzarr.lesion import Lesion
    from lesionzarr.source import SourcePath

COMPANIONS = re.compile(
    r"(^|/)(\.DS_Store|LICENSE|metadata\.csv|category\.txt)$|\.(xml|xlsx)$|^[^/]+\.zip$", re.IGNORECASE
)
"""Files of the collection that are no images, and no news; zips at the top are read, others are news."""
AGE = re.compile(r"(\d{3})([DWMY])")
DAYS_A_YEAR = 365.25
YEARS = {"D": 1 / DAYS_A_YEAR, "W": 7 / DAYS_A_YEAR, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True)
class LungPetCtDx:
    """Converter of Lung-PET-CT-Dx, and of any DICOM collection of CT and PET."""

    source: SourcePath
    annotations: SourcePath | None = option("folder or zip of annotation XMLs, if it is not SOURCE/Annotation")
    clinical: SourcePath | None = option("statistics-clinical-*.xlsx (or CSV), if it is not in SOURCE")
    index: Path | None = option("Parquet file that keeps the headers, so that they are read once")
    uid_key: SourcePath | None = option("file with a secret key: UIDs are replaced by others made with it")
    keep_headers: bool = flag("store the full headers too, as DICOM JSON; nothing in them is de-identified")

    name: ClassVar[str] = "lung-pet-ct-dx"
    title: ClassVar[str] = "Lung-PET-CT-Dx"
    licence: ClassVar[str] = "CC BY 4.0"
    citation: ClassVar[str] = "Li et al., The Cancer Imaging Archive (2020), doi 10.7937/TCIA.2020.NNC2-0461"

    def __post_init__(self) -> None:
        if self.keep_headers and self.uid_key:
            raise SettingError("--keep-headers would store the UIDs that --uid-key is to hide: give one of them")
        if isinstance(self.index, Remote):
            raise SettingError(f"{self.index}: --index is written too; name a file on this machine")
        found = self.source / "Annotation"
        if self.annotations is None and self.source.is_dir() and found.is_dir():
            object.__setattr__(self, "annotations", found)
        sheets = list(self.source.glob("statistics-clinical*.xlsx"))
        if self.clinical is None and len(sheets) == 1:
            object.__setattr__(self, "clinical", sheets[0])

    def scan(self) -> Scan:
        """List the volumes that the headers make up.

        Returns
        -------
        Scan
            Holds about 0.5 kB a slice.

        Raises
        ------
        SourceError
            There is no DICOM object, or there are no annotations or no clinical table where they should be.
        MissingExtraError
            pydicom is not installed.
        """
        roots = with_zips(self.source) if self.source.is_dir() else [self.source]
        headers = scan_headers(roots, index=self.index)
        if not headers.table.num_rows:
            raise SourceError(f"{self.source.name}: no DICOM object in it; name the folder or zip with the images")
        stacks = find_stacks(headers)
        table = collect_boxes(self.annotations) if self.annotations else BoxTable({}, {}, 0, (), ())
        clinical, unread = self._clinical()
        issues = [*self._news(headers.issues), *stacks.left_out, *stacks.issues, *table.issues, *clinical.issues]
        volumes = []
        for stack in stacks.stacks:
            lesions, odd = _lesions(stack, table, clinical)
            issues += odd
            volumes.append(self._volume(stack, lesions, clinical))
        placed = {uid for stack in stacks.stacks for uid in stack.sop_uids}
        images = set(headers.table["sop_instance_uid"].to_pylist())
        issues += unplaced_boxes(table, placed, images)
        scan = Scan(tuple(volumes), failed=(*table.failed, *unread), issues=tuple(issues))
        return Pseudonyms.read(self.uid_key).apply(scan) if self.uid_key else scan

    def _clinical(self) -> tuple[Clinical, list[Issue]]:
        """Read the clinical table; one that is there and cannot be used costs its own columns, and nothing else."""
        nothing = Clinical({}, ())
        if self.clinical is None:
            return nothing, []
        try:
            return read_clinical(self.clinical), []
        except SourceError as error:
            if not self.clinical.is_file():
                raise
            name = self.clinical.name
            return nothing, [Issue("bad-clinical", name, name, f"{error}; nothing is taken from it")]

    def _news(self, issues: Iterable[Issue]) -> list[Issue]:
        return [issue for issue in issues if not (issue.kind == "not-dicom" and COMPANIONS.search(issue.file))]

    def _volume(self, stack: Stack, lesions: list[Lesion], clinical: Clinical) -> Volume:
        numbers = [number for number in stack.instance_numbers if number is not None]
        return Volume(
            volume_id=stack.volume_id,
            series_id=stack.series_uid,
            study_id=stack.study_uid,
            patient_id=stack.patient_id,
            grid=stack.grid,
            first_slice=min(numbers, default=1),
            last_slice=max(numbers, default=len(stack.files)),
            files=stack.files,
            lesions=tuple(lesions),
            modality=stack.modality,
            tags=_tags(stack, clinical),
            frames=stack.frames,
            keeps_headers=self.keep_headers,
        )

    def read_volume(self, volume: Volume) -> NDArray[Any]:
        """Read the slices of a volume.

        Parameters
        ----------
        volume
            As listed by `scan`.

        Returns
        -------
        ndarray
            (z, y, x): int16 HU of CT, float32 Bq/ml of PET.

        Raises
        ------
        SourceError
            A slice cannot be decoded, or is not what its header says.
        MissingExtraError
            Nothing installed decodes its transfer syntax.
        """
        try:
            return read_stack(volume)
        except SourceError as error:
            if self.uid_key is None:
                raise
            raise SourceError(*Pseudonyms.read(self.uid_key).fault(str(error), error.file)) from None

    def read_mask(self, volume: Volume) -> None:
        """Give None: there are no masks."""

    def read_headers(self, volume: Volume) -> dict[str, Any]:
        """Read the full headers of a volume: those in common, and for each file what differs.

        Raises
        ------
        SourceError
            A file that cannot be read.
        """
        return file_headers(volume.files)

    @staticmethod
    def example(folder: Path, seed: int = 0) -> Path:
        """Write a small synthetic Lung-PET-CT-Dx, and give its folder."""
        return samples.lung_pet_ct_dx(folder, seed=seed, subjects=2)


def _lesions(stack: Stack, table: BoxTable, clinical: Clinical) -> tuple[list[Lesion], list[Issue]]:
    _, rows, columns = stack.grid.shape
    lesions, issues = lesions_of_volume(
        stack.volume_id,
        stack.series_uid,
        stack.study_uid,
        stack.patient_id,
        sop_uids=stack.sop_uids,
        size=(rows, columns),
        table=table,
    )
    sex, age, day = (stack.tags.get(name) for name in ("PatientSex", "PatientAge", "StudyDate"))
    known = [replace(lesion, sex=sex, age=_years(age), study_date=parse_day(day)) for lesion in lesions]
    return join_clinical(known, clinical), issues


def _tags(stack: Stack, clinical: Clinical) -> dict[str, Any]:
    tags = {**stack.tags, "FrameOfReferenceUID": stack.frame_uid or None}
    if stack.modality == "PT":
        tags["SUV"] = _suv(stack, clinical)
    return {name: value for name, value in tags.items() if value is not None}


def _suv(stack: Stack, clinical: Clinical) -> dict[str, Any]:
    """Give the SUV factors; where the header has no weight, that of the clinical table stands for it and is named."""
    patient = clinical.patient(stack.patient_id)
    tags = dict(stack.tags)
    borrowed = not tags.get("PatientWeight") and patient is not None and patient.weight_kg is not None
    if borrowed and patient is not None:
        tags["PatientWeight"] = patient.weight_kg
    suv = asdict(suv_factors(tags))
    if borrowed:
        suv["provenance"]["PatientWeight from"] = "clinical table"
    return suv


def _years(age: str | None) -> float | None:
    found = AGE.fullmatch(age or "")
    return int(found[1]) * YEARS[found[2]] if found else None
