"""Per-slice tumour boxes of Lung-PET-CT-Dx: PASCAL VOC files in one folder a subject, named by SOPInstanceUID.

The file name is the only link to the image. Some 146 slices are boxed in the folders of two subjects, some 650 files
name images that were withdrawn, and a few labels are none of the four classes; all of it is kept, with an issue.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from lesionzarr.annotations.subjects import DIAGNOSES, subject_letter
from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import iter_files, read_ahead, read_file
from lesionzarr.formats.voc import check_size, read_voc
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Collection

    from lesionzarr.formats.voc import VocImage
    from lesionzarr.series import SourceFile
    from lesionzarr.source import SourcePath


class DrawnBox(NamedTuple):
    """One box on one slice, in 0-based pixels of the slice as stored, ends inclusive.

    A tuple, because a full collection has tens of thousands.
    """

    x0: float
    y0: float
    x1: float
    y1: float
    label: str
    """As written; one of `subjects.DIAGNOSES` where it is known."""
    folders: tuple[str, ...]
    """Subject folders whose files have this box."""
    difficult: bool = False


@dataclass(frozen=True)
class BoxTable:
    """All boxes below an annotation folder."""

    boxes: dict[str, tuple[DrawnBox, ...]]
    """By SOPInstanceUID, sorted; slices whose files hold no box are absent."""
    sizes: dict[str, tuple[int, int]]
    """Rows and columns of the image, by SOPInstanceUID, where a file states them."""
    files: int
    """Number of XML files, unreadable ones included."""
    failed: tuple[Issue, ...]
    """Files that cannot be read."""
    issues: tuple[Issue, ...]
    """What is odd and was dealt with."""


def collect_boxes(folder: SourcePath) -> BoxTable:
    """Read every annotation file below a folder.

    Parameters
    ----------
    folder
        The folder with one folder a subject, a folder above or a subject's own, or a zip of these. Files that do not
        end in ``.xml``, or begin with a dot, are passed over.

    Returns
    -------
    BoxTable
        A file that cannot be read is listed as failed and costs nothing else. Boxes of one slice are gathered over all
        folders; equal ones with equal labels become one.

    Raises
    ------
    SourceError
        The folder is absent or holds no annotation file.
    """
    gathered: dict[str, list[DrawnBox]] = defaultdict(list)
    sizes: dict[str, tuple[int, int]] = {}
    subjects: dict[str, set[str]] = defaultdict(set)
    failed: list[Issue] = []
    issues: list[Issue] = []
    files = sorted((file for file in iter_files(folder) if _is_annotation(file.name)), key=lambda file: file.name)
    if not files:
        raise SourceError(f"{folder.name}: no annotation (*.xml) in it; give the folder with one folder a subject")
    for file, image_of in zip(files, read_ahead(_read, files), strict=True):
        uid, subject = _uid(file.name), sys.intern(_subject(file.name, folder))
        try:
            image = image_of()
        except SourceError as error:
            failed.append(Issue("bad-annotation", uid, file.name, f"{error}; its boxes are left out"))
            continue
        subjects[uid].add(subject)
        if image.width and image.height:
            sizes[uid] = (image.height, image.width)
        if image.objects:
            gathered[uid] += _drawn(image, subject)
        else:
            issues.append(
                Issue("no-object", uid, file.name, f"{file.name}: an annotation with no object; no box comes of it")
            )
    issues += _annotated_twice(subjects) + _odd_labels(gathered)
    boxes = {uid: _merge(gathered[uid]) for uid in sorted(gathered)}
    return BoxTable(boxes, sizes, len(files), tuple(failed), tuple(issues))


def unplaced_boxes(table: BoxTable, in_volumes: Collection[str], images: Collection[str]) -> list[Issue]:
    """List the annotated slices that no volume holds.

    Parameters
    ----------
    table
        The boxes.
    in_volumes
        SOPInstanceUIDs of the slices of all volumes.
    images
        SOPInstanceUIDs of all images that were found, whether part of a volume or not.

    Returns
    -------
    list of Issue
        ``annotation-outside-volume`` for a slice whose image is here, but in no volume; ``annotation-without-image``
        for one whose image is not; ``subject-without-images``, one for a folder, where that holds for all its slices.
    """
    issues: list[Issue] = []
    lost: dict[str, list[str]] = defaultdict(list)
    present: set[str] = set()
    for uid, boxes in table.boxes.items():
        folders = sorted({folder for box in boxes for folder in box.folders})
        if uid in images:
            present.update(folders)
            if uid not in in_volumes:
                text = f"{uid}: boxed, but its image is part of no volume; its boxes are left out"
                issues.append(Issue("annotation-outside-volume", uid, f"{folders[0]}/{uid}.xml", text))
            continue
        for folder in folders:
            lost[folder].append(uid)
    for folder, uids in sorted(lost.items()):
        if folder in present:
            issues += [
                Issue(
                    "annotation-without-image", uid, f"{folder}/{uid}.xml", f"{uid}: boxed, but no image has this UID"
                )
                for uid in uids
            ]
        else:
            text = f"{folder}: no image of its {len(uids):,} boxed slices is here; its boxes are left out"
            issues.append(Issue("subject-without-images", folder, folder, text))
    return issues


def _is_annotation(name: str) -> bool:
    path = PurePosixPath(name)
    # ._<name>.xml are what macOS leaves beside the files of a zip
    return path.suffix.lower() == ".xml" and not path.name.startswith(".")


def _uid(name: str) -> str:
    return PurePosixPath(name).stem


def _subject(name: str, folder: SourcePath) -> str:
    return PurePosixPath(name).parent.name or folder.stem


def _read(file: SourceFile) -> VocImage:
    check_size(file.size, file.name)
    return read_voc(read_file(file), file.name)


def _drawn(image: VocImage, subject: str) -> list[DrawnBox]:
    return [
        DrawnBox(item.x0, item.y0, item.x1, item.y1, sys.intern(item.name), (subject,), item.difficult)
        for item in image.objects
    ]


def _merge(boxes: list[DrawnBox]) -> tuple[DrawnBox, ...]:
    """Make one of boxes that are equal but for their folders."""
    if len(boxes) == 1:
        return (boxes[0],)
    equal: dict[tuple[float, float, float, float, str], list[DrawnBox]] = defaultdict(list)
    for box in boxes:
        equal[box[:5]].append(box)
    merged = [
        DrawnBox(
            *key, tuple(sorted({folder for box in group for folder in box.folders})), any(b.difficult for b in group)
        )
        for key, group in equal.items()
    ]
    return tuple(sorted(merged))


def _annotated_twice(subjects: dict[str, set[str]]) -> list[Issue]:
    return [
        Issue(
            "annotated-twice",
            uid,
            f"{min(folders)}/{uid}.xml",
            f"{uid}: annotated in the folders {', '.join(sorted(folders))}; the boxes of all are kept, equal ones once",
        )
        for uid, folders in sorted(subjects.items())
        if len(folders) > 1
    ]


def _odd_labels(gathered: dict[str, list[DrawnBox]]) -> list[Issue]:
    """Report labels that are no class, or not the class of their subject, once for each folder and label."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for uid, boxes in gathered.items():
        for box in boxes:
            found[box.folders[0], box.label].append(uid)
    issues: list[Issue] = []
    for (folder, label), uids in sorted(found.items()):
        letter, count, file = subject_letter(folder), len(uids), f"{folder}/{uids[0]}.xml"
        if label not in DIAGNOSES:
            text = f"{folder}: {count} boxes are labelled {label!r}, which is no class; it is kept as a label ({file})"
            issues.append(Issue("unknown-label", folder, file, text))
        elif letter is not None and label != letter:
            text = f"{folder}: {count} boxes are labelled {label!r}, the subject's letter is {letter!r}; both are kept"
            text = f"{text} ({file})"
            issues.append(Issue("label-differs", folder, file, text))
    return issues
