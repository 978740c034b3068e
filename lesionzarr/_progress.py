"""Progress of long work on stderr: a bar with rate and time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from lesionzarr.converters._run import Progress

INTERVAL_S = 10.0
"""Between plain lines, so that a log of a conversion of hours stays readable."""


@contextmanager
def show_progress() -> Iterator[Callable[[Progress], None]]:
    """Give the function that is called with how far the work is."""
    if sys.stderr.isatty():
        with tqdm(unit=" slices", unit_scale=True, dynamic_ncols=True) as bar:

            def move(progress: Progress) -> None:
                bar.total = progress.total_slices
                bar.set_postfix_str(f"{progress.volumes}/{progress.total_volumes} volumes", refresh=False)
                bar.update(progress.slices - bar.n)

            yield move
    else:
        yield _plain_lines()


def _plain_lines() -> Callable[[Progress], None]:
    began = last = time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= INTERVAL_S or progress.volumes == progress.total_volumes:
            last = now
            print(
                tqdm.format_meter(progress.slices, progress.total_slices, now - began, ncols=0, unit=" slices"),
                file=sys.stderr,
            )

    return tell


@contextmanager
def show_count(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Give the function that is called with how many are done, and of how many."""
    if sys.stderr.isatty():
        with tqdm(unit=f" {unit}", unit_scale=True, dynamic_ncols=True) as bar:

            def move(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            yield move
    else:
        began = last = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last >= INTERVAL_S:
                last = now
                print(tqdm.format_meter(done, total, now - began, ncols=0, unit=f" {unit}"), file=sys.stderr)

        yield tell
