"""A made-up Lung-PET-CT-Dx in the making, and the form of the quirks that act on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from lesionzarr.samples._nbia_dicom import CT_IMAGE, INTERCEPT_HU, PET_IMAGE, write
from lesionzarr.samples._nbia_plan import uid
from lesionzarr.samples._nbia_tables import describe_series, plain, voc

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from lesionzarr.samples._nbia_plan import Subject
    from lesionzarr.samples._nbia_tables import Box

COLLECTION: Final = "Lung-PET-CT-Dx"


@dataclass
class Series:
    """One series that has been written."""

    subject: Subject
    number: int
    uid: str
    sop_class: str
    folder: Path
    files: list[Path]
    """In the order of the instance numbers, so that a CT's first is its topmost."""
    sop_uids: list[str]
    """One for each file."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One annotation file that has been written."""

    path: Path
    series: Series
    row: int
    """Index of the file in `Series.files`."""
    box: Box


@dataclass
class Draft:
    """A dataset in the making."""

    folder: Path
    seed: int
    subjects: list[Subject]
    series: list[Series] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    rows: list[dict[str, str]] = field(default_factory=list)
    """Rows of metadata.csv: what there was to download, so that damage does not change them."""
    spent: set[str] = field(default_factory=set)
    """UIDs of series and names of annotation files that a quirk has damaged or added."""
    hosts: int = 0
    """How many times a subject has been asked to take something in."""

    @property
    def manifest(self) -> Path:
        """Folder of the images' download: named after a time in milliseconds."""
        return self.folder / f"manifest-{1608669183333 + self.seed}"

    @property
    def images(self) -> Path:
        """Folder of the subjects' folders."""
        return self.manifest / COLLECTION

    @property
    def annotations(self) -> Path:
        """Folder of the folders of annotation files."""
        return self.folder / "Annotation"

    @property
    def clinical(self) -> Path:
        """The clinical sheet."""
        return self.folder / "statistics-clinical-20201221.xlsx"

    def add_series(self, subject: Subject, objects: Sequence[Dataset]) -> Series:
        """Write a series.

        Parameters
        ----------
        subject
            Whose it is.
        objects
            Its instances, in order.

        Returns
        -------
        Series
            The series, which is known to the draft from now on.
        """
        first = objects[0]
        description = str(first.SeriesDescription)
        folder = (
            self.images
            / subject.patient_id
            / f"{subject.day:%m-%d-%Y}-NA-{plain(first.StudyDescription)}-{first.StudyInstanceUID[-5:]}"
            / f"{int(first.SeriesNumber)}.000000-{plain(description)}-{first.SeriesInstanceUID[-5:]}"
        )
        folder.mkdir(parents=True)
        files = [folder / name_file(1, int(made.InstanceNumber), len(objects)) for made in objects]
        for made, path in zip(objects, files, strict=True):
            write(made, path)
        added = Series(
            subject=subject,
            number=int(first.SeriesNumber),
            uid=str(first.SeriesInstanceUID),
            sop_class=str(first.SOPClassUID),
            folder=folder,
            files=files,
            sop_uids=[str(made.SOPInstanceUID) for made in objects],
        )
        self.series.append(added)
        location = folder.relative_to(self.manifest).as_posix()
        self.rows.append(describe_series(first, subject, location, [path.stat().st_size for path in files]))
        return added

    def add_mark(self, series: Series, row: int, box: Box) -> None:
        """Write the annotation of one slice, with the letter of its subject."""
        subject = series.subject
        path = self.annotations / subject.short_id / f"{series.sop_uids[row]}.xml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(voc([(subject.letter, box)], subject.ct.size), encoding="utf-8")
        self.marks.append(Mark(path, series, row, box))

    def take_series(self, sop_class: str = CT_IMAGE) -> Series:
        """Give a series that no quirk has touched yet, never one of the first subject."""
        for series in sorted(self.series, key=lambda series: (series.number, series.subject.number)):
            if series.subject.number > 0 and series.sop_class == sop_class and series.uid not in self.spent:
                self.spent.add(series.uid)
                return series
        kind = {CT_IMAGE: "CT", PET_IMAGE: "PET"}[sop_class]
        raise ValueError(f"no {kind} series is left for a quirk to act on: ask for more subjects or fewer quirks")

    def take_mark(self) -> Mark:
        """Give an annotation that no quirk has touched yet, of an undamaged series where there is one."""
        left = [
            mark
            for mark in self.marks
            if mark.path.name not in self.spent and mark.series.subject.number > 0 and mark.series.sop_class == CT_IMAGE
        ]
        if not left:
            raise ValueError("no annotation is left for a quirk to act on: ask for more subjects or fewer quirks")
        chosen = min(left, key=lambda mark: mark.series.uid in self.spent)
        self.spent.add(chosen.path.name)
        return chosen

    def later_subjects(self) -> list[Subject]:
        """Give the subjects that quirks may hit: all but the first."""
        if len(self.subjects) < 2:
            raise ValueError("quirks never hit the first subject, and there is no other: ask for more subjects")
        return self.subjects[1:]

    def host(self) -> Subject:
        """Give a subject to add something to, in turns, never the first."""
        subjects = self.later_subjects()
        self.hosts += 1
        return subjects[(self.hosts - 1) % len(subjects)]

    def reconstructions(self, subject: Subject) -> list[Series]:
        """Give both planned CT series of a subject: lung kernel, then soft kernel."""
        return [series for series in self.series if series.subject is subject and series.sop_class == CT_IMAGE][:2]

    def spare_row(self, series: Series) -> int:
        """Give a slice inside a series, without an annotation where there is such a one."""
        marked = {mark.row for mark in self.marks if mark.series is series}
        inner = range(1, len(series.files) - 1)
        free = [row for row in inner if row not in marked] or list(inner)
        return free[len(free) // 2]

    def new_uid(self, *parts: object) -> str:
        """Give a UID of this dataset that is none of the planned ones."""
        return uid(self.seed, "quirk", *parts)


def read_hu(series: Series) -> NDArray[np.int16]:
    """Read a planned CT series back: int16 (z, y, x), HU, the topmost slice first."""
    from pydicom import dcmread

    stored = np.stack([dcmread(path).pixel_array for path in series.files])
    return (stored.astype(np.int32) + INTERCEPT_HU).astype(np.int16)


def name_file(acquisition: int, instance: int, count: int) -> str:
    """Name a file of a series with so many of them."""
    return f"{acquisition}-{instance:0{max(2, len(str(count)))}d}.dcm"


@dataclass(frozen=True, slots=True)
class Quirk:
    """One oddity that a dataset can have."""

    name: str
    description: str
    act: Callable[[Draft], None]


def quirk(description: str) -> Callable[[Callable[[Draft], None]], Quirk]:
    """Make a quirk of a function; the function's name becomes its name."""
    return lambda function: Quirk(function.__name__, description, function)
