"""The same request for many objects, several at a time where each has to travel."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from lesionzarr.store._folder import Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

    from lesionzarr.store.location import Location

T = TypeVar("T")
R = TypeVar("R")

AT_A_TIME = 32


def map_in_order(location: Location, work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Do some work with a store for every item, and give the results in the order of the items.

    Parameters
    ----------
    location
        The store. One in a folder answers at once, and is asked for one thing after the other.
    work
        Called once for each item, from any thread.
    items
        No more than 64 are taken ahead, so that as many results are in memory.

    Yields
    ------
    object
        What `work` returned; its first error is raised.
    """
    if isinstance(location, Folder):
        yield from map(work, items)
        return
    waiting = iter(items)
    with ThreadPoolExecutor(AT_A_TIME, thread_name_prefix="lesionzarr") as pool:
        running: deque[Future[R]] = deque(pool.submit(work, item) for item in islice(waiting, 2 * AT_A_TIME))
        try:
            while running:
                result = running.popleft().result()
                running.extend(pool.submit(work, item) for item in islice(waiting, 1))
                yield result
        finally:
            for future in running:
                future.cancel()
