"""Work on several threads of this process; the calling thread takes its share."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")


def cores() -> int:
    """Give the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(work: Callable[[T], None], items: Sequence[T], threads: int) -> None:
    """Do some work for every item; the first error is raised, and stops what has not begun.

    Parameters
    ----------
    work
        Called once for each item, from any thread.
    items
        In the order in which they are begun.
    threads
        Most calls at a time.
    """
    if len(items) == 1:
        work(items[0])
        return
    waiting = iter(items)
    failed = False

    def drain() -> None:
        nonlocal failed
        for item in waiting:
            if failed:
                return
            done = False
            try:
                work(item)
                done = True
            finally:
                failed = failed or not done

    others = min(threads, len(items)) - 1
    futures = [_pool(os.getpid(), threads).submit(drain) for _ in range(others)]
    try:
        drain()
    finally:
        # what others do writes into arrays of the caller: it has to end before the caller goes on, whatever happens;
        # what has not begun need not, and would wait for ever where all threads wait like this
        errors = [future.exception() for future in futures if not future.cancel()]
    for error in errors:
        if error is not None:
            raise error


@lru_cache(maxsize=4)
def _pool(pid: int, threads: int) -> ThreadPoolExecutor:  # noqa: ARG001
    # pid: threads do not survive a fork, so a child makes its own
    return ThreadPoolExecutor(threads, thread_name_prefix="lesionzarr")
