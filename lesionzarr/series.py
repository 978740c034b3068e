"""Volumes and the files that they come from: what a converter finds and a store holds."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesionzarr.geometry import Grid
    from lesionzarr.lesion import Lesion
    from lesionzarr.report import Issue
    from lesionzarr.source import Remote


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file that voxels come from, in a folder or in a zip."""

    root: str | Remote
    """Folder or zip that holds it; with how it is read, where that is behind a URL."""
    name: str
    """Path inside the root, with forward slashes."""
    size: int
    """Length in bytes, unpacked."""
    stamp: int
    """Time of the last change in ns for a file in a folder, CRC-32 for a member of a zip."""


@dataclass(frozen=True)
class Volume:
    """One unbroken, evenly spaced stack of slices of one series: the unit that is stored as one array."""

    volume_id: str
    series_id: str
    study_id: str
    patient_id: str
    grid: Grid
    """Shape as the source's table states it; the files have the last word when they are read."""
    first_slice: int
    """Lowest of the source's own numbers of its slices."""
    last_slice: int
    """Highest of them."""
    files: tuple[SourceFile, ...]
    """One per slice, in the order of z; a file that holds several is there once for each."""
    lesions: tuple[Lesion, ...] = ()
    modality: str = "CT"
    """``CT``, stored as HU, or ``PT``, stored as activity in Bq/ml."""
    tags: dict[str, Any] = field(default_factory=dict)
    """What else the source says about the series, by the keywords of DICOM; JSON values."""
    frames: tuple[int, ...] | None = None
    """0-based frame of each slice in its file; None where every file is one slice, or holds the volume whole."""
    keeps_headers: bool = False
    """The headers of its files are stored too."""
    names_files: bool = True
    """The store tells the names of its files."""
    mask_files: tuple[SourceFile, ...] = ()
    """What its instance mask is read from; none where the source has no mask."""
    mask_rule: str = ""
    """What was done to the mask, where the store does not hold it as the files do."""

    @property
    def fingerprint(self) -> str:
        """SHA-256 over name, size and stamp of every file: two equal ones mean that the source has not changed."""
        rows: list[Any] = [[file.name, file.size, file.stamp] for file in (*self.files, *self.mask_files)]
        if self.mask_files:
            rows.append([len(self.mask_files), self.mask_rule])
        return "sha256:" + hashlib.sha256(json.dumps(rows).encode()).hexdigest()


@dataclass(frozen=True)
class Scan:
    """What a source holds, found without opening any pixel data."""

    volumes: tuple[Volume, ...]
    """By series and slices; every lesion that can be placed is in one of them."""
    missing: tuple[Issue, ...] = ()
    """Volumes that the source's table names and that have no image here."""
    failed: tuple[Issue, ...] = ()
    """Rows, files and archives that cannot be used, with the reason."""
    issues: tuple[Issue, ...] = ()
    """What is odd and was dealt with."""
