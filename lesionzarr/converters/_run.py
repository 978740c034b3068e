"""Converting: one task per volume, run here or by dask workers, resumable at any moment.

Peak memory of a worker is one volume (its voxels, its mask, and one encoded shard of at most 64 slices); of the process
that steers, the scan. Tasks are handed out as others end, so that no more than two per worker wait at any time.
"""

from __future__ import annotations

import errno
import json
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from lesionzarr._workers import WAITING, open_client
from lesionzarr.converters._base import Converter, describe, make_converter
from lesionzarr.converters._plan import Plan, plan_conversion, size_issues
from lesionzarr.errors import LesionzarrError, SettingError, SourceError, StoreError
from lesionzarr.report import Issue, Report
from lesionzarr.source import Remote
from lesionzarr.store._bucket import Bucket
from lesionzarr.store.index import write_catalog
from lesionzarr.store.layout import REPORT, check_profile, volume_codecs
from lesionzarr.store.location import Location, is_url, open_location
from lesionzarr.store.shards import encoder
from lesionzarr.store.writer import TOOL, create_store, delete_volume, update_volume, write_volume

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from lesionzarr.series import Scan, Volume
    from lesionzarr.source import SourcePath

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}
"""Faults of the destination after which no further volume can be written."""


@dataclass(frozen=True)
class Progress:
    """How far a conversion is."""

    slices: int
    """Slices done, failed ones included."""
    total_slices: int
    volumes: int
    total_volumes: int


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


def convert(  # noqa: PLR0913 - keywords, of which most calls need none
    name: str,
    source: str | Path,
    destination: str | os.PathLike[str],
    *,
    workers: int = 1,
    scheduler: str | None = None,
    profile: str = "portable",
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Report:
    """Convert a dataset into a store, or go on with a conversion that was stopped.

    A volume that is there already, from the same files (name, size, time or CRC) with the same settings, is skipped;
    one that was half written is redone; one whose lesions alone have changed gets its table written anew. A volume that
    the store holds under another range of the same slices is deleted once its replacement is there, and kept where this
    source has but a part of it. One conversion at a time may write to a store.

    Parameters
    ----------
    name
        Converter, such as ``"deeplesion"``.
    source
        Folder of the dataset: a path or URL. So are the paths among the settings.
    destination
        Path or URL of the store; made if it is not there.
    workers
        Processes that convert, each holding one volume in memory. 1 converts in this process; more start as many dask
        workers on this machine (the calling script then needs its ``if __name__ == "__main__":``).
    scheduler
        Address of a ``dask.distributed`` scheduler to use instead, such as ``"tcp://10.0.0.1:8786"``. Its workers need
        lesionzarr, and have to reach source and destination by the same paths; each thread of theirs holds a volume.
    profile
        Codecs: ``"portable"``, ``"fast"`` or ``"dense"``.
    storage_options
        Options of the object store, where `destination` is a URL (see `lesionzarr.store.location.open_location`).
    source_options
        Those of the source, and of settings that are URLs.
    progress
        Called after every volume.
    **options
        Settings of the converter, such as ``csv=`` or ``images=`` (see the converter).

    Returns
    -------
    Report
        Also written to ``catalog/report.json`` in the store.

    Raises
    ------
    NotFoundError
        No such converter or profile.
    MissingExtraError
        The profile needs a package that is not installed.
    SettingError
        An option that the converter does not have, or fewer than one worker.
    SourceError
        The source as a whole cannot be read. What is wrong with parts of it is in the report.
    StoreError
        The destination cannot be written.
    UnreachableError
        A source behind a URL cannot be reached.
    """
    if workers < 1:
        raise SettingError(f"{workers} workers: at least 1 is needed")
    check_profile(profile)
    encoder(volume_codecs(profile))
    converter = make_converter(name, source, options, partial(source_path, source_options or {}))
    location = open_location(destination, storage_options)
    scan = converter.scan()
    create_store(location, _description(converter))
    plan = plan_conversion(scan, location, profile)
    for volume in plan.update:
        update_volume(location, volume)
    outcomes = _follow(_outcomes(converter, plan, location, profile, workers, scheduler), plan, progress)
    replaced = _delete_replaced(location, plan, outcomes)
    lesions, damaged = write_catalog(location)
    report = _report(converter, scan, plan, outcomes, [*replaced, *damaged])
    report = replace(report, counts={**report.counts, "lesions in the store": lesions})
    location.write(REPORT, json.dumps(report.to_json(), indent=1).encode())
    return report


def plan(
    name: str,
    source: str | Path,
    destination: str | os.PathLike[str],
    *,
    profile: str = "portable",
    storage_options: Mapping[str, Any] | None = None,
    source_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> tuple[Scan, Plan]:
    """Tell what `convert` would do, without writing anything; the parameters are those of `convert`.

    Returns
    -------
    Scan
        What the source holds, and what is odd about it.
    Plan
        Volumes to convert, to update and to skip.
    """
    check_profile(profile)
    scan = make_converter(name, source, options, partial(source_path, source_options or {})).scan()
    return scan, plan_conversion(scan, open_location(destination, storage_options), profile)


def convert_volume(converter: Converter, volume: Volume, location: Location, profile: str) -> Outcome:
    """Convert one volume: the task that a worker runs. What can go wrong with it is in the outcome."""
    try:
        voxels = converter.read_volume(volume)
        made_by = describe(converter)
        if volume.keeps_headers:
            made_by["headers"] = converter.read_headers(volume)
        mask = converter.read_mask(volume) if volume.mask_files else None
        write_volume(location, volume, voxels, made_by, profile, mask)
    except StoreError as error:
        return Outcome(volume, fault=str(error), hopeless=error.errno in FULL)
    except SourceError as error:
        return Outcome(volume, fault=str(error), file=error.file)
    except (LesionzarrError, OSError, MemoryError) as error:
        return Outcome(volume, fault=str(error) or type(error).__name__)
    return Outcome(volume, tuple(size_issues(volume, voxels.shape)))


def source_path(options: Mapping[str, Any], path: str | Path) -> SourcePath:
    """Make what is read of a path or URL of a source."""
    if not is_url(path):
        return Path(path)
    folder, _, name = str(path).rstrip("/").rpartition("/")
    if folder.endswith(":/"):
        folder, name = str(path).rstrip("/"), ""
    location = open_location(folder, options)
    return (
        Remote(location, unquote(name))
        if isinstance(location, Bucket)
        else Path(unquote(folder.partition("://")[2]), unquote(name))
    )


def _description(converter: Converter) -> dict[str, str]:
    return {
        "source": converter.name,
        "title": converter.title,
        "licence": converter.licence,
        "citation": converter.citation,
    }


def _delete_replaced(location: Location, plan: Plan, outcomes: list[Outcome]) -> list[Issue]:
    """Delete the volumes that others replace, once one of those is there."""
    written = (outcome.volume for outcome in outcomes if outcome.fault is None)
    there = {volume.volume_id for volume in (*written, *plan.update, *plan.skip)}
    issues = []
    for old_id, new_ids in plan.replaced.items():
        if not there.isdisjoint(new_ids):
            delete_volume(location, old_id)
            text = f"{old_id}: replaced by {', '.join(new_ids)}"
            issues.append(Issue("replaced-volume", old_id, "", text))
    return issues


def _outcomes(
    converter: Converter, plan: Plan, location: Location, profile: str, workers: int, scheduler: str | None
) -> Iterator[Outcome]:
    if scheduler is None and min(workers, len(plan.convert)) <= 1:
        for volume in plan.convert:
            outcome = convert_volume(converter, volume, location, profile)
            yield outcome
            if outcome.hopeless:
                return
    else:
        with open_client(min(workers, len(plan.convert)), scheduler) as client:
            yield from _distribute(client, converter, plan.convert, location, profile)


def _distribute(
    client: Any,
    converter: Converter,
    volumes: tuple[Volume, ...],
    location: Location,
    profile: str,
) -> Iterator[Outcome]:
    from distributed import KilledWorker, as_completed

    waiting = iter(volumes)
    asked: dict[str, Volume] = {}

    def submit(volume: Volume) -> Any:
        future = client.submit(convert_volume, converter, volume, location, profile, pure=False)
        asked[future.key] = volume
        return future

    slots = WAITING * sum(client.nthreads().values())
    running = as_completed([submit(volume) for volume in islice(waiting, slots)])
    for future in running:
        volume = asked.pop(future.key)
        error = future.exception()
        if error is not None and not isinstance(error, KilledWorker):
            raise error
        outcome = future.result() if error is None else Outcome(volume, fault="its workers were killed, out of memory?")
        if outcome.hopeless:
            # those under way still come: one of them may have found room
            waiting = iter(())
        following = next(waiting, None)
        if following is not None:
            running.add(submit(following))
        yield outcome


def _follow(outcomes: Iterator[Outcome], plan: Plan, progress: Callable[[Progress], None] | None) -> list[Outcome]:
    """Gather outcomes, and tell how far it is after each."""
    done: list[Outcome] = []
    slices = 0
    for outcome in outcomes:
        done.append(outcome)
        slices += len(outcome.volume.files)
        if progress:
            progress(Progress(slices, plan.slices, len(done), len(plan.convert)))
    return done


def _report(converter: Converter, scan: Scan, plan: Plan, outcomes: list[Outcome], odd: list[Issue]) -> Report:
    converted = [outcome for outcome in outcomes if outcome.fault is None]
    failed = [_failure(o.volume, o.fault, o.file) for o in outcomes if o.fault is not None]
    tried = {outcome.volume.volume_id for outcome in outcomes}
    failed += [
        _failure(volume, "not tried, since the destination takes no more")
        for volume in plan.convert
        if volume.volume_id not in tried
    ]
    issues = [*scan.issues, *plan.issues, *(issue for outcome in outcomes for issue in outcome.issues), *odd]
    counts = {
        "volumes converted": len(converted),
        "volumes updated": len(plan.update),
        "volumes skipped": len(plan.skip),
        "volumes missing": len(scan.missing),
        "failures": len(scan.failed) + len(failed),
        "slices converted": sum(len(outcome.volume.files) for outcome in converted),
        **Counter(f"issues: {issue.kind}" for issue in issues),
    }
    return Report(
        source=converter.name,
        tool=TOOL,
        converted=tuple(sorted(outcome.volume.volume_id for outcome in converted)),
        updated=tuple(volume.volume_id for volume in plan.update),
        skipped=tuple(volume.volume_id for volume in plan.skip),
        failed=(*scan.failed, *failed),
        missing=scan.missing,
        issues=tuple(issues),
        counts=counts,
    )


def _failure(volume: Volume, fault: str, file: str = "") -> Issue:
    return Issue("failed-volume", volume.volume_id, file, fault, tuple(lesion.lesion_id for lesion in volume.lesions))
