"""The slices of DeepLesion that are here: in folders or zips, checked against the published MD5 sums on request."""

from __future__ import annotations

import hashlib
import re
from array import array
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

from lesionzarr.converters._deeplesion_table import volume_name
from lesionzarr.errors import SourceError
from lesionzarr.formats.archive import escapes, iter_files
from lesionzarr.report import Issue
from lesionzarr.series import SourceFile

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lesionzarr.converters._deeplesion_table import SubVolume
    from lesionzarr.source import Remote, SourcePath

SLICE_PATH = re.compile(r"(?P<folder>(?:.*/)?(?P<series>\d{6}_\d{2}_\d{2})/)(?P<slice>\d{3}|[1-9]\d{3,})\.png")


@dataclass(frozen=True)
class SeriesSlices:
    """The slices of one series that are here; compact, since the whole dataset has 928,000."""

    folders: list[tuple[str | Remote, str]] = field(default_factory=list)
    """Root, and folder inside it, of every place that holds slices of the series."""
    rows: tuple[array[int], array[int], array[int], array[int]] = field(
        default_factory=lambda: (array("q"), array("q"), array("q"), array("q"))
    )
    """Slice number, number of the place, size and stamp of each file."""

    def add(self, folder: str, number: int, file: SourceFile) -> None:
        """Add one slice."""
        place = (file.root, folder)
        if place not in self.folders:
            self.folders.append(place)
        for column, value in zip(self.rows, (number, self.folders.index(place), file.size, file.stamp), strict=True):
            column.append(value)

    @property
    def numbers(self) -> list[int]:
        """Distinct slice numbers, sorted."""
        return sorted(set(self.rows[0]))

    def files(self, first: int, last: int) -> tuple[SourceFile, ...]:
        """Give the files of a range of slice numbers, both ends inclusive, in order; of two, the first place's."""
        found: dict[int, SourceFile] = {}
        for number, place, size, stamp in sorted(zip(*self.rows, strict=True)):
            if first <= number <= last and number not in found:
                root, folder = self.folders[place]
                found[number] = SourceFile(root, f"{folder}{number:03d}.png", size, stamp)
        return tuple(found.values())


def find_roots(source: SourcePath) -> list[SourcePath]:
    """Find the ``Images_png*`` folders and zips of a download; folders come first, being quicker to read."""
    roots = [path for path in source.glob("Images_png*") if path.is_dir() or path.suffix == ".zip"]
    if not roots:
        raise SourceError(f"{source.name}: no Images_png* folder or zip in it; name them with --images")
    return sorted(roots, key=lambda path: (path.is_file(), path.name))


def check_md5(roots: Iterable[SourcePath], checksums: SourcePath) -> tuple[list[SourcePath], list[Issue]]:
    """Leave out the zips whose MD5 is not the published one.

    Parameters
    ----------
    roots
        Folders, which are let through, and zips.
    checksums
        ``MD5_checksums.txt`` of the release: a sum and a name on each line.

    Returns
    -------
    list of SourcePath
        What can be used.
    list of Issue
        The zips left out.
    """
    try:
        lines = [line.split() for line in checksums.read_text().splitlines() if line.strip()]
        published = {name.removeprefix("*"): digest for digest, name in lines}
    except (OSError, ValueError) as error:
        raise SourceError(f"{checksums.name}: not a list of MD5 sums and names ({error})") from error
    good, issues = [], []
    for root in roots:
        found = _md5(root) if root.is_file() else None
        if found is None or found == published.get(root.name):
            good.append(root)
        else:
            known = published.get(root.name, "none")
            text = f"{root.name}: MD5 is {found}, published is {known}; it is left out, fetch it again"
            issues.append(Issue("md5-differs", root.name, root.name, text))
    return good, issues


def index_slices(roots: Iterable[SourcePath]) -> tuple[dict[str, SeriesSlices], list[Issue], list[Issue]]:
    """List the slices under every root.

    Parameters
    ----------
    roots
        Folders and zips that hold ``<series>/<slice>.png`` at any depth.

    Returns
    -------
    dict of str to SeriesSlices
        By series.
    list of Issue
        Roots that cannot be used.
    list of Issue
        What is odd.
    """
    found: dict[str, SeriesSlices] = defaultdict(SeriesSlices)
    failed: list[Issue] = []
    odd: list[Issue] = []
    for root in roots:
        count = 0
        try:
            for series_id, folder, number, file in _iter_slices(root, odd):
                found[series_id].add(folder, number, file)
                count += 1
        except SourceError as error:
            failed.append(Issue("bad-root", root.name, root.name, str(error)))
            continue
        if not count:
            text = f"{root.name}: no <series>/<slice>.png in it; is it the right folder or zip?"
            failed.append(Issue("empty-root", root.name, root.name, text))
    for series_id, slices in found.items():
        twice = len(slices.rows[0]) - len(slices.numbers)
        if twice:
            text = f"{series_id}: {twice} slices are there more than once; the first root's are read"
            odd.append(Issue("slices-twice", series_id, "", text))
    return dict(found), failed, odd


def find_runs(sub: SubVolume, slices: SeriesSlices) -> list[tuple[int, int]]:
    """Give first and last number of every unbroken range of slices that is here, within a sub-volume."""
    present = [number for number in slices.numbers if sub.first <= number <= sub.last]
    groups = (list(group) for _, group in groupby(enumerate(present), lambda pair: pair[1] - pair[0]))
    return [(group[0][1], group[-1][1]) for group in groups]


def missing_volume(sub: SubVolume) -> Issue:
    """Say that nothing of a sub-volume is here."""
    text = f"{sub.name}: none of its slices is here; its {len(sub.marks)} lesions are left out"
    return Issue("missing-volume", sub.name, "", text, tuple(mark.lesion_id for mark in sub.marks))


def missing_slices(sub: SubVolume, runs: Sequence[tuple[int, int]]) -> Iterator[Issue]:
    """Say which slices of a sub-volume are absent, if any are."""
    ends = [sub.first - 1, *(end for run in runs for end in run), sub.last + 1]
    gaps = [(before + 1, after - 1) for before, after in zip(ends[::2], ends[1::2], strict=True) if before + 1 < after]
    if gaps:
        absent = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in gaps)
        names = ", ".join(volume_name(sub.series_id, *run) for run in runs)
        text = f"{sub.name}: slices {absent} are missing; what is here is stored as {names}"
        lost = [mark.lesion_id for mark in sub.marks if any(first <= mark.key_slice <= last for first, last in gaps)]
        yield Issue("missing-slices", sub.name, "", text, tuple(lost))


def unlisted_slices(slices: dict[str, SeriesSlices], sub_volumes: Iterable[SubVolume]) -> Iterator[Issue]:
    """Say which slices lie outside of every range of the table."""
    listed: dict[str, list[SubVolume]] = defaultdict(list)
    for sub in sub_volumes:
        listed[sub.series_id].append(sub)
    for series_id, here in sorted(slices.items()):
        unlisted = sum(not any(s.first <= n <= s.last for s in listed[series_id]) for n in here.numbers)
        if unlisted:
            text = f"{series_id}: {unlisted} slices lie in no Slice_range of the table; they are left out"
            yield Issue("unlisted-slices", series_id, here.folders[0][1], text)


def _md5(path: SourcePath) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _iter_slices(root: SourcePath, odd: list[Issue]) -> Iterator[tuple[str, str, int, SourceFile]]:
    is_archive = root.is_file()
    for file in iter_files(root):
        if is_archive and escapes(file.name):
            text = f"{root.name}: member {file.name!r} points outside of the archive; it is left out"
            odd.append(Issue("escaping-name", root.name, root.name, text))
        elif parts := SLICE_PATH.fullmatch(file.name):
            yield parts["series"], parts["folder"], int(parts["slice"]), file
