"""``view``: the page that shows a store, and its server."""

from __future__ import annotations

import errno
import json
import webbrowser
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import add_command, add_store, open_store, parse_count
from lesionzarr.errors import SettingError
from lesionzarr.store.location import shown
from lesionzarr.viewer.server import ViewerServer

if TYPE_CHECKING:
    import argparse

PORT = 8790


def add_view(commands: Any) -> None:
    parser = add_command(commands, "view", _view, "show a store in the browser: lesion table, gallery, slices")
    add_store(parser)
    parser.add_argument("--port", type=parse_count, default=PORT, metavar="N", help="(default: %(default)s; 0: any)")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="NAME",
        help="address to listen on (default: %(default)s, for this machine alone; any other shows the store to others)",
    )
    parser.add_argument("--no-browser", action="store_true", help="print the address, and open no browser")


def _view(arguments: argparse.Namespace) -> int:
    # what is wrong with the store is said here, not in the page
    catalog = open_store(arguments)
    with _listen(catalog.location, arguments.host, arguments.port) as server:
        facts = json.dumps({"store": shown(arguments.store), "url": server.url})
        print(facts if arguments.json else f"{server.url} shows {shown(arguments.store)}; Ctrl+C ends it", flush=True)
        if not arguments.no_browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return 0
    return 0


def _listen(location: Any, host: str, port: int) -> ViewerServer:
    try:
        return ViewerServer(location, host, port)
    except (OSError, OverflowError) as error:
        reason = "in use" if getattr(error, "errno", None) == errno.EADDRINUSE else str(error)
        raise SettingError(f"{host}, port {port}: {reason}; name another by --host and --port (0: any port)") from error
