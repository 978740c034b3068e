"""How commands print counts and issues."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lesionzarr.export.outcome import Exported
    from lesionzarr.report import Issue

SHOWN = 20


def print_counts(counts: dict[str, int]) -> None:
    for name, number in counts.items():
        print(f"{name + ':':26} {number:,}")


def print_issues(word: str, issues: Sequence[Issue]) -> None:
    for issue in issues[:SHOWN]:
        print(f"{word}: {issue.message}", file=sys.stderr)
    if len(issues) > SHOWN:
        print(f"{word}: ... and {len(issues) - SHOWN:,} more, in report.json", file=sys.stderr)


def print_exported(exported: Exported, *, as_json: bool) -> int:
    """Tell what was written and what was not; give the exit code."""
    failed = [issue.message for issue in exported.failed]
    if as_json:
        print(
            json.dumps({"counts": exported.counts, "written": [str(path) for path in exported.files], "failed": failed})
        )
    else:
        print_counts(exported.counts)
        print(f"{len(exported.files):,} files, such as {exported.files[-1]}" if exported.files else "nothing written")
        for text in failed:
            print(f"failed: {text}", file=sys.stderr)
    return 1 if failed else 0
