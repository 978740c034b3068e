"""A server of the viewer's page and of one store, as any server of static files would give them.

``/`` is the page, ``/store/<key>`` an object of the store. Only GET and HEAD are answered, one range at a time. A key
is names joined by slashes, of the characters that the store format allows: nothing outside of the store, nothing
hidden, and no listing. A store behind a URL is read by this process, with its credentials, and needs no CORS.
"""

from __future__ import annotations

import re
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import numpy as np

from lesionzarr.errors import StoreError
from lesionzarr.store.layout import ID
from lesionzarr.store.location import open_location
from lesionzarr.viewer import PAGE

if TYPE_CHECKING:
    from lesionzarr.store.location import Blob, Location

STORE = "store/"
INDEX = "index.html"
TYPES = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "txt": "text/plain; charset=utf-8",
    "json": "application/json",
}
BYTES = "application/octet-stream"
RANGE = re.compile(r"bytes=(\d*)-(\d*)")
LOCAL = {"127.0.0.1", "localhost"}


class ViewerServer(ThreadingHTTPServer):
    """Serves the page and one store until it is shut down.

    Parameters
    ----------
    location
        The store.
    host
        Address to listen on. On one that only this machine reaches, requests by other names are refused, so that a
        page of the web cannot point its own name here and read the store.
    port
        0 for any that is free.
    """

    daemon_threads = True

    def __init__(self, location: Location, host: str = "127.0.0.1", port: int = 0) -> None:
        self.store = location
        self.page = open_location(PAGE)
        self.names = LOCAL if host in LOCAL else None
        self.url_host = host
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Address of the page."""
        return f"http://{self.url_host}:{self.server_port}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: ViewerServer
    protocol_version = "HTTP/1.1"
    server_version = "lesionzarr"
    sys_version = ""
    timeout = 60

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by http.server
        """Leave the terminal alone."""

    def _answer(self) -> None:
        if self.server.names is not None and _host_name(self.headers.get("Host", "")) not in self.server.names:
            self._refuse(HTTPStatus.FORBIDDEN, "this server answers to the names of this machine only")
            return
        key = unquote(urlsplit(self.path).path).removeprefix("/")
        location = self.server.page
        if key.startswith(STORE):
            key, location = key.removeprefix(STORE), self.server.store
        try:
            self._send(location, key or INDEX)
        except StoreError as error:
            if isinstance(error.__cause__, IsADirectoryError):
                self._refuse(HTTPStatus.NOT_FOUND, f"{key}: no such object")
            else:
                self._refuse(HTTPStatus.BAD_GATEWAY, str(error))

    def _send(self, location: Location, key: str) -> None:
        blob = location.open(key) if _is_key(key) else None
        if blob is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"{key}: no such object")
            return
        part = _parse_range(self.headers.get("Range", ""), blob.size)
        if part is not None and not part:
            headers = {"Content-Range": f"bytes */{blob.size}"}
            self._refuse(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "no such range", headers)
            return
        wanted = range(blob.size) if part is None else part
        # read before anything is sent, as far as it tells whether there is something to read
        data = _read(blob, wanted if self.command == "GET" else wanted[:1])
        self.send_response(HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT)
        if part is not None:
            self.send_header("Content-Range", f"bytes {part[0]}-{part[-1]}/{blob.size}")
        self._end_headers(TYPES.get(key.rpartition(".")[2], BYTES), len(wanted))
        if self.command == "GET":
            self.wfile.write(data)

    def _refuse(self, status: HTTPStatus, reason: str, headers: dict[str, str] | None = None) -> None:
        data = f"{reason}\n".encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self._end_headers(TYPES["txt"], len(data))
        if self.command == "GET":
            self.wfile.write(data)

    def _end_headers(self, media_type: str, length: int) -> None:
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(length))
        self.send_header("Accept-Ranges", "bytes")
        # a store may be converted anew while it is looked at
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()


def _is_key(key: str) -> bool:
    return all(ID.fullmatch(name) and ".." not in name for name in key.split("/"))


def _host_name(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _parse_range(text: str, size: int) -> range | None:
    """Give the bytes that a Range header asks for (RFC 9110, 14.1.2); None for all, as for what is no single range."""
    match = RANGE.fullmatch(text)
    if not match or match[0] == "bytes=-":
        return None
    first, last = match.groups()
    if not first:
        return range(max(0, size - int(last)), size)
    if last and int(last) < int(first):
        return None
    return range(int(first), min(int(last) + 1, size) if last else size)


def _read(blob: Blob, part: range) -> bytes:
    out = np.empty(len(part), dtype=np.uint8)
    if len(part):
        blob.read_ranges([(part[0], out)])
    return out.tobytes()
