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
    """Give the function that is called with how far a conversion is."""
    began = time.monotonic()
    with _show("slices") as show:

        def tell(progress: Progress) -> None:
            show(progress.slices, progress.total_slices, _rates(progress, time.monotonic() - began))

        yield tell


@contextmanager
def show_count(unit: str) -> Iterator[Callable[[int, int], None]]:
    """Give the function that is called with how many are done, and of how many."""
    with _show(unit) as show:
        yield lambda done, total: show(done, total, "")


@contextmanager
def _show(unit: str) -> Iterator[Callable[[int, int, str], None]]:
    if sys.stderr.isatty():
        with tqdm(unit=f" {unit}", unit_scale=True, dynamic_ncols=True) as bar:

            def move(done: int, total: int, text: str) -> None:
                bar.total = total
                bar.set_postfix_str(text, refresh=False)
                bar.update(done - bar.n)

            yield move
    else:
        yield _plain_lines(unit)


def _plain_lines(unit: str) -> Callable[[int, int, str], None]:
    began = last = time.monotonic()

    def tell(done: int, total: int, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= INTERVAL_S or done == total:
            last = now
            scaled = unit == "B"
            line = tqdm.format_meter(
                done, total, now - began, ncols=0, unit=f" {unit}", unit_scale=scaled, postfix=text or None
            )
            print(line, file=sys.stderr)

    return tell


def _rates(progress: Progress, seconds: float) -> str:
    """Say what all workers do together; MB are of voxels before compression."""
    done = f"{progress.volumes}/{progress.total_volumes} volumes"
    rates = f"{progress.volumes / seconds:.3g} volumes/s, {progress.bytes / seconds / 1e6:.0f} MB/s" if seconds else ""
    workers = f"{progress.workers} worker{'s' if progress.workers != 1 else ''}"
    return ", ".join(filter(None, (done, rates, workers)))
