"""What an export of many lesions or volumes gives back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from lesionzarr.report import Issue


@dataclass(frozen=True)
class Exported:
    """Files of an export, and what did not get into them."""

    files: tuple[Path, ...]
    counts: dict[str, int] = field(default_factory=dict)
    failed: tuple[Issue, ...] = ()
    """Lesions and volumes that the format cannot express or the store does not have, each with the reason."""
