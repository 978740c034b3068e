"""The images, masks and labels of a release of recist-dataset, by the layout of its folders."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import escapes, iter_files
from lesionzarr.report import Issue

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lesionzarr.series import SourceFile
    from lesionzarr.source import SourcePath

DEPTH = 8
"""Folder levels that are searched; raw/images/nifti/train/masks has four."""
FILE = re.compile(
    r"(?:(?:.*/)?(?P<region>thorax|abdomen)/|(?:.*/)?)(?P<subset>training|train|test)/"
    r"(?P<kind>images|masks|labels)/(?P<stem>[^/]+?)(?P<ending>\.nii\.gz|\.nii|\.json)"
)
"""``final-formatted`` has the region, ``final``, ``raw`` (images/nifti) and the release on TCIA (SEG) have not."""
NAME = re.compile(r"(?:(?P<patient>\d{3,})_)?(?P<uid>\d+(?:\.\d+)+)(?P<suffix>(?:_[A-Za-z]\w*|[a-z])*)")
"""Stem of a file: patient in ``final-formatted``, SeriesInstanceUID, and what dcm2niix adds (``_Eq``, ``_Tilt``, a)."""
SPLITS = {"train": "train", "training": "train", "test": "test"}
NIFTI = (".nii", ".nii.gz")


@dataclass(frozen=True)
class Files:
    """What a release holds of one series."""

    stem: str
    """Name of its files."""
    split: str
    """``train`` or ``test``."""
    region: str | None
    """``thorax`` or ``abdomen``, where the folders say."""
    images: SourceFile | None = None
    masks: SourceFile | None = None
    labels: SourceFile | None = None

    @property
    def series_uid(self) -> str:
        """SeriesInstanceUID in the name; all of the name where that is none."""
        found = NAME.fullmatch(self.stem)
        return found["uid"] if found else self.stem

    @property
    def suffix(self) -> str:
        """What dcm2niix added to the name."""
        found = NAME.fullmatch(self.stem)
        return found["suffix"] if found else ""

    @property
    def patient_id(self) -> str | None:
        """Patient in the name, without leading zeros."""
        found = NAME.fullmatch(self.stem)
        return str(int(found["patient"])) if found and found["patient"] else None


def find_files(roots: Iterable[SourcePath]) -> tuple[list[Files], list[Issue], list[Issue]]:
    """List the files of every series.

    Parameters
    ----------
    roots
        Folders and zips.

    Returns
    -------
    list of Files
        By name; one of each series that has an image.
    list of Issue
        Roots that cannot be used.
    list of Issue
        Files that lie outside of the layout or are there twice, and folders of another name than usual.
    """
    found: dict[str, Files] = {}
    failed: list[Issue] = []
    odd: list[Issue] = []
    for root in roots:
        try:
            for file, parts in _iter_layout(root, odd):
                _add(found, file, parts, odd)
        except SourceError as error:
            failed.append(Issue("bad-root", root.name, root.name, str(error)))
    return _one_each(found.values(), odd), failed, odd


def _iter_layout(root: SourcePath, odd: list[Issue]) -> Iterator[tuple[SourceFile, dict[str, str | None]]]:
    unusual: set[str] = set()
    for file in iter_files(root, DEPTH):
        parts = FILE.fullmatch(file.name)
        fits = parts is not None and (parts["ending"] in NIFTI) == (parts["kind"] != "labels")
        if parts is not None and fits and not escapes(file.name):
            unusual |= {parts["subset"]} - set(SPLITS.values())
            yield file, parts.groupdict()
        elif file.name.endswith(NIFTI):
            text = f"{file.name}: not in <train or test>/<images or masks>; it is left out"
            odd.append(Issue("outside-layout", root.name, file.name, text))
    for name in sorted(unusual):
        text = f"{root.name}: its folders {name} are the subset {SPLITS[name]}"
        odd.append(Issue("folder-name", root.name, name, text))


def _add(found: dict[str, Files], file: SourceFile, parts: dict[str, str | None], odd: list[Issue]) -> None:
    stem, kind = str(parts["stem"]), str(parts["kind"])
    known = found.setdefault(stem, Files(stem, SPLITS[str(parts["subset"])], parts["region"]))
    first = getattr(known, kind)
    if first is not None:
        text = f"{file.name}: {first.name} has the same name; that is read, and this is left out"
        odd.append(Issue("file-twice", stem, file.name, text))
    else:
        changes: dict[str, Any] = {kind: file}
        found[stem] = replace(known, **changes)


def _one_each(found: Iterable[Files], odd: list[Issue]) -> list[Files]:
    """Keep one image of each series: that with a mask, then with labels, then with the plainest name."""
    by_series: dict[str, list[Files]] = defaultdict(list)
    for each in found:
        by_series[each.series_uid].append(each)
    kept: list[Files] = []
    for same in by_series.values():
        kind = "images" if any(each.images for each in same) else "masks"
        rivals = sorted((each for each in same if getattr(each, kind)), key=_rank)
        for other in rivals[1:]:
            text = f"{other.stem}: of the same series as {rivals[0].stem}; that is converted, and this is left out"
            odd.append(Issue("series-twice", other.stem, getattr(other, kind).name, text))
        kept += [each for each in same if each not in rivals[1:]]
    return sorted(kept, key=lambda each: each.stem)


def _rank(files: Files) -> tuple[bool, bool, int, bool, str]:
    return files.masks is None, files.labels is None, len(files.suffix), files.patient_id is None, files.stem
