"""What a conversion has to do, decided before it reads any pixel."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionzarr.report import Issue
from lesionzarr.store._ordered import map_in_order
from lesionzarr.store.layout import CHECKSUM, KINDS, VOLUMES, check_ids
from lesionzarr.store.writer import is_whole, lesion_rows, read_attributes, volume_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lesionzarr.series import Scan, Volume
    from lesionzarr.store.location import Location


@dataclass(frozen=True)
class Plan:
    """Every volume of a scan, by what has to be done."""

    convert: tuple[Volume, ...]
    """Not there, half there, or made from other files or with other settings."""
    update: tuple[Volume, ...]
    """There, but with other lesions or another spacing in the table: that is written anew, the voxels stay."""
    skip: tuple[Volume, ...]
    """There, and the same."""
    replaced: dict[str, tuple[str, ...]]
    """Volumes of earlier runs that go, and those that hold their slices now."""
    issues: tuple[Issue, ...]
    """What is odd about the store beside this source."""
    before: dict[str, str | None] = field(default_factory=dict)
    """Checksums of the groups that were there, by volume, for those to convert or to update."""

    @property
    def slices(self) -> int:
        """Number of slices to read."""
        return sum(len(volume.files) for volume in self.convert)

    @property
    def raw_bytes(self) -> int:
        """Size of the voxels to write, before compression."""
        return sum(map(voxel_bytes, self.convert))


def plan_conversion(scan: Scan, location: Location, profile: str | None) -> Plan:
    """Compare a scan with what the store holds.

    Parameters
    ----------
    scan
        What the source holds.
    location
        The store; one small object is read per volume that is there.
    profile
        Codecs, by name; None takes those that each volume has.

    Returns
    -------
    Plan

    Raises
    ------
    SourceError
        Volume ids that a store cannot hold.
    """
    check_ids([volume.volume_id for volume in scan.volumes])
    there = set(location.list_folders(VOLUMES))
    replaced, poorer = _compare_ranges(scan, location, there)
    parts: dict[str, list[Volume]] = {"convert": [], "update": [], "skip": []}
    issues = list(poorer.values())
    before: dict[str, str | None] = {}

    def compare(volume: Volume) -> tuple[Volume, dict[str, Any] | None, str]:
        own = read_attributes(location, volume.volume_id) if volume.volume_id in there else None
        return volume, own, compare_volume(volume, own, location, profile)

    wanted = (volume for volume in scan.volumes if volume.volume_id not in poorer)
    for volume, own, verb in map_in_order(location, compare, wanted):
        parts[verb].append(volume)
        if own is not None and verb != "skip":
            before[volume.volume_id] = own.get(CHECKSUM)
        if own is not None and verb != "convert":
            issues += size_issues(volume, own["volume"]["shape"])
    convert, update, skip = (tuple(parts[verb]) for verb in ("convert", "update", "skip"))
    return Plan(convert, update, skip, replaced, tuple(issues), before)


def voxel_bytes(volume: Volume) -> int:
    """Give the size of the voxels of a volume before compression, as its source states its shape."""
    return math.prod(volume.grid.shape) * np.dtype(KINDS[volume.modality].dtype).itemsize


def size_issues(volume: Volume, shape: Sequence[int]) -> Iterator[Issue]:
    """Say that the files of a volume have another size than the table says, if they have."""
    stated, found = tuple(volume.grid.shape), tuple(shape)
    if stated != found:
        text = f"{volume.volume_id}: the table says {stated} voxels, the files have {found}; boxes may not fit"
        yield Issue("size-differs", volume.volume_id, "", text)


def compare_volume(volume: Volume, own: dict[str, Any] | None, location: Location, profile: str | None) -> str:
    """Tell what has to be done for a volume, of which the store has the attributes `own`: convert, update or skip."""
    if own is None:
        return "convert"
    made = own["provenance"]
    if (made["fingerprint"], made["profile"]) != (volume.fingerprint, profile or made["profile"]):
        return "convert"
    if volume.keeps_headers != ("headers" in made):
        return "convert"
    if not is_whole(location, volume.volume_id, own):
        return "convert"
    # the shape is that of the files, which may differ from what the table says
    stated = {**volume_attributes(volume), "shape": own["volume"]["shape"]}
    return "skip" if (own["volume"], own["lesions"]) == (stated, lesion_rows(volume)) else "update"


def _compare_ranges(
    scan: Scan, location: Location, there: set[str]
) -> tuple[dict[str, tuple[str, ...]], dict[str, Issue]]:
    """Find volumes of the store that hold slices of this source under another range.

    A slice that arrived late makes one volume of two, and the two would hold its lesions a second time: they are to be
    replaced. Where the source has a part of what the store has, and nothing else, the store keeps what it has.
    """
    by_series: dict[str, list[Volume]] = defaultdict(list)
    for volume in scan.volumes:
        by_series[volume.series_id].append(volume)
    replaced: dict[str, tuple[str, ...]] = {}
    poorer: dict[str, Issue] = {}
    old_ids = sorted(there - {volume.volume_id for volume in scan.volumes})
    attributes = map_in_order(location, lambda old_id: read_attributes(location, old_id), old_ids)
    for old_id, own in zip(old_ids, attributes, strict=True):
        old = own["volume"] if own else {}
        first, last = old.get("first_slice", 0), old.get("last_slice", -1)
        new = [v for v in by_series[old.get("series_id", "")] if v.first_slice <= last and first <= v.last_slice]
        shared = sum(min(v.last_slice, last) - max(v.first_slice, first) + 1 for v in new)
        if new and shared <= last - first and all(first <= v.first_slice and v.last_slice <= last for v in new):
            for volume in new:
                text = f"{volume.volume_id}: the store has more of it, as {old_id}, and keeps that"
                poorer[volume.volume_id] = Issue("kept-volume", volume.volume_id, "", text)
        elif new:
            replaced[old_id] = tuple(volume.volume_id for volume in new)
    return replaced, poorer
