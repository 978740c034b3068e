"""What a conversion met: everything odd in a dataset is data, kept and written beside the catalog."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Issue:
    """One odd thing, and where it was met."""

    kind: str
    """Stable word for machines, such as ``"missing-slices"``."""
    item: str
    """Id of the volume, series or lesion, or the table row."""
    file: str
    """File of the source, relative to the root that it was found under."""
    message: str
    """One sentence for people: the fault, and what was done about it."""
    lesions: tuple[str, ...] = ()
    """Ids of the lesions that it touches."""


@dataclass(frozen=True)
class Report:
    """Outcome of one conversion, as written to ``catalog/report.json``."""

    source: str
    """Name of the converter."""
    tool: str
    """``lesionzarr`` and its version."""
    converted: tuple[str, ...] = ()
    """Ids of the volumes written in this run."""
    updated: tuple[str, ...] = ()
    """Ids of the volumes whose voxels were kept and whose lesion table was written anew."""
    skipped: tuple[str, ...] = ()
    """Ids of the volumes that were there already, from the same files with the same settings."""
    failed: tuple[Issue, ...] = ()
    """What could not be converted, with the reason."""
    missing: tuple[Issue, ...] = ()
    """Volumes that the source's table names and its images lack (a partial download is no failure)."""
    issues: tuple[Issue, ...] = ()
    """Everything else that is odd and was dealt with as the message says."""
    counts: dict[str, int] = field(default_factory=dict)
    """Number of slices converted, lesions in the table and so on."""

    def to_json(self) -> dict[str, Any]:
        """Give the report as plain JSON values.

        Returns
        -------
        dict
            Keys as the attributes of this class; tuples become lists.
        """
        return asdict(self)
