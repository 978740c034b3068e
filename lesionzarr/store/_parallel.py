"""The same work for many items, on threads of its own."""

from __future__ import annotations

import os
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")
R = TypeVar("R")


def cores() -> int:
    """Give the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def work_through(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Do some work for every item, and give the results as they come.

    Parameters
    ----------
    work
        Called once for each item, from any thread.
    items
        In the order in which they are begun; no more than twice `threads` are taken ahead.
    threads
        Most calls at a time.

    Yields
    ------
    object
        What `work` returned. Its first error is raised, and what has not begun then is left.
    """
    waiting = iter(items)
    with ThreadPoolExecutor(threads, thread_name_prefix="lesionzarr") as pool:
        running: set[Future[R]] = {pool.submit(work, item) for item in islice(waiting, 2 * threads)}
        try:
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                running |= {pool.submit(work, item) for item in islice(waiting, len(done))}
                for future in done:
                    yield future.result()
        finally:
            for future in running:
                future.cancel()
