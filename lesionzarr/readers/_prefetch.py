"""Results of slow reads in order, some of them read ahead on a thread."""

from __future__ import annotations

import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from lesionzarr.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")

THREAD = "lesionzarr-ahead"
"""Name of the thread, before a number."""


def read_ahead(read: Callable[[T], R], items: Iterable[T], ahead: int) -> Generator[R, None, None]:
    """Read items, in order.

    Parameters
    ----------
    read
        Called once for each item, from one thread of its own.
    items
        What to read.
    ahead
        Most results that are read before they are asked for; with 0 the caller's thread reads.

    Yields
    ------
    R
        One result per item. What `read` raises is raised in its place, and ends the rest. The thread begins with the
        first result asked for; closing or dropping the generator ends it when the read that it is in returns.
    """
    if not ahead:
        yield from map(read, items)
        return
    process = os.getpid()
    waiting: deque[Future[R]] = deque()
    # an executor's thread waits without polling, and ends at the exit of the interpreter even if nobody closes it
    thread = ThreadPoolExecutor(1, thread_name_prefix=THREAD)
    try:
        for item in items:
            waiting.append(thread.submit(read, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
                _check_process(process)
        while waiting:
            yield waiting.popleft().result()
            _check_process(process)
    finally:
        # no waiting: the collector may close the generator from any thread, this one's own too
        thread.shutdown(wait=False, cancel_futures=True)


def _check_process(process: int) -> None:
    if os.getpid() != process:
        # the thread did not come along, so its results would be waited for forever
        raise SettingError("this iterator of batches was begun before a fork; begin a new one in the child")
