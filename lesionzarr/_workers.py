"""Processes that work beside this one: those of this machine, or of a dask scheduler that is named."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from lesionzarr.errors import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

WAITING = 2
"""Tasks per worker that are handed out at a time: one that runs, one that is ready."""

PATIENCE_S = 30
"""Seconds to wait for a scheduler that was named, and for its first worker."""

IGNORE_INTERRUPT = "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
"""Ctrl-C reaches every process of a terminal; the steering one ends the workers, which need not say so themselves."""


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
        with cluster, Client(cluster) as client:
            yield client
