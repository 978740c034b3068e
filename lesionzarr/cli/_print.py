"""How commands print counts and issues."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from lesionzarr.export.tables import to_json, to_text, write_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import pandas as pd

    from lesionzarr.export.outcome import Exported
    from lesionzarr.report import Issue

SHOWN = 20
IN_JSON = "which --json lists"
"""Where issues are that are not printed."""


def print_counts(counts: dict[str, int]) -> None:
    for name, number in counts.items():
        print(f"{name + ':':26} {number:,}")


def print_issues(word: str, issues: Sequence[Issue], rest: str = "in report.json") -> None:
    """Print the first issues, and where the rest are."""
    for issue in issues[:SHOWN]:
        print(f"{word}: {issue.message}", file=sys.stderr)
    if len(issues) > SHOWN:
        print(f"{word}: ... and {len(issues) - SHOWN:,} more, {rest}", file=sys.stderr)


def print_table(frame: pd.DataFrame, what: str) -> None:
    """Print the first rows of a table, decimals to two places."""
    print(to_text(frame.head(SHOWN).round(2)) if len(frame) else f"no {what}")
    if len(frame) > SHOWN:
        print(f"... and {len(frame) - SHOWN:,} more {what} (-o writes all, --json prints all)")


def write_or_print(frame: pd.DataFrame, columns: list[str], arguments: argparse.Namespace, what: str) -> None:
    """Write a table to ``--output``, or print it: as JSON, or some columns of its first rows."""
    if arguments.output:
        write_table(frame, arguments.output)
        told = {what: len(frame), "written": str(arguments.output)}
        print(json.dumps(told) if arguments.json else f"{len(frame):,} {what} written to {arguments.output}")
    elif arguments.json:
        print(to_json(frame))
    else:
        print_table(frame[columns], what)


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
