"""Who writes which volume, where several conversions write into one store at a time.

::

    claims/_run-<run>         lease of a run, renewed while it lives
    claims/<volume_id>.<n>    claim of a run to a volume; the highest n holds

A claim is taken by creating its object, which the store grants to one alone. Claims are never written over: who finds
that the run which holds a volume is dead creates the claim with the next number, so that of two that find it so one
wins. Who deletes the claims of a dead run takes them over first, and then begins with the lowest: a claim with a gap
below it could not be seen. A run is dead when its lease is gone, when its process is gone (told on the same machine
alone), or when its lease was seen unchanged for longer than it lasts, by the clock of the one that looks: no two clocks
are compared, and no time of day.

A claim keeps work from being done twice; what keeps the store right is that a volume is committed by creating its
group, or by replacing the one that was read, and that two writers of one volume write the same bytes. So a run that was
thought dead and goes on does no harm: it finds that its claim is not the last, and does not commit. Everything is
deleted when a run ends.

Where the server knows no conditional requests nothing can be claimed: a run then waits until every other lease is known
for dead, and gives up when one is renewed.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from lesionzarr.errors import StoreError
from lesionzarr.store._folder import Folder
from lesionzarr.store._ordered import map_in_order

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from lesionzarr.store.location import Location

CLAIMS = "claims"
LEASE = f"{CLAIMS}/_run-"
"""No id of a volume begins with an underscore."""

LEASE_S = 60.0
RENEWAL_S = 20.0
LOOK_S = 1.0
"""Between two looks at the leases of others, where nothing can be claimed."""


@dataclass(frozen=True)
class Claims:
    """The right of one run to claim volumes; it travels with the tasks to the workers."""

    location: Location
    run: str
    dead: frozenset[str] = frozenset()
    """Runs whose claims are free."""

    def take(self, volume_id: str) -> str | None:
        """Claim a volume.

        Returns
        -------
        str or None
            None where it was free, this run where it had it already (its worker was lost), or the run that has it.
        """
        created = False
        while True:
            # looked at first: of two that create at the same moment, some servers let one wait for a second
            holder, number = self.last(volume_id)
            if created and holder == self.run:
                return None
            if holder is not None and holder not in self.dead:
                return holder
            created = self.create(volume_id, number) or created
            # those below another number may have been deleted meanwhile
            if created and not number:
                return None

    def create(self, volume_id: str, number: int) -> bool:
        """Create a claim unless there is one of that number; tell whether it was created."""
        # without the token a claim of this run that is there already would pass for the one that was just created
        return self.location.create(_key(volume_id, number), f"{self.run} {secrets.token_hex(4)}".encode())

    def holder(self, volume_id: str) -> str | None:
        """Give the run that has a volume; None where it is free."""
        return self.last(volume_id)[0]

    def is_held(self, volume_id: str) -> bool:
        """Tell whether this run still has a volume."""
        return self.holder(volume_id) == self.run

    def drop(self, volume_id: str) -> None:
        """Give up the claim of this run to a volume, if it has one."""
        holder, number = self.last(volume_id)
        if holder == self.run:
            self.location.delete(_key(volume_id, number - 1))

    def last(self, volume_id: str) -> tuple[str | None, int]:
        """Give the run that has a volume, and the number that the next claim has."""
        holder, number = None, 0
        while (data := self.location.read(_key(volume_id, number))) is not None:
            holder, number = _holder(data), number + 1
        return holder, number


class Run:
    """A conversion or repair that lives as long as this context: its lease, and what it sees of others.

    Parameters
    ----------
    location
        The store.

    Attributes
    ----------
    exclusive
        The store creates an object only where there is none. Some servers ignore the condition, or refuse a request
        that has one: then nothing can be claimed.

    Raises
    ------
    StoreError
        The store cannot be written, or another run is writing to one where nothing can be claimed.
    """

    def __init__(self, location: Location) -> None:
        self._location = location
        self.exclusive = True
        self._run = secrets.token_hex(8)
        self._seen: dict[str, tuple[bytes, float, float]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="lesionzarr lease", daemon=True)
        self._renewals = 0
        self._unfinished: list[str] = []

    def __enter__(self) -> Self:
        # files that a killed process was just writing: those that are there still when this run ends are nobody's
        self._unfinished = [key for key in self._location.list_objects(CLAIMS) if key.startswith(f"{CLAIMS}/.")]
        key = f"{LEASE}{self._run}"
        self._location.write(key, self._lease())
        self.exclusive = _is_exclusive(self._location, key, self._lease())
        self._keeper.start()
        if not self.exclusive:
            try:
                self._wait_for_others()
            except BaseException:
                self.__exit__()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._keeper.join()
        with suppress(StoreError):
            # what cannot be deleted is free once the lease has run out, and deleted by the next run
            self._release()
            _delete_empty(self._location)

    def claims(self, dead: Iterable[str] = ()) -> Claims | None:
        """Give the right to claim volumes, those of some dead runs too; None where nothing can be claimed."""
        return Claims(self._location, self._run, frozenset(dead)) if self.exclusive else None

    def holder(self, volume_id: str) -> str | None:
        """Give the run that has a volume; None where it is free."""
        return Claims(self._location, self._run).holder(volume_id)

    def drop(self, volume_id: str) -> None:
        """Give up the claim of this run to a volume, if it has one."""
        if self.exclusive:
            Claims(self._location, self._run).drop(volume_id)

    def is_dead(self, run: str) -> bool:
        """Tell whether a run has ended or was killed; of one that was killed elsewhere, that takes a minute."""
        data = self._location.read(f"{LEASE}{run}")
        if data is None or _has_died(data):
            return True
        with self._lock:
            now = time.monotonic()
            before, age, looked = self._seen.get(run, (b"", 0.0, now))
            # nobody could renew, or look, while the store was out of reach or this machine slept
            age = age + min(now - looked, RENEWAL_S) if data == before else 0.0
            self._seen[run] = data, age, now
            return age > LEASE_S

    def _keep(self) -> None:
        while not self._ended.wait(RENEWAL_S):
            with suppress(StoreError):
                self._location.write(f"{LEASE}{self._run}", self._lease())
                # so that those of runs that died meanwhile are known for dead when this one comes to their volumes
                for key in self._location.list_objects(CLAIMS):
                    if key.startswith(LEASE):
                        self.is_dead(key.removeprefix(LEASE))

    def _lease(self) -> bytes:
        self._renewals += 1
        return json.dumps({"renewals": self._renewals, **_process()}).encode()

    def _wait_for_others(self) -> None:
        """Wait until every other run is known for dead; StoreError once one shows that it lives.

        Each writes its lease before it looks for others, so that of two at least one sees the other.
        """
        leases = [key for key in self._location.list_objects(CLAIMS) if key.startswith(LEASE)]
        others = {key: self._location.read(key) for key in leases if key != f"{LEASE}{self._run}"}
        while others := {key: data for key, data in others.items() if not self.is_dead(key.removeprefix(LEASE))}:
            if any(self._location.read(key) not in {data, None} for key, data in others.items()):
                fault = "another run writes there, and the server knows no conditional requests"
                raise StoreError(f"{self._location.name}: {fault}; run the same again once that one has ended")
            time.sleep(LOOK_S)

    def _release(self) -> None:
        keys = self._location.list_objects(CLAIMS)
        runs = [key.removeprefix(LEASE) for key in keys if key.startswith(LEASE)]
        free = {run for run in runs if run == self._run or self.is_dead(run)}
        alive = {*runs} - free

        def is_free(holder: str) -> bool:
            # one whose lease was not listed has ended, or has begun since
            return holder in free or (holder not in alive and self.is_dead(holder))

        claims = [key for key in keys if not key.startswith((f"{CLAIMS}/_", f"{CLAIMS}/."))] if self.exclusive else []
        volume_ids = {key.removeprefix(f"{CLAIMS}/").rpartition(".")[0] for key in claims}
        list(map_in_order(self._location, partial(self._free, is_free), sorted(volume_ids)))
        rest = [*self._unfinished, *(f"{LEASE}{run}" for run in free)]
        list(map_in_order(self._location, self._location.delete, rest))

    def _free(self, is_free: Callable[[str], bool], volume_id: str) -> None:
        """Delete the claims to a volume, unless a run that lives has the last."""
        own = Claims(self._location, self._run)
        holder, number = own.last(volume_id)
        while holder != self._run:
            if holder is not None and not is_free(holder):
                return
            # taken over first: a claim that another creates at this moment would else be behind a gap, and not be seen
            if not own.create(volume_id, number):
                return
            holder, number = own.last(volume_id)
        for each in range(number):
            self._location.delete(_key(volume_id, each))
        if self._location.read(_key(volume_id, number)) is not None:
            # of one that took this run for dead; the gap below it is filled again
            self._free(is_free, volume_id)


def check_writable(location: Location) -> None:
    """Raise a StoreError unless the store can be written, before the work of which that is the end."""
    # a run deletes what is left of these
    key = f"{CLAIMS}/.{secrets.token_hex(4)}"
    location.write(key, b"")
    location.delete(key)
    _delete_empty(location)


def _delete_empty(location: Location) -> None:
    """Delete the folder of the claims, where there are folders and nothing is in it."""
    if isinstance(location, Folder):
        with suppress(OSError):
            (location.root / CLAIMS).rmdir()


def _is_exclusive(location: Location, key: str, data: bytes) -> bool:
    """Tell whether a store does not create an object where there is one: `key`, with other content."""
    try:
        return not location.create(key, data)
    except StoreError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False


def _key(volume_id: str, number: int) -> str:
    return f"{CLAIMS}/{volume_id}.{number}"


def _holder(claim: bytes) -> str:
    # one that another process is just writing, on a disk without hard links, is of a run that nobody knows
    return claim.decode(errors="replace").partition(" ")[0]


def _process() -> dict[str, Any]:
    """Say which process this is, in words that mean something on this machine alone; nothing where Linux is not."""
    try:
        # containers of one machine do not see each other's processes
        machine = f"{Path('/proc/sys/kernel/random/boot_id').read_text()} {Path('/proc/self/ns/pid').readlink()}"
        return {
            # a store tells no name of a machine
            "machine": sha256(machine.encode()).hexdigest(),
            "process": os.getpid(),
            "started": _started(os.getpid()),
        }
    except OSError:
        return {}


def _started(process: int) -> str | None:
    """Give the time at which a process was started, in ticks since that of Linux; None where there is none."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    # one that has ended stays in the list until its parent has asked how
    return None if state in "ZX" else fields[18]


def _has_died(lease: bytes) -> bool:
    """Tell whether a lease is of a process of this machine that is no more."""
    own = _process()
    try:
        told = json.loads(lease)
        return bool(own) and told.get("machine") == own["machine"] and _started(told["process"]) != told["started"]
    except (ValueError, KeyError, AttributeError):
        return False
