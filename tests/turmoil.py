"""Conversions into a bucket under fire: workers are killed, the server is killed and restarted, connections break."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import psutil
from proxy import Faults

from lesionzarr.store._bucket import Bucket
from lesionzarr.store._folder import Folder
from lesionzarr.store.generations import is_of_catalog, read_generation
from lesionzarr.store.layout import CATALOG, GROUP_FILE, REPORT, VOLUMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from proxy import Proxy
    from servers import SeaweedFS

NETWORK = Faults(reset=0.02, lost=0.02, unavailable=0.01, truncated=0.01)
LOOK_S = 0.02


def environment(options: dict[str, Any]) -> dict[str, str]:
    """Environment of a process that reaches the server; no credentials of this machine's user get in the way."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return {**kept, "LESIONZARR_STORAGE_OPTIONS": json.dumps(options)}


def start(source: Path, url: str, options: dict[str, Any], *arguments: object) -> subprocess.Popen[str]:
    """Start ``lesionzarr convert deeplesion`` in a process of its own."""
    words = ["convert", "deeplesion", source, url, "--json", *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "lesionzarr", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(options),
    )


@dataclass
class Told:
    """What a conversion under fire ended with, and what befell it."""

    report: dict[str, Any]
    errors: str
    seconds: float
    kills: int = 0
    restarts: int = 0
    broken: int = 0
    """Requests that the network broke, of those in the log of the proxy."""
    downtimes: list[float] = field(default_factory=list)


def convert_under_fire(
    source: Path,
    url: str,
    server: SeaweedFS,
    proxy: Proxy,
    *arguments: object,
    volumes: int,
    kills: int,
    restarts: int,
    seed: int = 0,
) -> Told:
    """Convert with two workers; each misfortune comes when so many volumes are there as the seed says."""
    dice = random.Random(seed)
    events = ["kill"] * kills + ["restart"] * restarts
    dice.shuffle(events)
    plan = dict(zip(sorted(dice.sample(range(1, volumes), len(events))), events, strict=True))
    bucket = Bucket(url, server.options, answered=True)
    proxy.faults = NETWORK
    began = time.monotonic()
    process = start(source, url, {**server.options, "endpoint": proxy.endpoint}, "--workers", 2, *arguments)
    told = Told({}, "", 0.0)

    def shoot() -> None:
        for threshold, event in plan.items():
            while len(_committed(bucket)) < threshold:
                if process.poll() is not None:
                    return
                time.sleep(LOOK_S)
            if event == "kill":
                told.kills += _kill_a_worker(process, dice)
            else:
                stopped = time.monotonic()
                server.restart()
                told.restarts += 1
                told.downtimes.append(time.monotonic() - stopped)

    fire = threading.Thread(target=shoot)
    fire.start()
    out, told.errors = process.communicate()
    fire.join()
    proxy.faults = Faults()
    told.seconds = time.monotonic() - began
    told.broken = sum(bool(request.fault) for request in proxy.log)
    told.report = json.loads(out) if out else {}
    return told


def _committed(bucket: Bucket) -> list[str]:
    return [key for key in bucket.list_objects(VOLUMES) if key.count("/") == 2 and key.endswith(GROUP_FILE)]


def workers_of(process: subprocess.Popen[str]) -> Iterator[psutil.Process]:
    """Worker processes of a conversion that are there now."""
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                yield child
        except psutil.NoSuchProcess:
            continue


def _kill_a_worker(process: subprocess.Popen[str], dice: random.Random) -> int:
    # one that was killed is replaced after some seconds
    while process.poll() is None:
        workers = sorted(workers_of(process), key=lambda worker: worker.pid)
        if workers:
            dice.choice(workers).kill()
            return 1
        time.sleep(LOOK_S)
    return 0


def digests(bucket: Bucket | Folder) -> dict[str, str]:
    """SHA-256 of every object of a store; the report tells of a run, and the root when the store was made.

    Of catalogs that were written one after the other the last counts, whatever its number.
    """
    tables = read_generation(bucket).tables
    found = {}
    for key in bucket.list_objects(""):
        if key in tables or not (key == REPORT or is_of_catalog(key)):
            name = f"{CATALOG}/{key.rpartition('/')[2]}" if key in tables else key
            found[name] = _digest(key, bucket.read(key) or b"")
    return found


def digests_of_folder(store: Path) -> dict[str, str]:
    """`digests` of a store in a folder."""
    return digests(Folder(store))


def _digest(key: str, data: bytes) -> str:
    if key == GROUP_FILE:
        root = json.loads(data)
        for stamp in ("created", "checksum"):
            del root["attributes"]["lesionzarr"][stamp]
        data = json.dumps(root).encode()
    return hashlib.sha256(data).hexdigest()
