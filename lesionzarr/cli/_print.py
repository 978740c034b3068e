"""How commands print counts and issues."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.report import Issue

SHOWN = 20


def print_counts(counts: dict[str, int]) -> None:
    for name, number in counts.items():
        print(f"{name + ':':26} {number:,}")


def print_issues(word: str, issues: Sequence[Issue], where: str = "report.json") -> None:
    for issue in issues[:SHOWN]:
        print(f"{word}: {issue.message}", file=sys.stderr)
    if len(issues) > SHOWN:
        print(f"{word}: ... and {len(issues) - SHOWN:,} more, in {where}", file=sys.stderr)
