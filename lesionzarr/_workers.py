"""Processes that work beside this one: those of this machine, or of a dask scheduler that is named."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from lesionzarr.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

WAITING = 2
"""Tasks per worker that are handed out at a time: one that runs, one that is ready."""

KEEP_S = 5.0
"""Between two looks at whether each worker of this machine is there."""

PATIENCE_S = 30
"""Seconds to wait for a scheduler that was named, and for its first worker."""

IGNORE_INTERRUPT = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Ctrl-C reaches every process of a terminal; the steering one ends the workers, which need not say so themselves."""


class Done(NamedTuple):
    """A task that has ended."""

    item: Any
    """What it was about."""
    future: Any
    """The ``distributed.Future``, which holds its result."""
    was_killed: bool
    """Every worker that tried it was lost."""
    workers: int
    """Number of workers when it ended."""


@contextmanager
def open_client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """Start as many workers, or use those of a scheduler; gives a ``distributed.Client``."""
    from distributed import Client, LocalCluster

    if scheduler is not None:
        with ExitStack() as stack:
            try:
                client = stack.enter_context(Client(scheduler, timeout=PATIENCE_S))
                client.wait_for_workers(1, timeout=PATIENCE_S)
            except (OSError, ValueError) as error:
                raise SettingError(f"scheduler {scheduler}: not reached, or without workers ({error})") from error
            yield client
    else:
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            # None would open port 8787 to the network
            dashboard_address="127.0.0.1:0",
            silence_logs=logging.CRITICAL,
            preload=IGNORE_INTERRUPT,
        )
        with cluster, Client(cluster) as client, _kept(cluster, workers):
            yield client


@contextmanager
def _kept(cluster: Any, workers: int) -> Iterator[None]:
    """Start workers anew that are gone for good: a nanny that fails to start one in time, or at all, gives up."""
    ended = threading.Event()

    def keep() -> None:
        while not ended.wait(KEEP_S):
            cluster.scale(workers)

    keeper = threading.Thread(target=keep, name="lesionzarr workers", daemon=True)
    keeper.start()
    try:
        yield
    finally:
        ended.set()
        keeper.join()


def iter_done(client: Any, items: Iterable[Any], submit: Callable[[Any], Any]) -> Iterator[Done]:
    """Hand out tasks as others end, so that no more than two per worker wait at any time.

    Parameters
    ----------
    client
        Of `open_client`.
    items
        One for each task; taken when there is room for one more.
    submit
        Gives an item to the client; returns the future.

    Yields
    ------
    Done
        In the order in which they end.

    Raises
    ------
    SettingError
        The scheduler was lost.
    Exception
        What a task raised.
    """
    from distributed import KilledWorker, as_completed

    waiting = iter(items)
    asked: dict[str, Any] = {}
    running = as_completed()

    def fill() -> int:
        """Give the number of workers. They come and go, on a cluster with a queue of jobs."""
        threads = client.nthreads()
        slots = WAITING * max(1, sum(threads.values()))
        for item in islice(waiting, max(0, slots - len(asked))):
            future = submit(item)
            asked[future.key] = item
            running.add(future)
        return len(threads)

    fill()
    for future in running:
        item = asked.pop(future.key)
        if future.cancelled():
            raise SettingError("the scheduler was lost; start it, and run the same again: what is done stays")
        error = future.exception()
        if error is not None and not isinstance(error, KilledWorker):
            raise error
        # refilled when the item is dealt with: it may be a reason to stop
        yield Done(item, future, error is not None, len(client.nthreads()))
        fill()
