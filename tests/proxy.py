"""A faulty network for the tests: a proxy between HTTP client and server that delays, counts, and breaks connections.

Bytes pass as they are, so signatures of S3 requests, which cover the Host header, stay valid.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import defaultdict, deque
from contextlib import aclosing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

PIECE = 1 << 18
BROKEN = (ConnectionError, asyncio.IncompleteReadError)
REFUSALS = {
    "unavailable": ("503 Slow Down", "SlowDown", "Please reduce your request rate."),
    "skewed": (
        "403 Forbidden",
        "RequestTimeTooSkewed",
        "The time of the request is too far from ours.",
    ),
    "unknown": ("501 Not Implemented", "NotImplemented", "A header you provided implies what is not implemented."),
}
"""Answers of the proxy itself: status, code and text of S3."""
CONDITION = "if-none-match"


@dataclass(frozen=True)
class Faults:
    """Chances from 0 to 1 that a request fails; at most one fault befalls a request.

    Attributes
    ----------
    reset
        The connection is reset and the server never hears of the request.
    lost
        The server has answered, and the connection is reset before the client hears of it.
    unavailable
        The proxy answers 503 and the server never hears of the request.
    skewed
        The proxy answers that the clock of the client is wrong, and the server never hears of the request.
    truncated
        The connection ends after half of the answer's body; as `lost` where the answer has none.
    stalled
        Nothing comes for `stall_s` after half of the answer's body, or before the answer where it has none.
    """

    reset: float = 0.0
    lost: float = 0.0
    unavailable: float = 0.0
    skewed: float = 0.0
    truncated: float = 0.0
    stalled: float = 0.0
    stall_s: float = 5.0

    def draw(self, dice: random.Random) -> str:
        """Name of the fault that befalls a request, empty for none."""
        left = dice.random()
        for name in ("reset", "lost", "unavailable", "skewed", "truncated", "stalled"):
            left -= getattr(self, name)
            if left < 0:
                return name
        return ""


@dataclass
class Request:
    """A request that came to the proxy; bytes of bodies only, `status` 0 while there is no answer."""

    method: str
    path: str
    range: str
    fault: str
    status: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


@dataclass
class Count:
    """Requests of one method and the bytes of their bodies."""

    requests: int = 0
    bytes_up: int = 0
    bytes_down: int = 0


class Proxy:
    """A proxy in a thread of the tests; what is set on it holds from the next request on.

    Parameters
    ----------
    server
        URL of the server, such as ``http://127.0.0.1:18333``.
    seed
        Of the faults.

    Attributes
    ----------
    latency_ms
        What a round trip takes longer, half of it in either direction; a new connection costs one round trip more,
        as the handshake of TCP does.
    bandwidth
        Bytes per second in either direction that all connections share; None for no limit.
    faults
        Chances of faults.
    conditions
        What becomes of ``If-None-Match``: "kept", "ignored", which the signature of a request does not survive, or
        "refused", as by a server that does not know it.
    log
        The last 10,000 requests.
    counts
        Requests and bytes by method since `reset_counts`.
    """

    def __init__(self, server: str, *, seed: int = 0) -> None:
        self.latency_ms = 0.0
        self.bandwidth: float | None = None
        self.faults = Faults()
        self.conditions = "kept"
        self.endpoint = ""
        parts = urlsplit(server)
        self._server = (parts.hostname, parts.port)
        self._dice = random.Random(seed)
        self._line_free = {"up": 0.0, "down": 0.0}
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)
        self.reset_counts()

    @property
    def requests(self) -> int:
        """Requests since `reset_counts`, failed ones too."""
        return sum(count.requests for count in list(self.counts.values()))

    @property
    def bytes_down(self) -> int:
        """Bytes of answers' bodies sent to clients since `reset_counts`."""
        return sum(count.bytes_down for count in list(self.counts.values()))

    @property
    def bytes_up(self) -> int:
        """Bytes of requests' bodies sent to the server since `reset_counts`."""
        return sum(count.bytes_up for count in list(self.counts.values()))

    def reset_counts(self) -> None:
        """Forget all requests."""
        self.counts: defaultdict[str, Count] = defaultdict(Count)
        self.log: deque[Request] = deque(maxlen=10_000)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10), "the proxy's thread did not come up"
        return self

    def __exit__(self, *exception: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()

    async def _run(self) -> None:
        self._loop, self._done = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=4 * PIECE, backlog=512)
        self.endpoint = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        self._listening.set()
        await self._done.wait()
        server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        await asyncio.sleep(self.latency_ms / 1000)
        try:
            while head := await _head(reader):
                if upstream is None or upstream[0].at_eof() or upstream[0].exception():
                    if upstream is not None:
                        upstream[1].close()
                    upstream = await asyncio.open_connection(*self._server, limit=4 * PIECE)
                if not await self._exchange((reader, writer), upstream, head):
                    break
        except BROKEN:
            _reset(writer)
        except asyncio.CancelledError:  # the end of the proxy
            _reset(writer)
        finally:
            writer.close()
            if upstream is not None:
                upstream[1].transport.abort()

    async def _exchange(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        head: bytes,
    ) -> bool:
        """Carry one request and its answer; returns whether the client's connection may serve another."""
        (method, path, _), fields = _parse(head)
        request = Request(method, path, fields.get("range", ""), self.faults.draw(self._dice))
        self.counts[method].requests += 1
        self.log.append(request)
        body = _body(client[0], fields, int(fields.get("content-length", 0)))
        if request.fault == "reset":
            raise ConnectionResetError
        if CONDITION in fields and self.conditions != "kept":
            request.fault = "unknown" if self.conditions == "refused" else "ignored"
            head = b"\r\n".join(line for line in head.split(b"\r\n") if not line.lower().startswith(CONDITION.encode()))
        if request.fault in REFUSALS:
            return await self._refuse(client[1], body, request)
        upload = asyncio.create_task(self._carry(_message(head, body), server[1], request, "up"))
        try:
            kept = await self._answer(server[0], client[1], request)
            # an answer may come before the body is asked for: then the connection is out of step
            await asyncio.wait({upload}, timeout=1.0)
            return kept and upload.done() and upload.exception() is None
        finally:
            upload.cancel()
            with suppress(*BROKEN, asyncio.CancelledError):
                await upload

    async def _answer(self, server: asyncio.StreamReader, client: asyncio.StreamWriter, request: Request) -> bool:
        (_, status, *_), fields = _parse(head := await server.readuntil(b"\r\n\r\n"))
        while status == "100":
            await self._carry(_message(head), client, request, "down")
            (_, status, *_), fields = _parse(head := await server.readuntil(b"\r\n\r\n"))
        bodiless = request.method == "HEAD" or status in ("204", "304")
        length = 0 if bodiless else int(fields.get("content-length", -1))
        body = _body(server, {} if bodiless else fields, length)
        if request.fault == "lost" or (request.fault == "truncated" and not length):
            raise ConnectionResetError
        request.status = int(status)
        if request.fault == "truncated":
            await self._carry(_message(head, _cut(body, max(0, length) // 2, None)), client, request, "down")
            return False
        if request.fault == "stalled":
            if length > 0:
                body = _cut(body, length // 2, self.faults.stall_s)
            else:
                await asyncio.sleep(self.faults.stall_s)
        await self._carry(_message(head, body), client, request, "down")
        framed = length >= 0 or "transfer-encoding" in fields
        return framed and fields.get("connection", "").lower() != "close"

    async def _refuse(self, client: asyncio.StreamWriter, body: AsyncGenerator[bytes, None], request: Request) -> bool:
        async for _ in body:
            pass
        status, code, text = REFUSALS[request.fault]
        request.status = int(status[:3])
        await asyncio.sleep(self.latency_ms / 2000)
        answer = "" if request.method == "HEAD" else f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {len(answer)}\r\n\r\n"
        await self._carry(_message((head + answer).encode()), client, request, "down")
        return True

    async def _carry(
        self, message: AsyncGenerator[bytes, None], writer: asyncio.StreamWriter, request: Request, direction: str
    ) -> None:
        delay = self.latency_ms / 2000
        head = True
        async with aclosing(_delayed(message, delay) if delay else message) as pieces:
            async for piece in pieces:
                if not head:
                    self._count(request, direction, len(piece))
                head = False
                await self._take_turn(direction, len(piece))
                writer.write(piece)
                await writer.drain()

    def _count(self, request: Request, direction: str, size: int) -> None:
        count = self.counts[request.method]
        if direction == "up":
            request.bytes_up += size
            count.bytes_up += size
        else:
            request.bytes_down += size
            count.bytes_down += size

    async def _take_turn(self, direction: str, size: int) -> None:
        """Wait until the line has carried what came before and these bytes."""
        if self.bandwidth is not None:
            now = self._loop.time()
            self._line_free[direction] = max(now, self._line_free[direction]) + size / self.bandwidth
            await asyncio.sleep(self._line_free[direction] - now)


async def _message(head: bytes, body: AsyncGenerator[bytes, None] | None = None) -> AsyncGenerator[bytes, None]:
    yield head
    if body is not None:
        async with aclosing(body) as pieces:
            async for piece in pieces:
                yield piece


async def _delayed(message: AsyncGenerator[bytes, None], delay: float) -> AsyncGenerator[bytes, None]:
    """Each piece `delay` seconds after it came, while the next ones come in: a longer line, not a thinner one."""
    loop = asyncio.get_running_loop()
    line: asyncio.Queue[tuple[float, bytes | BaseException | None]] = asyncio.Queue(64)

    async def fill() -> None:
        end = None
        try:
            async for piece in message:
                await line.put((loop.time() + delay, piece))
        except BROKEN as error:
            end = error
        await line.put((loop.time() + delay, end))

    filling = asyncio.create_task(fill())
    try:
        while True:
            due, piece = await line.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                return
            yield piece
    finally:
        filling.cancel()


async def _cut(body: AsyncGenerator[bytes, None], at: int, pause_s: float | None) -> AsyncGenerator[bytes, None]:
    """Break a body after `at` bytes: for good, or for `pause_s` seconds."""
    async with aclosing(body) as pieces:
        async for piece in pieces:
            if not 0 <= at < len(piece):
                at -= len(piece)
                yield piece
                continue
            yield piece[:at]
            if pause_s is None:
                return
            await asyncio.sleep(pause_s)
            yield piece[at:]
            at = -1


async def _head(reader: asyncio.StreamReader) -> bytes:
    """Head of the next request, empty where the client has closed the connection between two requests."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return b""


def _parse(head: bytes) -> tuple[list[str], dict[str, str]]:
    """Three parts of the first line, and the fields by their names in lower case."""
    first, *lines = head.decode("latin-1").strip().split("\r\n")
    fields = (line.partition(":") for line in lines)
    return first.split(" ", 2), {name.lower(): value.strip() for name, _, value in fields}


async def _body(reader: asyncio.StreamReader, fields: dict[str, str], length: int) -> AsyncGenerator[bytes, None]:
    """Pieces of a message's body as they come (RFC 9112, 6); with a `length` of -1 and no chunks, up to the end."""
    if "chunked" in fields.get("transfer-encoding", ""):
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.partition(b";")[0], 16)
            yield line
            async for piece in _exactly(reader, size + 2 if size else 0):
                yield piece
        while line != b"\r\n":
            line = await reader.readuntil(b"\r\n")
            yield line
    elif length < 0:
        while piece := await reader.read(PIECE):
            yield piece
    else:
        async for piece in _exactly(reader, length):
            yield piece


async def _exactly(reader: asyncio.StreamReader, size: int) -> AsyncGenerator[bytes, None]:
    while size:
        piece = await reader.read(min(size, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(b"", size)
        size -= len(piece)
        yield piece


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST in place of FIN."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
