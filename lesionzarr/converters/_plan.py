"""What a conversion has to do, decided before it reads any pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lesionzarr.store.layout import ARRAY, GROUP_FILE, check_ids, volume_key
from lesionzarr.store.writer import lesion_rows, read_attributes, volume_attributes

if TYPE_CHECKING:
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

    @property
    def slices(self) -> int:
        """Number of slices to read."""
        return sum(len(volume.files) for volume in self.convert)

    @property
    def raw_bytes(self) -> int:
        """Size of the voxels to write, before compression."""
        return sum(2 * z * y * x for z, y, x in (volume.grid.shape for volume in self.convert))


def plan_conversion(scan: Scan, location: Location, profile: str) -> Plan:
    """Compare a scan with what the store holds.

    Parameters
    ----------
    scan
        What the source holds.
    location
        The store; one small object is read per volume that is there.
    profile
        Codecs, by name.

    Returns
    -------
    Plan

    Raises
    ------
    SourceError
        Volume ids that a store cannot hold.
    """
    check_ids([volume.volume_id for volume in scan.volumes])
    there = set(location.list_folders("volumes"))
    parts: dict[str, list[Volume]] = {"convert": [], "update": [], "skip": []}
    for volume in scan.volumes:
        verb = _verb(volume, location, profile) if volume.volume_id in there else "convert"
        parts[verb].append(volume)
    return Plan(*(tuple(parts[verb]) for verb in ("convert", "update", "skip")))


def _verb(volume: Volume, location: Location, profile: str) -> str:
    own = read_attributes(location, volume.volume_id)
    if own is None:
        return "convert"
    made = own["provenance"]
    if (made["fingerprint"], made["profile"]) != (volume.fingerprint, profile):
        return "convert"
    if location.size(f"{volume_key(volume.volume_id)}/{ARRAY}/{GROUP_FILE}") is None:
        return "convert"
    # the shape is that of the files, which may differ from what the table says
    stated = {**volume_attributes(volume), "shape": own["volume"]["shape"]}
    return "skip" if (own["volume"], own["lesions"]) == (stated, lesion_rows(volume)) else "update"
