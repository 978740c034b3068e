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
        began = time.monotonic()
        with tqdm(unit=" slices", unit_scale=True, dynamic_ncols=True) as bar:

            def move(progress: Progress) -> None:
                bar.total = progress.total_slices
                bar.set_postfix_str(_rates(progress, time.monotonic() - began), refresh=False)
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
            meter = tqdm.format_meter(
                progress.slices,
                progress.total_slices,
                now - began,
                ncols=0,
                unit=" slices",
                postfix=_rates(progress, now - began),
            )
            print(meter, file=sys.stderr)

    return tell


def _rates(progress: Progress, seconds: float) -> str:
    """Say what all workers do together; MB are of voxels before compression."""
    done = f"{progress.volumes}/{progress.total_volumes} volumes"
    rates = f"{progress.volumes / seconds:.3g} volumes/s, {progress.bytes / seconds / 1e6:.0f} MB/s" if seconds else ""
    workers = f"{progress.workers} worker{'s' if progress.workers != 1 else ''}"
    return ", ".join(filter(None, (done, rates, workers)))
