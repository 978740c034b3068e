"""The work of a conversion: one task per volume, run here or by dask workers.

Peak memory of a worker is one volume (its voxels, its mask, and one encoded shard of at most 64 slices). Tasks are
handed out as others end, so that no more than two per worker wait at any time. The tasks of a worker that is lost are
given to others by the scheduler, three times; a volume that kills four workers has failed.
"""

from __future__ import annotations

import errno
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING, Any, NamedTuple

from lesionzarr._workers import iter_done, open_client
from lesionzarr.converters._base import describe
from lesionzarr.converters._plan import compare_volume, size_issues, voxel_bytes
from lesionzarr.errors import LesionzarrError, SourceError, StoreError
from lesionzarr.report import Issue
from lesionzarr.store._ordered import map_in_order
from lesionzarr.store.layout import CHECKSUM
from lesionzarr.store.verify import is_sound
from lesionzarr.store.writer import is_whole, read_attributes, update_volume, write_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lesionzarr.converters._base import Converter
    from lesionzarr.series import Volume
    from lesionzarr.store.claims import Claims, Run
    from lesionzarr.store.location import Location

    Workers = Callable[[Sequence[Volume], Claims | None], Iterator["Outcome"]]

LOOK_S = 1.0
"""Between two looks at volumes that other conversions are at."""

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Faults of the destination after which no further volume can be written."""


@dataclass(frozen=True)
class Task:
    """What every task of a conversion needs; it travels with each, some kilobytes of paths and options.

    What is scattered once instead is gone with the workers that hold it.
    """

    converter: Converter
    location: Location
    profile: str
    repair: bool = False
    """A volume that is there is done only if every voxel of it is as it was written."""
    update: bool = False
    """Lesions and coordinates of volumes are to be written anew; see `update_volumes`."""


@dataclass(frozen=True)
class Outcome:
    """What became of one volume."""

    volume: Volume
    issues: tuple[Issue, ...] = ()
    fault: str | None = None
    """Why it was not written."""
    file: str = ""
    """The file at fault, if one is."""
    hopeless: bool = False
    """The destination will take no other volume either."""
    holder: str | None = None
    """The run of another conversion that is at it; to be looked at again."""
    by_another: bool = False
    """Another conversion has written it meanwhile."""
    workers: int = 1
    """Number of workers when it came."""

    @property
    def is_converted(self) -> bool:
        """It was written by this conversion."""
        return self.fault is None and self.holder is None and not self.by_another


def convert_volume(task: Task, volume: Volume, claims: Claims | None = None) -> Outcome:
    """Convert one volume: the task that a worker runs. What can go wrong with it is in the outcome."""
    try:
        return _write(task, volume) if claims is None else _claim_and_write(task, volume, claims)
    except StoreError as error:
        return Outcome(volume, fault=str(error), hopeless=error.errno in FULL)
    except SourceError as error:
        return Outcome(volume, fault=str(error), file=error.file)
    except (LesionzarrError, OSError, MemoryError) as error:
        return Outcome(volume, fault=str(error) or type(error).__name__)


def _claim_and_write(task: Task, volume: Volume, claims: Claims) -> Outcome:
    volume_id = volume.volume_id
    before = claims.take(volume_id)
    # another may have written it since the plan was made. Where this run had the claim before, it was a worker of its
    # own, lost before it could tell
    own, verb = _compare(task, volume)
    if own is not None and verb != "convert":
        issues = [*size_issues(volume, own["volume"]["shape"]), *(other_issues(volume) if verb == "update" else ())]
        return Outcome(volume, tuple(issues), by_another=before != claims.run)
    if before not in {None, claims.run}:
        return Outcome(volume, holder=before)
    outcome = _write(task, volume, partial(claims.is_held, volume_id))
    if not outcome.by_another:
        return outcome
    holder = claims.holder(volume_id)
    return outcome if holder == claims.run else Outcome(volume, holder=holder or "")


def _compare(task: Task, volume: Volume) -> tuple[dict[str, Any] | None, str]:
    """Read the attributes of a volume, and tell what has to be done for it: convert, update or skip."""
    own = read_attributes(task.location, volume.volume_id)
    if not task.repair:
        return own, compare_volume(volume, own, task.location, task.profile)
    return own, "skip" if own is not None and is_sound(task.location, volume.volume_id) else "convert"


def update_volumes(task: Task, volumes: Sequence[Volume], claims: Claims | None) -> Iterator[Outcome]:
    """Write lesions and coordinates of volumes anew, and yield what became of each."""
    return map_in_order(task.location, partial(_update, task, claims), volumes)


def _update(task: Task, claims: Claims | None, volume: Volume) -> Outcome:
    try:
        if claims is not None:
            return _claim_and_update(task, claims, volume)
        return Outcome(volume, by_another=not update_volume(task.location, volume))
    except StoreError as error:
        return Outcome(volume, fault=str(error))


def _claim_and_update(task: Task, claims: Claims, volume: Volume) -> Outcome:
    volume_id = volume.volume_id
    before = claims.take(volume_id)
    own, verb = _compare(task, volume)
    if verb == "skip":
        return Outcome(volume, by_another=True)
    if before not in {None, claims.run}:
        return Outcome(volume, holder=before)
    if verb == "update" and update_volume(task.location, volume, partial(claims.is_held, volume_id)):
        return Outcome(volume)
    holder = claims.holder(volume_id)
    if holder != claims.run:
        return Outcome(volume, holder=holder or "")
    if verb == "convert" and own is not None and is_whole(task.location, volume_id, own):
        return Outcome(volume, tuple(other_issues(volume)), by_another=True)
    return Outcome(volume, fault="another conversion began to write it anew; run the same again")


def other_issues(volume: Volume) -> Iterator[Issue]:
    """Say that a volume is not what this conversion would have made of it."""
    text = "made by another conversion from other files or settings; run the one that is wanted again"
    yield Issue("another-conversion", volume.volume_id, "", f"{volume.volume_id}: {text}")


def _write(task: Task, volume: Volume, is_held: Callable[[], bool] | None = None) -> Outcome:
    converter = task.converter
    voxels = converter.read_volume(volume)
    made_by = describe(converter)
    if volume.keeps_headers:
        made_by["headers"] = converter.read_headers(volume)
    mask = converter.read_mask(volume) if volume.mask_files else None
    written = write_volume(task.location, volume, voxels, made_by, task.profile, mask, is_held)
    return Outcome(volume, tuple(size_issues(volume, voxels.shape)), by_another=not written)


@contextmanager
def open_workers(task: Task, workers: int, scheduler: str | None) -> Iterator[Workers]:
    """Give the function that converts volumes, here or on workers, and yields their outcomes as they come."""
    if scheduler is None and workers <= 1:

        def here(volumes: Sequence[Volume], claims: Claims | None) -> Iterator[Outcome]:
            for volume in volumes:
                outcome = convert_volume(task, volume, claims)
                yield outcome
                if outcome.hopeless:
                    return

        yield here
    else:
        with open_client(workers, scheduler) as client:

            def there(volumes: Sequence[Volume], claims: Claims | None) -> Iterator[Outcome]:
                return _distribute(client, task, volumes, claims)

            yield there


def order_by_cost(volumes: Sequence[Volume]) -> list[Volume]:
    """Order volumes: folder by folder and zip by zip, and in each the costliest first.

    The last volumes under way are then small ones, and no worker waits long for another; what does not fit into memory
    shows early. One zip after the other, because a worker keeps the directory of the one that it reads from, and the
    disk or the network its neighbourhood.
    """
    roots = [volume.files[0].root if volume.files else "" for volume in volumes]
    places = {root: place for place, root in reversed([*enumerate(roots)])}
    keys = [(places[root], -voxel_bytes(volume)) for root, volume in zip(roots, volumes, strict=True)]
    return [volumes[number] for number in sorted(range(len(volumes)), key=keys.__getitem__)]


def iter_outcomes(
    task: Task, work: Workers, volumes: Sequence[Volume], run: Run, before: Mapping[str, str | None]
) -> Iterator[Outcome]:
    """Convert volumes, and last those that another conversion was at: they are waited for.

    What the other has written meanwhile is left as it is, also where this one would have made another thing of it: the
    two might else wait for each other. Its group has another checksum then than `before`, when the plan was made.
    """
    left: dict[str, Volume] = {}
    dead: set[str] = set()
    failed: list[str] = []
    ready: Sequence[Volume] = volumes
    while ready or left:
        hopeless = False
        for outcome in work(ready, run.claims(dead)):
            if outcome.holder is not None:
                left[outcome.volume.volume_id] = outcome.volume
                continue
            yield outcome
            hopeless = hopeless or outcome.hopeless
            if outcome.fault is not None:
                failed.append(outcome.volume.volume_id)
        if hopeless:
            return
        # another conversion may wait for these, and need not wait for the end of this one
        while failed:
            run.drop(failed.pop())
        looks = [*map_in_order(task.location, partial(_look, task, run, before), [*left.values()])]
        dead |= {look.dead for look in looks if look.dead is not None}
        for look in looks:
            if look.is_other:
                volume = left.pop(look.volume_id)
                yield Outcome(volume, tuple(other_issues(volume)), by_another=True)
        ready = [left.pop(look.volume_id) for look in looks if look.is_ready]
        if left and not ready:
            time.sleep(LOOK_S)


class _Look(NamedTuple):
    volume_id: str
    is_ready: bool
    """The volume is there now, or free."""
    dead: str | None = None
    """The dead run that still has it."""
    is_other: bool = False
    """Another conversion has written it, from other files or with other settings."""


def _look(task: Task, run: Run, before: Mapping[str, str | None], volume: Volume) -> _Look:
    """Look at a volume that another conversion was at."""
    own, verb = _compare(task, volume)
    if verb == "skip" or (verb == "update" and not task.update):
        return _Look(volume.volume_id, is_ready=True)
    is_new = own is not None and own.get(CHECKSUM) != before.get(volume.volume_id)
    if own is not None and is_new and not task.repair and is_whole(task.location, volume.volume_id, own):
        return _Look(volume.volume_id, is_ready=False, is_other=True)
    holder = run.holder(volume.volume_id)
    is_dead = holder is not None and run.is_dead(holder)
    return _Look(volume.volume_id, holder is None or is_dead, holder if is_dead else None)


def _distribute(client: Any, task: Task, volumes: Sequence[Volume], claims: Claims | None) -> Iterator[Outcome]:
    full = False
    # those under way still come after the destination is full: one of them may have found room
    wanted = takewhile(lambda _: not full, volumes)
    for done in iter_done(
        client, wanted, lambda volume: client.submit(convert_volume, task, volume, claims, pure=False)
    ):
        killed = Outcome(done.item, fault="its workers were killed, out of memory?")
        outcome = killed if done.was_killed else done.future.result()
        full = full or outcome.hopeless
        yield replace(outcome, workers=done.workers)
